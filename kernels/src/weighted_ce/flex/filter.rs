//! The filter: only logits whose weighted gradient is large take part in the products individually, all
//! others together as one matrix of rank one.
//!
//! With g the chunk's weighted gradients of the logits, `w_i (p - onehot)`, an element is *kept* if it is a
//! label or larger than [`BOUND`] times the tolerance times the mean weight. The rest T, probabilities that
//! are negligible individually but not in sum, is replaced by the product of its row and column sums over its
//! total, which has the same row sums and, with weights of one sign, the same column sums. The error is
//! bounded before anything is skipped:
//!
//! ```text
//! |T - r c^T / m|_F <= |T|_F + |r| |c| / m
//! ```
//!
//! If the bound exceeds the tolerance times `|g|_F`, or if more than one element in [`KEPT_ONE_IN`] is kept
//! and dense products are cheaper, all elements of the chunk are computed. So the tolerance bounds the
//! relative error of the weighted gradient of the logits; [`BOUND`] was chosen so that on hidden states of a
//! real model dX and dW stay within the tolerance as well.
//!
//! Skipping small probabilities is the idea of Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009),
//! which drops blocks of them; dropping them without their sum makes the error of dX 7 times as large.

use crate::weighted_ce::rows::KeptRow;
use rayon::prelude::*;
use wmtp_gemm::MatrixView;
use wmtp_gemm::simd::vectorized;

/// Kept elements are larger than this times the tolerance times the chunk's mean weight.
const BOUND: f64 = 1.0 / 200.0;

/// All elements of a chunk are computed if more than one in this many is kept.
const KEPT_ONE_IN: usize = 8;

/// Columns that one task scans, or whose rows of dW it computes.
const COLUMNS: usize = 1536;

/// Columns of dX that one task computes.
const SLICE: usize = 96;

/// Elements that are compared at a time.
const LANES: usize = 16;

/// The kept elements of a chunk's gradient and the sums of all others.
pub(super) struct Filtered {
    /// For each range of `COLUMNS` columns.
    ranges: Vec<Range>,
    /// Sums of the rows of T, with the sign of the row's weight, over the total: `[rows]`.
    row_shares: Vec<f32>,
}

/// Some columns of the gradient.
struct Range {
    /// Column j's kept elements are those from `starts[j]` to `starts[j + 1]`.
    starts: Vec<u32>,
    /// Row and value.
    kept: Vec<(u32, f32)>,
    /// Magnitudes of T, summed over the rows, for each column.
    sums: Vec<f32>,
}

/// What one task scans.
struct Scanned {
    range: Range,
    row_sums: Vec<f64>,
    squares_of_rest: f64,
    squares: f64,
}

impl Filtered {
    /// Scans a chunk's gradient. `each(first, count, read)` calls `read` with the gradients of `count` tokens
    /// from `first` on in order: a value for each row (and zeros to the end of a vector). The value at a
    /// row's own label is ignored; `labels` has the right one. `None` where all elements have to be computed.
    pub fn new(
        rows: &[KeptRow],
        labels: &[f32],
        vocabulary: usize,
        tolerance: f64,
        each: impl Fn(usize, usize, &mut dyn FnMut(usize, &mut [f32])) + Sync,
    ) -> Option<Self> {
        let mean = rows.iter().map(|row| row.weight.abs()).sum::<f64>() / rows.len() as f64;
        let bound = (tolerance * BOUND * mean) as f32;
        let scanned: Option<Vec<Scanned>> = (0..vocabulary.div_ceil(COLUMNS))
            .into_par_iter()
            .map(|task| {
                let first = task * COLUMNS;
                let width = COLUMNS.min(vocabulary - first);
                scan(rows, labels, [first, width], bound, |read| each(first, width, read))
            })
            .collect();
        let scanned = scanned?;
        let mut row_sums = vec![0.0; rows.len()];
        let (mut squares_of_rest, mut squares, mut squares_of_sums) = (0.0, 0.0, 0.0);
        for part in &scanned {
            row_sums
                .iter_mut()
                .zip(&part.row_sums)
                .for_each(|(sum, part)| *sum += part);
            squares_of_rest += part.squares_of_rest;
            squares += part.squares;
            squares_of_sums += part.range.sums.iter().map(|sum| f64::from(*sum).powi(2)).sum::<f64>();
        }
        let total: f64 = row_sums.iter().sum();
        let rank_one = if total > 0.0 {
            (row_sums.iter().map(|sum| sum * sum).sum::<f64>() * squares_of_sums).sqrt() / total
        } else {
            0.0
        };
        let error = squares_of_rest.sqrt() + rank_one;
        // A chunk with a NaN is computed as a whole, and the NaN reaches its own row.
        let small = error <= tolerance * squares.sqrt();
        let share = |(sum, row): (f64, &KeptRow)| (sum.copysign(row.weight) / total.max(f64::MIN_POSITIVE)) as f32;
        small.then(|| Self {
            ranges: scanned.into_iter().map(|part| part.range).collect(),
            row_shares: row_sums.into_iter().zip(rows).map(share).collect(),
        })
    }

