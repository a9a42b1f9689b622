//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) with Hugging Face's halves: value i
//! of a head turns together with value i + W / 2.

use super::{ROWS_PER_BLOCK, vectorized};
use rayon::prelude::*;
use std::ops::Range;

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the position's angle.
    Forward,
    /// Back: what the gradient takes.
    Back,
}

/// Turns `heads` of the heads of every row of `rows` `[N, stride]` in place, `2 * half` values each;
/// `cos` and `sin` `[N, half]`. Tables times a factor scale along with it.
pub fn rotate(rows: &mut [f32], stride: usize, heads: Range<usize>, half: usize, [cos, sin]: [&[f32]; 2], turn: Turn) {
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
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
