//! The loss and its gradients in f32, or with products in bf16, without materialised logits.
//!
//! While a block of logits is in the cache of the thread that computed it, the maximum and the sum of
//! exponentials of every row are computed in f32, and only the exponentials, relative to the block's own
//! maximum, are stored. With products in bf16 they are stored in bf16: half the memory of logits, so twice
//! the rows in the same memory, and half the passes over the unembedding and its gradient. Relative to their
//! own block's maximum no exponential loses more than bf16's 2^-9, whatever the logits' magnitude. When all
//! blocks of a row are known, one block after another is scaled in place to the gradient `weight * (softmax -
//! onehot)` and multiplied into dX and dW while it is in the cache.
//!
//! Logits, and later their gradient, are stored column by column: `[V, rows]`. So the unembedding is the left
//! factor of the logits and the gradient that of dW, which the products read in place; and rows are the SIMD
//! lanes wherever sums run over the vocabulary.
//!
//! The second pass cuts the vocabulary into [`STRIPES`], each with a dX of its own; these are added in order
//! at the end. So the threads synchronise once for each chunk, and the result does not depend on their
//! number.
//!
//! The cross-entropies are those of the f32 logits, not of rounded ones. Online log-sum-exp over blocks after
//! Milakov and Gimelshein 2018, arXiv:1805.02867.

use super::filter::Filtered;
use super::sums::{Part, Sums};
use super::{LossOutput, RowStats};
use crate::memory::advise_huge_pages;
use crate::simd::exp_not_positive;
use crate::weighted_ce::backend::RequestedGradients;
use crate::weighted_ce::rows::{CHUNK_BYTES, KeptRow, even_rows};
use half::bf16;
use rayon::prelude::*;
use wmtp_gemm::simd::{to_bf16_fast, to_f32, vectorized};
use wmtp_gemm::{FloatSlice, MatrixView, PackedRight, Precision, matmul, matmul_single_threaded};

/// Tokens of the vocabulary in one task of the first pass and one product of the second.
const WIDTH: usize = 768;

/// Tokens with a maximum of their own.
const PART: usize = 96;

/// Parts of a block.
const PARTS: usize = WIDTH / PART;

/// Parts of the vocabulary that are multiplied into gradients of their own. Two and not four: the memory
/// saved is that of 512 rows a chunk in bf16 instead of 416.
const STRIPES: usize = 2;

/// The type in which exponentials, and then the gradient, are stored and multiplied.
pub(super) trait Storage: Copy + Send + Sync + 'static {
    /// Maximum rows of a chunk.
    const ROWS: usize;
    /// The precision of the products.
    const PRECISION: Precision;
    /// 0
    const ZERO: Self;

    /// The nearest value.
    fn nearest(value: f32) -> Self;

    /// The same value.
    fn wide(self) -> f32;

    /// For the products.
    fn floats(values: &[Self]) -> FloatSlice<'_>;
}

impl Storage for f32 {
    const ROWS: usize = 256;
    const PRECISION: Precision = Precision::F32;
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    fn floats(values: &[Self]) -> FloatSlice<'_> {
        FloatSlice::F32(values)
    }
}

impl Storage for bf16 {
    const ROWS: usize = 512;
    const PRECISION: Precision = Precision::Bf16;
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        to_bf16_fast(value)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        to_f32(self)
    }

    fn floats(values: &[Self]) -> FloatSlice<'_> {
        FloatSlice::Bf16(values)
    }
}

/// One chunk of rows.
struct Chunk<'a, K> {
    rows: &'a [KeptRow],
    /// Row count rounded up to the SIMD width; padding lanes contribute zero.
    lanes: usize,
    vocabulary: usize,
    /// `[V, lanes]`
    exponentials: &'a mut [K],
    /// Maximum logits of the parts, `[parts, lanes]`.
    max: &'a mut [f32],
    /// Sums of their exponentials, relative to that.
    sums: &'a mut [f32],
}

