//! The sum on flex, in place.

use super::{AccumulateOps, plain};
use crate::backends::cast;
use crate::backends::flex_memory::{dense, floats, is_supported};
use crate::simd::ELEMENTS_PER_BLOCK;
use burn::backend::{Flex, tensor::FloatTensor};
use burn::tensor::DType;
use rayon::prelude::*;
use wmtp_gemm::FloatSlice;
use wmtp_gemm::simd::{to_f32, vectorized};

impl AccumulateOps for Flex {
    fn accumulate(total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_supported(total.dtype()) || !is_supported(new.dtype()) {
            return plain::<Self>(total, new);
        }
        let mut total = dense(cast::<Self>(total, DType::F32));
        add(total.storage_mut(), floats(&new.to_contiguous()));
        total
    }
}

/// Adds `new` to `total`, both of the same length.
fn add(total: &mut [f32], new: FloatSlice<'_>) {
    match new {
        FloatSlice::F32(new) => run(total, new, |x| *x),
        FloatSlice::Bf16(new) => run(total, new, |x| to_f32(*x)),
    }
}

fn run<T: Sync>(total: &mut [f32], new: &[T], wide: impl Fn(&T) -> f32 + Sync) {
    total
        .par_chunks_mut(ELEMENTS_PER_BLOCK)
        .zip(new.par_chunks(ELEMENTS_PER_BLOCK))
        .for_each(|(total, new)| {
            vectorized(
                #[inline(always)]
                || total.iter_mut().zip(new).for_each(|(total, new)| *total += wide(new)),
            );
        });
}
