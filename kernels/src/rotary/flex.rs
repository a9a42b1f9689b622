//! The rotation on slices, in place.

use super::Rotation;
use crate::simd::ROWS_PER_BLOCK;
use rayon::prelude::*;
use std::ops::Range;
use wmtp_gemm::simd::vectorized;

/// Rotates `heads` of the heads of every row of `rows` `[N, stride]` in place, `2 * half` values each; `cos`
/// and `sin` are `[N, half]`. A factor in the tables scales the heads as well.
pub fn rotate(
    rows: &mut [f32],
    stride: usize,
    heads: Range<usize>,
    half: usize,
    [cos, sin]: [&[f32]; 2],
    rotation: Rotation,
) {
    let sign = rotation.sign();
    rows.par_chunks_mut(ROWS_PER_BLOCK * stride)
        .zip(cos.par_chunks(ROWS_PER_BLOCK * half))
        .zip(sin.par_chunks(ROWS_PER_BLOCK * half))
        .for_each(|((rows, cos), sin)| {
            vectorized(
                #[inline(always)]
                || {
                    let tables = cos.chunks_exact(half).zip(sin.chunks_exact(half));
                    for (row, (cos, sin)) in rows.chunks_exact_mut(stride).zip(tables) {
                        for head in row.chunks_exact_mut(2 * half).take(heads.end).skip(heads.start) {
                            let (left, right) = head.split_at_mut(half);
                            for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
                                let (x, y, s) = (*l, *r, s * sign);
                                *l = x * c - y * s;
                                *r = y * c + x * s;
                            }
                        }
                    }
                },
            );
        });
}