/// `hidden` `[N, D]`, `unembedding` `[V, D]`; at least one gradient is requested, dW in the type `gradient` or in f32.
pub(super) fn loss_and_gradients<K: Storage>(
    hidden: MatrixView<'_>,
    unembedding: MatrixView<'_>,
    rows: &[KeptRow],
    requested: RequestedGradients,
    gradient: Precision,
    filter: f64,
) -> LossOutput {
    let ([n, d], [v, _]) = (hidden.shape(), unembedding.shape());
    let mut loss = 0.0;
    let mut ce = vec![0.0; n];
    let mut d_hidden = requested.hidden.then(|| vec![0.0; n * d]);
    // What is left out is added to dW in f32.
    let split = [gradient, K::PRECISION] == [Precision::Bf16; 2] && filter == 0.0;
    let mut d_unembedding = requested.unembedding.then(|| match split {
        true => Sums::split(v * d),
        false => Sums::f32(v * d),
    });

    // Reused by all chunks.
    let chunk_rows = even_rows(rows.len(), CHUNK_BYTES / (v * size_of::<K>()), K::ROWS);
    let max_lanes = chunk_rows.next_multiple_of(LANES);
    let mut x = vec![0.0; max_lanes * d];
    let mut d_x = vec![0.0; if requested.hidden { STRIPES * chunk_rows * d } else { 0 }];
    let mut exponentials = vec![K::ZERO; max_lanes * v];
    let parts = v.div_ceil(PART);
    advise_huge_pages(&exponentials);
    let mut max = vec![0.0; max_lanes * parts];
    let mut sums = vec![0.0; max_lanes * parts];

    for (number, kept) in rows.chunks(chunk_rows).enumerate() {
        let r = kept.len();
        let lanes = r.next_multiple_of(LANES);
        for (row, to) in kept.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_from_row(row.index, 0, to);
        }
        x[r * d..].fill(0.0);
        let mut chunk = Chunk {
            rows: kept,
            lanes,
            vocabulary: v,
            exponentials: &mut exponentials[..lanes * v],
            max: &mut max[..lanes * parts],
            sums: &mut sums[..lanes * parts],
        };
        let row_stats = chunk.exponentials(MatrixView::row_major(&x[..r * d], [r, d]), unembedding);
        for (row, stats) in kept.iter().zip(&row_stats) {
            let row_ce = stats.cross_entropy();
            loss += row.weight * row_ce;
            ce[row.index] = row_ce as f32;
        }
        let filtered = (filter > 0.0).then(|| chunk.filtered(&row_stats, filter)).flatten();
        if let Some(filtered) = &filtered {
            if requested.hidden {
                filtered.times(unembedding, &mut d_x[..r * d]);
            }
            if let Some(Sums::F32(d_unembedding)) = &mut d_unembedding {
                filtered.transposed_times(&x[..r * d], d, d_unembedding, number > 0);
            }
        } else {
            let d_x = &mut d_x[..if requested.hidden { STRIPES * r * d } else { 0 }];
            // An even number of rows: two bf16 values make a lane.
            let even = MatrixView::row_major(&x[..lanes * d], [lanes, d]).rows(0, r.next_multiple_of(2));
            chunk.multiply(&row_stats, even, unembedding, d_x, d_unembedding.as_mut(), number > 0);
        }
        if let Some(d_hidden) = &mut d_hidden {
            for (row, from) in kept.iter().zip(d_x.chunks_exact(d)) {
                d_hidden[row.index * d..][..d].copy_from_slice(from);
            }
        }
    }
    LossOutput {
        loss: loss as f32,
        ce,
        d_hidden,
        d_unembedding: d_unembedding.map(Sums::finish),
    }
}

/// Some blocks of the vocabulary and their results.
struct Stripe<'a, K> {
    first_block: usize,
    exponentials: &'a mut [K],
    d_x: Option<&'a mut [f32]>,
    d_unembedding: Option<Part<'a>>,
}

