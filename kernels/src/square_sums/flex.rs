//! The sums on flex, without a copy.

use super::{SquareSumsOps, plain};
use crate::backends::flex_memory::{floats, is_supported};
use burn::backend::{Flex, TensorMetadata, flex::FlexTensor, tensor::FloatTensor};
use burn::tensor::TensorData;
use rayon::prelude::*;
use wmtp_gemm::FloatSlice;
use wmtp_gemm::simd::{to_f32, vectorized};

/// Partial sums of a row.
const LANES: usize = 32;

/// Values that a thread takes at least.
const VALUES_PER_TASK: usize = 1 << 14;

impl SquareSumsOps for Flex {
    fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_supported(x.dtype()) {
            return plain::<Self>(x);
        }
        let x = x.to_contiguous();
        let [rows, columns] = x.shape().dims();
        FlexTensor::from_data(TensorData::new(row_sums(floats(&x), columns), [rows]))
    }
}

/// The sum of squares of each row of `columns` values.
fn row_sums(values: FloatSlice<'_>, columns: usize) -> Vec<f32> {
    match values {
        FloatSlice::F32(values) => sums(values, columns, |x| *x),
        FloatSlice::Bf16(values) => sums(values, columns, |x| to_f32(*x)),
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
