//! The cross-entropies alone, for validation and scoring: a chunk of logits at a time, read twice.

use super::LossOutput;
use crate::simd::exp_not_positive;
use crate::weighted_ce::rows::{KeptRow, rows_per_chunk};
use rayon::prelude::*;
use wmtp_gemm::simd::vectorized;
use wmtp_gemm::{MatrixView, Precision, matmul};

/// The rows of a chunk are this many logits further apart than they are long: rows whose distance is a
/// multiple of the page size (V = 49152) would share few sets of the cache.
const ROW_PADDING: usize = 16;

/// Rows are given to threads in portions of at least this many logits.
const LOGITS_PER_TASK: usize = 1 << 15;

/// Independent partial sums: the lanes of the widest vectors.
const LANES: usize = 16;

/// Values summed in f32 before the partial sums are added up in f64.
const BLOCK: usize = 64 * LANES;

/// `hidden` `[N, D]`, `unembedding` `[V, D]`.
pub(super) fn loss(
    hidden: MatrixView<'_>,
    unembedding: MatrixView<'_>,
    rows: &[KeptRow],
    precision: Precision,
) -> LossOutput {
    let ([n, d], [v, _]) = (hidden.shape(), unembedding.shape());
    let (mut loss, mut ce) = (0.0, vec![0.0; n]);

    // Reused by all chunks: the kept rows of X, and the logits.
    let chunk_rows = rows_per_chunk(rows.len(), v, size_of::<f32>()).min(rows.len());
    let row_stride = v + ROW_PADDING;
    let mut x = vec![0.0; chunk_rows * d];
    let mut logits = vec![0.0; chunk_rows * row_stride];
    let mut row_ce = vec![0.0; chunk_rows];
    for chunk in rows.chunks(chunk_rows.max(1)) {
        let r = chunk.len();
        let (x, logits) = (&mut x[..r * d], &mut logits[..r * row_stride]);
        for (row, to) in chunk.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_from_row(row.index, 0, to);
        }
        let x = MatrixView::row_major(x, [r, d]);
        matmul(logits, row_stride, false, x, unembedding.transposed(), precision);
        logits
            .par_chunks_exact(row_stride)
            .zip(chunk)
            .zip(&mut row_ce)
            .with_min_len(LOGITS_PER_TASK.div_ceil(v))
            .for_each(|((logits, row), ce)| {
                *ce = vectorized(
                    #[inline(always)]
                    || cross_entropy(&logits[..v], row.target),
                );
            });
        for (row, row_ce) in chunk.iter().zip(&row_ce) {
            loss += row.weight * row_ce;
            ce[row.index] = *row_ce as f32;
        }
    }
    LossOutput {
        loss: loss as f32,
        ce,
        d_hidden: None,
        d_unembedding: None,
    }
}

/// Cross-entropy of one row of logits.
#[inline(always)]
fn cross_entropy(logits: &[f32], target: usize) -> f64 {
    let max = max(logits);
    let label = f64::from(logits[target]) - f64::from(max);
    sum_of_exp(logits, max).ln() - label
}

/// The largest value; NaNs are ignored (they reach the sum of exponentials).
#[inline(always)]
fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    let max = lanes.iter().fold(f32::NEG_INFINITY, larger);
    rest.iter().fold(max, larger)
}

/// The sum of `exp(value - max)`.
#[inline(always)]
fn sum_of_exp(values: &[f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for block in values.chunks(BLOCK) {
        let mut lanes = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += exp_not_positive(*value - max);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += exp_not_positive(*value - max);
        }
        sum += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At lengths around those of the lanes and the blocks.
    #[test]
    fn sums_take_every_value_once() {
        for length in [1, 2, 15, 16, 17, 1023, 1024, 1025, 2500] {
            // Equal logits: the sum is the length, wherever the row is cut.
            let row = vec![-3.5f32; length];
            assert_eq!(max(&row), -3.5);
            assert_eq!(sum_of_exp(&row, -3.5), length as f64);
            for at in [0, length / 2, length - 1] {
                // One logit larger by ln 4, so that all others count a quarter of it.
                let mut row = vec![1.0f32; length];
                row[at] = 1.0 + 4f32.ln();
                let max = max(&row);
                assert_eq!(max, row[at]);
                let expected = 1.0 + (length - 1) as f64 / 4.0;
                assert!((sum_of_exp(&row, max) - expected).abs() < 1e-6 * expected);
            }
        }
    }

    #[test]
    fn not_a_number_reaches_the_sum() {
        for at in [0, 20, 40] {
            let mut row = vec![0.5f32; 41];
            row[at] = f32::NAN;
            assert!(sum_of_exp(&row, max(&row)).is_nan());
        }
    }
}