impl<K: Storage> Chunk<'_, K> {
    /// Computes the exponentials and their sums from `x` `[rows, D]` and `unembedding` `[V, D]`.
    fn exponentials(&mut self, x: MatrixView<'_>, unembedding: MatrixView<'_>) -> Vec<RowStats> {
        let (lanes, v, rows) = (self.lanes, self.vocabulary, self.rows);
        let x = PackedRight::new(x.transposed(), K::PRECISION);
        // A row distance that is no power of two spreads the rows over the sets of the cache.
        let stride = lanes + LANES;
        let labels: Vec<Vec<(usize, f32)>> = self
            .exponentials
            .par_chunks_mut(lanes * WIDTH)
            .zip(self.max.par_chunks_mut(lanes * PARTS))
            .zip(self.sums.par_chunks_mut(lanes * PARTS))
            .enumerate()
            .map(|(block, ((exponentials, max), sums))| {
                let mut logits = vec![0.0; PART * stride];
                let mut labels = Vec::new();
                let parts = exponentials
                    .chunks_mut(lanes * PART)
                    .zip(max.chunks_mut(lanes))
                    .zip(sums.chunks_mut(lanes));
                for (first, ((exponentials, max), sums)) in (block * WIDTH..v).step_by(PART).zip(parts) {
                    let count = exponentials.len() / lanes;
                    x.matmul(&mut logits, stride, false, unembedding.rows(first, count));
                    let here = rows.iter().enumerate().filter_map(|(i, row)| {
                        let at = row.target.checked_sub(first).filter(|at| *at < count)?;
                        Some((i, logits[at * stride + i]))
                    });
                    labels.extend(here);
                    vectorized(
                        #[inline(always)]
                        || take_exponentials(&logits, stride, exponentials, max, sums),
                    );
                }
                labels
            })
            .collect();
        let mut stats = vec![RowStats::default(); rows.len()];
        for (i, label) in labels.into_iter().flatten() {
            stats[i].label = label;
        }
        let (max, sums) = (&*self.max, &*self.sums);
        stats
            .par_iter_mut()
            .with_min_len(32)
            .enumerate()
            .for_each(|(i, stats)| {
                let max = || max[i..].iter().step_by(lanes);
                stats.max = max().fold(f32::MIN, |lane_max, part| lane_max.max(*part));
                stats.sum = sums[i..]
                    .iter()
                    .step_by(lanes)
                    .zip(max())
                    .map(|(sum, max)| f64::from(*sum) * f64::from(max - stats.max).exp())
                    .sum();
            });
        stats
    }

    /// The gradient without its small elements, read from the exponentials.
    fn filtered(&self, stats: &[RowStats], tolerance: f64) -> Option<Filtered> {
        let lanes = self.lanes;
        let labels = stats
            .iter()
            .enumerate()
            .map(|(i, stats)| stats.gradient_at_label(self.rows[i].weight) as f32);
        let labels: Vec<f32> = labels.collect();
        Filtered::new(self.rows, &labels, self.vocabulary, tolerance, |first, count, read| {
            let mut values = vec![0.0; lanes];
            let mut factors = vec![0.0; lanes];
            for token in first..first + count {
                if token == first || token % PART == 0 {
                    self.factors(token / PART, stats, &mut factors);
                }
                let exponentials = &self.exponentials[token * lanes..][..lanes];
                vectorized(
                    #[inline(always)]
                    || {
                        for ((to, value), factor) in values.iter_mut().zip(exponentials).zip(&factors) {
                            *to = value.wide() * factor;
                        }
                    },
                );
                read(token, &mut values);
            }
        })
    }

    /// The factors that turn the exponentials of `part` into the gradient, one a row.
    fn factors(&self, part: usize, stats: &[RowStats], to: &mut [f32]) {
        let max = &self.max[part * self.lanes..];
        for (((to, max), stats), row) in to.iter_mut().zip(max).zip(stats).zip(self.rows) {
            let below = max - stats.max;
            *to = (row.weight / stats.sum * f64::from(below).exp()) as f32;
            if to.is_nan() {
                // Of all NaNs the one that rounding to bf16 leaves one.
                *to = f32::NAN;
            }
        }
        to[self.rows.len()..].fill(0.0);
    }

    /// Turns the exponentials into the gradient, and multiplies it into dX of the chunk, `[rows, D]` at the
    /// start of `d_x` (which has room for one a stripe), and dW. `x` has the rows, and a row of zeros where
    /// their number is odd. Gradients that are not requested are empty or `None`.
    fn multiply(
        &mut self,
        stats: &[RowStats],
        x: MatrixView<'_>,
        unembedding: MatrixView<'_>,
        d_x: &mut [f32],
        d_unembedding: Option<&mut Sums>,
        accumulate: bool,
    ) {
        let (r, lanes, v, [even, d]) = (self.rows.len(), self.lanes, self.vocabulary, x.shape());
        let blocks = v.div_ceil(WIDTH).div_ceil(STRIPES);
        let exponentials = std::mem::take(&mut self.exponentials);
        let chunk = &*self;
        let packed_x = d_unembedding.is_some().then(|| PackedRight::new(x, K::PRECISION));
        let mut d_x_parts = d_x.chunks_mut(r * d);
        let mut d_w_parts = d_unembedding.map(|to| to.parts(blocks * WIDTH * d).into_iter());
        let mut stripes: Vec<Stripe<'_, K>> = exponentials
            .chunks_mut(blocks * WIDTH * lanes)
            .enumerate()
            .map(|(i, exponentials)| Stripe {
                first_block: i * blocks,
                exponentials,
                d_x: d_x_parts.next(),
                d_unembedding: d_w_parts.as_mut().and_then(Iterator::next),
            })
            .collect();
        let used = stripes.len();
        // With more threads than stripes all of them share the products.
        let many = rayon::current_num_threads() > STRIPES;
        let multiply = if many { matmul } else { matmul_single_threaded };
        stripes.par_iter_mut().with_max_len(1).for_each(|stripe| {
            let mut d_w_blocks = stripe.d_unembedding.take().map(|to| to.parts(WIDTH * d).into_iter());
            let mut room = Vec::new();
            for (i, values) in stripe.exponentials.chunks_mut(lanes * WIDTH).enumerate() {
                let (block, width) = (stripe.first_block + i, values.len() / lanes);
                chunk.scale(values, block, stats);
                let gradient = |rows| MatrixView::strided(K::floats(values), [width, rows], [lanes, 1]);
                if let Some(d_x) = &mut stripe.d_x {
                    let table = unembedding.rows(block * WIDTH, width);
                    multiply(d_x, d, i > 0, gradient(r).transposed(), table, K::PRECISION);
                }
                let of_block = d_w_blocks.as_mut().and_then(Iterator::next);
                let (Some(to), Some(x)) = (of_block, &packed_x) else {
                    continue;
                };
                let add = |room: &mut Vec<f32>, (part, to): (usize, Part<'_>)| {
                    let rows = gradient(even).rows(part * PART, to.len() / d);
                    to.add(accumulate, room, |to, accumulate| x.matmul(to, d, accumulate, rows));
                };
                match to {
                    Part::F32(_) if !many => to.add(accumulate, &mut room, |to, accumulate| {
                        x.matmul(to, d, accumulate, gradient(even));
                    }),
                    _ if many => to
                        .parts(PART * d)
                        .into_par_iter()
                        .enumerate()
                        .for_each_init(Vec::new, add),
                    _ => to
                        .parts(PART * d)
                        .into_iter()
                        .enumerate()
                        .for_each(|part| add(&mut room, part)),
                }
            }
        });
        drop(stripes);
        self.exponentials = exponentials;
        if let Some((first, others)) = d_x.split_at_mut_checked(r * d) {
            for other in others.chunks(r * d).take(used - 1) {
                first.iter_mut().zip(other).for_each(|(sum, part)| *sum += part);
            }
        }
    }

    /// Scales the exponentials `[width, lanes]` of `block` to their gradient.
    fn scale(&self, values: &mut [K], block: usize, stats: &[RowStats]) {
        let lanes = self.lanes;
        let mut factors = vec![0.0; lanes];
        for (part, values) in (block * PARTS..).zip(values.chunks_mut(PART * lanes)) {
            self.factors(part, stats, &mut factors);
            vectorized(
                #[inline(always)]
                || {
                    for values in values.chunks_exact_mut(lanes) {
                        for (value, factor) in values.iter_mut().zip(&factors) {
                            *value = K::nearest(value.wide() * factor);
                        }
                    }
                },
            );
        }
        for (i, (row, stats)) in self.rows.iter().zip(stats).enumerate() {
            let target = row.target.checked_sub(block * WIDTH);
            if let Some(to) = target.and_then(|at| values.get_mut(at * lanes + i)) {
                *to = K::nearest(stats.gradient_at_label(row.weight) as f32);
            }
        }
    }
}

