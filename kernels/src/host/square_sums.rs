//! [`crate::square_sums`] on slices.

use super::vectorized;
use wmtp_gemm::FloatSlice;
use rayon::prelude::*;

/// Partial sums of a row.
const LANES: usize = 32;

/// Values that a thread takes at least.
const VALUES_PER_TASK: usize = 1 << 14;

/// The sum of squares of each row of `columns` values.
pub fn of_rows(values: FloatSlice<'_>, columns: usize) -> Vec<f32> {
    match values {
        FloatSlice::F32(values) => sums(values, columns, |x| *x),
        FloatSlice::Bf16(values) => sums(values, columns, |x| f32::from_bits(u32::from(x.to_bits()) << 16)),
    }
}

fn sums<T: Sync>(values: &[T], columns: usize, wide: impl Fn(&T) -> f32 + Sync) -> Vec<f32> {
    if columns == 0 {
        return Vec::new();
    }
    values
        .par_chunks(columns)
        .with_min_len(VALUES_PER_TASK.div_ceil(columns))
        .map(|row| {
            vectorized(
                #[inline(always)]
                || {
                    let mut lanes = [0.0f32; LANES];
                    let chunks = row.chunks_exact(LANES);
                    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
                        *lane += wide(x) * wide(x);
                    }
                    for chunk in chunks {
                        for (lane, x) in lanes.iter_mut().zip(chunk) {
                            *lane += wide(x) * wide(x);
                        }
                    }
                    lanes.iter().sum()
                },
            )
        })
        .collect()
}
