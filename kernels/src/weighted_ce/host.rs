//! The loss and its gradients on slices in host memory. f32 takes [`blocks`] where gradients are wanted;
//! what is here is the loss alone, and f64.
//!
//! No result depends on the number of threads or on their timing: every element is summed by one
//! thread in a fixed order, and the row losses are summed in f64, in row order.

mod blocks;
mod exp;
mod filter;
mod matrix;

use super::extension::Wanted;
use super::rows::{KeptRow, rows_per_chunk};
use crate::Accuracy;
use crate::host::vectorized;
pub(super) use exp::Real;
pub(super) use matrix::{Matrix, Table};
use rayon::prelude::*;

/// dW is accumulated this many rows of the vocabulary at a time, which bounds the copy of the
/// chunk's gradient that the product makes for itself.
const VOCABULARY_BLOCK: usize = 8192;

/// A chunk's rows lie this many logits further apart than they are long, because rows whose
/// distance is a multiple of the page size (V = 49152) fall into the same cache sets: with it the
/// product for dW takes a quarter less time.
const ROW_PADDING: usize = 16;

/// Rows are given to threads in portions of at least this many logits.
const LOGITS_PER_TASK: usize = 1 << 15;

/// The loss and, where wanted, its gradients.
pub(super) struct Found<T> {
    /// Weighted sum of the cross-entropies.
    pub loss: T,
    /// `[N]`, zero for rows that are not kept.
    pub ce: Vec<T>,
    /// dX `[N, D]`, if wanted.
    pub d_hidden: Option<Vec<T>>,
    /// dW `[V, D]`, if wanted.
    pub d_unembedding: Option<Vec<T>>,
}

/// `hidden` `[N, D]`, `unembedding` `[V, D]`; the gradients are for an upstream gradient of one.
pub(super) fn loss_and_gradients<T: Real>(
    hidden: Matrix<'_, T>,
    unembedding: Table<'_, T>,
    rows: &[KeptRow],
    wanted: Wanted,
    accuracy: Accuracy,
) -> Found<T> {
    if wanted != Wanted::NOTHING
        && let Some(found) = T::in_blocks(hidden, unembedding, rows, wanted, accuracy)
    {
        return found;
    }
    let precision = accuracy.factors;
    let (n, d, v) = (hidden.rows(), hidden.columns(), unembedding.rows());
    let mut loss = 0.0;
    let mut ce = vec![T::ZERO; n];
    let mut d_hidden = wanted.hidden.then(|| vec![T::ZERO; n * d]);
    let mut d_unembedding = wanted.unembedding.then(|| vec![T::ZERO; v * d]);

    // Reused by all chunks: the kept rows of X, their gradient, and the logits.
    let chunk_rows = rows_per_chunk(rows.len(), v, size_of::<T>()).min(rows.len());
    let mut x = vec![T::ZERO; chunk_rows * d];
    let mut d_x = vec![T::ZERO; if wanted.hidden { chunk_rows * d } else { 0 }];
    let row_stride = v + ROW_PADDING;
    let mut logits = vec![T::ZERO; chunk_rows * row_stride];
    let mut row_ce = vec![0.0; chunk_rows];

    for (number, chunk) in rows.chunks(chunk_rows.max(1)).enumerate() {
        let r = chunk.len();
        let (x, logits) = (&mut x[..r * d], &mut logits[..r * row_stride]);
        for (row, to) in chunk.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_row(row.index, to);
        }
        let x = Matrix::row_major(x, [r, d]);
        unembedding.multiply_transposed(logits, row_stride, x, precision);
        logits
            .par_chunks_exact_mut(row_stride)
            .zip(chunk)
            .zip(&mut row_ce)
            .with_min_len(LOGITS_PER_TASK.div_ceil(v))
            .for_each(|((padded, row), ce)| {
                let logits = &mut padded[..v];
                *ce = vectorized(
                    #[inline(always)]
                    || {
                        if wanted == Wanted::NOTHING {
                            cross_entropy(logits, row.target)
                        } else {
                            cross_entropy_and_gradient(logits, row.target, row.weight)
                        }
                    },
                );
            });
        for (row, row_ce) in chunk.iter().zip(&row_ce) {
            loss += row.weight * row_ce;
            ce[row.index] = T::from_f64(*row_ce);
        }

        let gradient = Matrix::strided(logits, [r, v], [row_stride, 1]);
        if let Some(d_hidden) = &mut d_hidden {
            unembedding.multiply(&mut d_x[..r * d], d, gradient, precision);
            for (row, from) in chunk.iter().zip(d_x.chunks_exact(d)) {
                d_hidden[row.index * d..][..d].copy_from_slice(from);
            }
        }
        if let Some(d_unembedding) = &mut d_unembedding {
            for (block, to) in d_unembedding.chunks_mut(VOCABULARY_BLOCK * d).enumerate() {
                let start = block * VOCABULARY_BLOCK;
                let part = gradient.columns_from(start, to.len() / d);
                T::multiply(to, d, number > 0, part.transposed(), x, precision);
            }
        }
    }
    Found {
        loss: T::from_f64(loss),
        ce,
        d_hidden,
        d_unembedding,
    }
}

/// Cross-entropy of one row of logits.
#[inline(always)]
fn cross_entropy<T: Real>(logits: &[T], target: usize) -> f64 {
    let largest = T::largest(logits);
    let label = logits[target].to_f64() - largest.to_f64();
    T::sum_of_exp(logits, largest).ln() - label
}

/// The same, and the logits replaced by their gradient, `weight * (softmax - onehot)`.
#[inline(always)]
fn cross_entropy_and_gradient<T: Real>(logits: &mut [T], target: usize, weight: f64) -> f64 {
    let largest = T::largest(logits);
    let label = logits[target].to_f64() - largest.to_f64();
    let sum = T::replace_by_exp(logits, largest);
    // (p - 1) as (e - sum) / sum: no cancellation beyond that of the sum itself when p is near 1.
    let at_target = weight * ((logits[target].to_f64() - sum) / sum);
    let factor = T::from_f64(weight / sum);
    logits.iter_mut().for_each(|value| *value = *value * factor);
    logits[target] = T::from_f64(at_target);
    sum.ln() - label
}