    /// The gradient times `unembedding` `[V, D]`, to `to` `[rows, D]`.
    pub fn times(&self, unembedding: MatrixView<'_>, to: &mut [f32]) {
        let (r, d) = (self.row_shares.len(), unembedding.shape()[1]);
        let slices: Vec<Vec<f32>> = (0..d.div_ceil(SLICE))
            .into_par_iter()
            .map(|slice| {
                let first = slice * SLICE;
                let count = SLICE.min(d - first);
                let mut sums = vec![0.0f32; r * SLICE];
                let mut rest = [0.0f32; SLICE];
                let mut w = [0.0f32; SLICE];
                for (number, range) in self.ranges.iter().enumerate() {
                    for (j, sum) in range.sums.iter().enumerate() {
                        unembedding.copy_from_row(number * COLUMNS + j, first, &mut w[..count]);
                        vectorized(
                            #[inline(always)]
                            || {
                                add(&mut rest, &w, *sum);
                                for (row, value) in range.column(j) {
                                    let to = &mut sums[*row as usize * SLICE..][..SLICE];
                                    add(to, &w, *value);
                                }
                            },
                        );
                    }
                }
                for (to, share) in sums.chunks_exact_mut(SLICE).zip(&self.row_shares) {
                    add(to, &rest, *share);
                }
                sums
            })
            .collect();
        to.par_chunks_exact_mut(d).enumerate().for_each(|(i, to)| {
            for (to, from) in to.chunks_mut(SLICE).zip(&slices) {
                to.copy_from_slice(&from[i * SLICE..][..to.len()]);
            }
        });
    }

    /// The transposed gradient times `x` `[rows, D]`, to `to` `[V, D]` or added to it.
    pub fn transposed_times(&self, x: &[f32], d: usize, to: &mut [f32], accumulate: bool) {
        let mut rest = vec![0.0f32; d];
        for (x, share) in x.chunks_exact(d).zip(&self.row_shares) {
            add(&mut rest, x, *share);
        }
        to.par_chunks_mut(COLUMNS * d)
            .zip(&self.ranges)
            .for_each(|(to, range)| {
                for ((j, sum), to) in range.sums.iter().enumerate().zip(to.chunks_exact_mut(d)) {
                    if !accumulate {
                        // Fresh memory that is read before it is written costs two page faults.
                        to.fill(0.0);
                    }
                    vectorized(
                        #[inline(always)]
                        || {
                            add(to, &rest, *sum);
                            for (row, value) in range.column(j) {
                                add(to, &x[*row as usize * d..][..d], *value);
                            }
                        },
                    );
                }
            });
    }
}

impl Range {
    /// Row and value of the kept elements of column `j`.
    fn column(&self, j: usize) -> &[(u32, f32)] {
        &self.kept[self.starts[j] as usize..self.starts[j + 1] as usize]
    }
}

/// `to += factor * values`, as far as both go.
#[inline(always)]
fn add(to: &mut [f32], values: &[f32], factor: f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value);
}

/// Scans `width` columns from `first` on; `None` if too many elements are kept.
fn scan(
    rows: &[KeptRow],
    labels: &[f32],
    [first, width]: [usize; 2],
    bound: f32,
    each: impl Fn(&mut dyn FnMut(usize, &mut [f32])),
) -> Option<Scanned> {
    let mut own: Vec<(usize, usize)> = (rows.iter().enumerate())
        .filter(|(_, row)| (first..first + width).contains(&row.target))
        .map(|(i, row)| (row.target, i))
        .collect();
    own.sort_unstable();
    let mut own = own.into_iter().peekable();
    let lanes = rows.len().next_multiple_of(LANES);
    let mut sums = Vec::with_capacity(width);
    let mut kept: Vec<(u32, f32)> = Vec::new();
    let mut starts = vec![0u32];
    let mut row_sums = vec![0.0f32; lanes];
    let (mut squares_of_rest, mut squares) = (0.0, 0.0);
    each(&mut |token, values| {
        while let Some((_, i)) = own.next_if(|(target, _)| *target == token) {
            kept.push((i as u32, labels[i]));
            squares += f64::from(labels[i]).powi(2);
            values[i] = 0.0;
        }
        let [sum, of_rest, of_kept] = vectorized(
            #[inline(always)]
            || rest_of(values, &mut row_sums, bound, |i, value| kept.push((i as u32, value))),
        );
        sums.push(sum as f32);
        starts.push(kept.len() as u32);
        squares_of_rest += of_rest;
        squares += of_rest + of_kept;
    });
    if kept.len() > rows.len() * width / KEPT_ONE_IN {
        return None;
    }
    Some(Scanned {
        range: Range { starts, kept, sums },
        row_sums: row_sums.iter().take(rows.len()).map(|sum| f64::from(*sum)).collect(),
        squares_of_rest,
        squares,
    })
}

/// Hands the elements above the bound to `keep` and adds the magnitudes of the others to `sums`, lane by
/// lane: their sum and sum of squares, and the sum of squares of those kept.
#[inline(always)]
fn rest_of(values: &[f32], sums: &mut [f32], bound: f32, mut keep: impl FnMut(usize, f32)) -> [f64; 3] {
    let (mut sum, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut of_kept = 0.0;
    for (group, (values, sums)) in values.chunks_exact(LANES).zip(sums.chunks_exact_mut(LANES)).enumerate() {
        let mut any = 0u32;
        for lane in 0..LANES {
            let size = values[lane].abs();
            let large = size > bound;
            any |= u32::from(large);
            let rest = if large { 0.0 } else { size };
            sums[lane] += rest;
            sum[lane] += rest;
            squares[lane] += rest * rest;
        }
        if any != 0 {
            for (lane, value) in values.iter().enumerate() {
                if value.abs() > bound {
                    of_kept += f64::from(*value).powi(2);
                    keep(group * LANES + lane, *value);
                }
            }
        }
    }
    let total = |lanes: [f32; LANES]| lanes.iter().map(|lane| f64::from(*lane)).sum();
    [total(sum), total(squares), of_kept]
}
