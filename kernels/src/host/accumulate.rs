//! [`crate::accumulate`] on slices.

use super::vectorized;
use wmtp_gemm::FloatSlice;
use rayon::prelude::*;

/// Values that are added at a time.
const BLOCK: usize = 1 << 14;

/// Adds `new` to `total`, both of the same length.
pub fn add(total: &mut [f32], new: FloatSlice<'_>) {
    match new {
        FloatSlice::F32(new) => run(total, new, |x| *x),
        FloatSlice::Bf16(new) => run(total, new, |x| f32::from_bits(u32::from(x.to_bits()) << 16)),
    }
}

fn run<T: Sync>(total: &mut [f32], new: &[T], wide: impl Fn(&T) -> f32 + Sync) {
    total
        .par_chunks_mut(BLOCK)
        .zip(new.par_chunks(BLOCK))
        .for_each(|(total, new)| {
            vectorized(
                #[inline(always)]
                || total.iter_mut().zip(new).for_each(|(total, new)| *total += wide(new)),
            );
        });
}
