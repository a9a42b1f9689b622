//! The product for every machine, compiled for its widest SIMD vectors.

use super::Rows;
use crate::FloatSlice;
use crate::simd::{to_f32, vectorized};

/// Partial sums of a dot product: the lanes of a vector.
const LANES: usize = 16;

/// The rows as they are.
pub fn rearrange<'a>(rows: &'a [f32], _: FloatSlice<'_>, _: usize) -> Rows<'a> {
    Rows::AsTheyAre(rows)
}

/// See [`super::Kernel`].
pub fn multiply(to: &mut [f32], rows: &[f32], weight: FloatSlice<'_>, [first, count]: [usize; 2], [_, k]: [usize; 2]) {
    let mut widened = vec![0.0; k];
    vectorized(|| {
        for j in 0..count {
            let range = (first + j) * k..(first + j + 1) * k;
            let weight_row = match weight {
                FloatSlice::F32(values) => &values[range],
                FloatSlice::Bf16(values) => {
                    for (to, value) in widened.iter_mut().zip(&values[range]) {
                        *to = to_f32(*value);
                    }
                    &widened[..]
                }
            };
            for (i, row) in rows.chunks_exact(k).enumerate() {
                to[i * count + j] = dot(row, weight_row);
            }
        }
    });
}

#[inline(always)]
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    for (sum, (left, right)) in sums.iter_mut().zip(left_rest.iter().zip(right_rest)) {
        *sum += left * right;
    }
    sums.iter().sum()
}