/// From `logits` `[count, lanes]`, whose rows are `stride` apart: for each lane the maximum and the sum of
/// the exponentials relative to it, and the exponentials to `to` `[count, lanes]`. A NaN makes the sum a NaN.
#[inline(always)]
fn take_exponentials<K: Storage>(logits: &[f32], stride: usize, to: &mut [K], max: &mut [f32], sums: &mut [f32]) {
    let lanes = max.len();
    let mut first = 0;
    while first + WIDE <= lanes {
        exponentials_of_lanes::<K, WIDE>(first, logits, stride, to, max, sums);
        first += WIDE;
    }
    while first < lanes {
        exponentials_of_lanes::<K, LANES>(first, logits, stride, to, max, sums);
        first += LANES;
    }
}

/// [`take_exponentials`] of `N` lanes from `first` on.
#[inline(always)]
fn exponentials_of_lanes<K: Storage, const N: usize>(
    first: usize,
    logits: &[f32],
    stride: usize,
    to: &mut [K],
    max: &mut [f32],
    sums: &mut [f32],
) {
    let lanes = max.len();
    let mut lane_max = [f32::MIN; N];
    for row in logits.chunks(stride).take(to.len() / lanes) {
        for (lane_max, value) in lane_max.iter_mut().zip(&row[first..first + N]) {
            *lane_max = if *value > *lane_max { *value } else { *lane_max };
        }
    }
    let mut sum = [0.0f32; N];
    for (row, to) in logits.chunks(stride).zip(to.chunks_exact_mut(lanes)) {
        let (row, to) = (&row[first..first + N], &mut to[first..first + N]);
        for (((sum, to), value), lane_max) in sum.iter_mut().zip(to).zip(row).zip(&lane_max) {
            let e = exp_not_positive(*value - *lane_max);
            *sum += e;
            *to = K::nearest(e);
        }
    }
    max[first..first + N].copy_from_slice(&lane_max);
    sums[first..first + N].copy_from_slice(&sum);
}

/// Lanes that are computed together where there are at least as many: whole cache lines in f32 and in bf16.
const WIDE: usize = 64;

/// Lanes that are computed together otherwise.
const LANES: usize = 16;
