//! The loss and its gradients in f32, or with products in bf16: the logits of a chunk never exist.
//!
//! While a block of logits is still in the cache of the thread that has multiplied it, its largest
//! value and its sum of exponentials are found for every row in f32, and only the exponentials,
//! relative to the block's own largest value, are kept. With products in bf16 they are kept in bf16:
//! half the memory of logits, so twice the rows for the same room, and half the passes over the
//! unembedding and its gradient. Relative to their own block's maximum no exponential loses more than
//! bf16's 2^-9, whatever the logits' magnitude. When all blocks of a row are known, a block after the
//! other is scaled in place to the gradient `weight * (softmax - onehot)` and multiplied into dX and
//! dW while it is near.
//!
//! Logits and what becomes of them lie column by column: `[V, rows]`. So the unembedding is the left
//! factor of the logits and the gradient that of dW, which the products read as they lie; and rows are
//! the lanes of a vector wherever something is summed over the vocabulary.
//!
//! The vocabulary is cut into [`STRIPES`] for the second pass, each with a dX of its own, which are added
//! up in order at the end: the threads meet once for each chunk, and the result does not depend on them.
//!
//! The cross-entropies are those of the f32 logits, not of rounded ones. Online log-sum-exp over
//! blocks after Milakov and Gimelshein 2018, arXiv:1805.02867.

use super::super::extension::Wanted;
use super::super::rows::{CHUNK_BYTES, KeptRow, even_rows};
use super::filter::Filtered;
use super::{Found, Matrix};
use crate::host::exp::exp_not_positive;
use crate::host::vectorized;
use crate::memory::large_pages;
use wmtp_gemm::{FloatSlice, PackedRight, Precision, MatrixView, matmul, matmul_single_threaded};
use half::bf16;
use rayon::prelude::*;

/// Tokens of the vocabulary in one task of the first pass and one product of the second.
const WIDTH: usize = 768;

/// Tokens with a largest value of their own.
const PART: usize = 96;

/// Parts of a block.
const PARTS: usize = WIDTH / PART;

/// Parts of the vocabulary that are multiplied into gradients of their own.
const STRIPES: usize = 2;

/// The type in which exponentials, and then the gradient, are kept and multiplied.
pub(super) trait Kept: Copy + Send + Sync + 'static {
    /// Rows of a chunk, at most.
    const ROWS: usize;
    /// The precision of the products.
    const PRECISION: Precision;
    /// 0
    const ZERO: Self;

    /// The nearest value; `value` is finite or not-a-number.
    fn nearest(value: f32) -> Self;

    /// The same value.
    fn wide(self) -> f32;

    /// As `product` reads them.
    fn floats(values: &[Self]) -> FloatSlice<'_>;
}

impl Kept for f32 {
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

impl Kept for bf16 {
    const ROWS: usize = 512;
    const PRECISION: Precision = Precision::Bf16;
    const ZERO: Self = Self::ZERO;

    /// To the nearest even.
    #[inline(always)]
    fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        Self::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn floats(values: &[Self]) -> FloatSlice<'_> {
        FloatSlice::Bf16(values)
    }
}

/// A row's log-sum-exp, taken apart, and its label's logit.
#[derive(Debug, Clone, Copy, Default)]
struct RowSum {
    largest: f32,
    sum: f64,
    label: f32,
}

/// One chunk of rows.
struct Chunk<'a, K> {
    rows: &'a [KeptRow],
    /// The rows and so many more that they fill vectors; what belongs to those beyond is 0 in the end.
    lanes: usize,
    vocabulary: usize,
    /// `[V, lanes]`
    exponentials: &'a mut [K],
    /// Largest logits of the parts, `[parts, lanes]`.
    largest: &'a mut [f32],
    /// Sums of their exponentials, relative to that.
    sums: &'a mut [f32],
}

/// As [`super::loss_and_gradients`]; at least one gradient is wanted.
pub(super) fn loss_and_gradients<K: Kept>(
    hidden: Matrix<'_, f32>,
    unembedding: MatrixView<'_>,
    rows: &[KeptRow],
    wanted: Wanted,
    filter: f64,
) -> Found<f32> {
    let (n, d, v) = (hidden.rows(), hidden.columns(), unembedding.shape()[0]);
    let mut loss = 0.0;
    let mut ce = vec![0.0; n];
    let mut d_hidden = wanted.hidden.then(|| vec![0.0; n * d]);
    let mut d_unembedding = wanted.unembedding.then(|| vec![0.0; v * d]);

    // Reused by all chunks.
    let chunk_rows = even_rows(rows.len(), CHUNK_BYTES / (v * size_of::<K>()), K::ROWS);
    let most_lanes = chunk_rows.next_multiple_of(LANES);
    let mut x = vec![0.0; most_lanes * d];
    let mut d_x = vec![0.0; if wanted.hidden { STRIPES * chunk_rows * d } else { 0 }];
    let mut exponentials = vec![K::ZERO; most_lanes * v];
    let parts = v.div_ceil(PART);
    large_pages(&exponentials);
    if let Some(d_unembedding) = &d_unembedding {
        large_pages(d_unembedding);
    }
    let mut largest = vec![0.0; most_lanes * parts];
    let mut sums = vec![0.0; most_lanes * parts];

    for (number, kept) in rows.chunks(chunk_rows).enumerate() {
        let r = kept.len();
        let lanes = r.next_multiple_of(LANES);
        for (row, to) in kept.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_row(row.index, to);
        }
        x[r * d..].fill(0.0);
        let mut chunk = Chunk {
            rows: kept,
            lanes,
            vocabulary: v,
            exponentials: &mut exponentials[..lanes * v],
            largest: &mut largest[..lanes * parts],
            sums: &mut sums[..lanes * parts],
        };
        let row_sums = chunk.exponentials(MatrixView::row_major(&x[..r * d], [r, d]), unembedding);
        for (row, found) in kept.iter().zip(&row_sums) {
            let row_ce = found.sum.ln() + f64::from(found.largest) - f64::from(found.label);
            loss += row.weight * row_ce;
            ce[row.index] = row_ce as f32;
        }
        let filtered = (filter > 0.0).then(|| chunk.filtered(&row_sums, filter)).flatten();
        if let Some(filtered) = &filtered {
            if wanted.hidden {
                filtered.times(unembedding, &mut d_x[..r * d]);
            }
            if let Some(d_unembedding) = &mut d_unembedding {
                filtered.transposed_times(&x[..r * d], d, d_unembedding, number > 0);
            }
        } else {
            let d_x = &mut d_x[..if wanted.hidden { STRIPES * r * d } else { 0 }];
            // An even number of rows: two values of bf16 are multiplied at a time.
            let even = MatrixView::row_major(&x[..lanes * d], [lanes, d]).rows(0, r.next_multiple_of(2));
            chunk.multiply(
                &row_sums,
                even,
                unembedding,
                d_x,
                d_unembedding.as_deref_mut(),
                number > 0,
            );
        }
        if let Some(d_hidden) = &mut d_hidden {
            for (row, from) in kept.iter().zip(d_x.chunks_exact(d)) {
                d_hidden[row.index * d..][..d].copy_from_slice(from);
            }
        }
    }
    Found {
        loss: loss as f32,
        ce,
        d_hidden,
        d_unembedding,
    }
}

/// Some blocks of the vocabulary and what is computed of them.
struct Stripe<'a, K> {
    first_block: usize,
    exponentials: &'a mut [K],
    d_x: Option<&'a mut [f32]>,
    d_unembedding: Option<&'a mut [f32]>,
}

impl<K: Kept> Chunk<'_, K> {
    /// Fills in the exponentials and their sums from `x` `[rows, D]` and `unembedding` `[V, D]`.
    fn exponentials(&mut self, x: MatrixView<'_>, unembedding: MatrixView<'_>) -> Vec<RowSum> {
        let (lanes, v, rows) = (self.lanes, self.vocabulary, self.rows);
        let x = PackedRight::new(x.transposed(), K::PRECISION);
        // Rows of a distance that is no power of two do not crowd into a few sets of the cache.
        let stride = lanes + LANES;
        let labels: Vec<Vec<(usize, f32)>> = self
            .exponentials
            .par_chunks_mut(lanes * WIDTH)
            .zip(self.largest.par_chunks_mut(lanes * PARTS))
            .zip(self.sums.par_chunks_mut(lanes * PARTS))
            .enumerate()
            .map(|(block, ((exponentials, largest), sums))| {
                let mut logits = vec![0.0; PART * stride];
                let mut labels = Vec::new();
                let parts = exponentials
                    .chunks_mut(lanes * PART)
                    .zip(largest.chunks_mut(lanes))
                    .zip(sums.chunks_mut(lanes));
                for (first, ((exponentials, largest), sums)) in (block * WIDTH..v).step_by(PART).zip(parts) {
                    let count = exponentials.len() / lanes;
                    x.times(&mut logits, stride, false, unembedding.rows(first, count));
                    let here = rows.iter().enumerate().filter_map(|(i, row)| {
                        let at = row.target.checked_sub(first).filter(|at| *at < count)?;
                        Some((i, logits[at * stride + i]))
                    });
                    labels.extend(here);
                    vectorized(
                        #[inline(always)]
                        || take_exponentials(&logits, stride, exponentials, largest, sums),
                    );
                }
                labels
            })
            .collect();
        let mut found = vec![RowSum::default(); rows.len()];
        for (i, label) in labels.into_iter().flatten() {
            found[i].label = label;
        }
        let (largest, sums) = (&*self.largest, &*self.sums);
        found
            .par_iter_mut()
            .with_min_len(32)
            .enumerate()
            .for_each(|(i, found)| {
                let largest = || largest[i..].iter().step_by(lanes);
                found.largest = largest().fold(f32::MIN, |most, part| most.max(*part));
                found.sum = sums[i..]
                    .iter()
                    .step_by(lanes)
                    .zip(largest())
                    .map(|(sum, largest)| f64::from(*sum) * f64::from(largest - found.largest).exp())
                    .sum();
            });
        found
    }

    /// The gradient without its small elements, read from the exponentials.
    fn filtered(&self, found: &[RowSum], tolerance: f64) -> Option<Filtered> {
        let lanes = self.lanes;
        let labels = found
            .iter()
            .enumerate()
            .map(|(i, found)| self.at_target(i, found) as f32);
        let labels: Vec<f32> = labels.collect();
        Filtered::new(self.rows, &labels, self.vocabulary, tolerance, |first, count, read| {
            let mut values = vec![0.0; lanes];
            let mut factors = vec![0.0; lanes];
            for token in first..first + count {
                if token == first || token % PART == 0 {
                    self.factors(token / PART, found, &mut factors);
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

    /// What the exponentials of the rows in `part` are multiplied by.
    fn factors(&self, part: usize, found: &[RowSum], to: &mut [f32]) {
        let largest = &self.largest[part * self.lanes..];
        for (((to, largest), found), row) in to.iter_mut().zip(largest).zip(found).zip(self.rows) {
            let below = largest - found.largest;
            *to = (row.weight / found.sum * f64::from(below).exp()) as f32;
        }
        to[self.rows.len()..].fill(0.0);
    }

    /// Row `i`'s gradient at its label.
    fn at_target(&self, i: usize, found: &RowSum) -> f64 {
        // (p - 1) as (e - sum) / sum: no cancellation when p is near 1.
        let e = f64::from(found.label - found.largest).exp();
        self.rows[i].weight * ((e - found.sum) / found.sum)
    }

    /// Turns the exponentials into the gradient, and that into dX of the chunk, `[rows, D]` at the
    /// start of `d_x` (which has room for one a stripe), and dW. `x` has the rows, and one of zeros
    /// where their number is odd. What is not wanted is empty or none.
    fn multiply(
        &mut self,
        found: &[RowSum],
        x: MatrixView<'_>,
        unembedding: MatrixView<'_>,
        d_x: &mut [f32],
        d_unembedding: Option<&mut [f32]>,
        accumulate: bool,
    ) {
        let (r, lanes, v, [even, d]) = (self.rows.len(), self.lanes, self.vocabulary, x.shape());
        let blocks = v.div_ceil(WIDTH).div_ceil(STRIPES);
        let exponentials = std::mem::take(&mut self.exponentials);
        let chunk = &*self;
        let packed_x = d_unembedding.is_some().then(|| PackedRight::new(x, K::PRECISION));
        let mut of_x = d_x.chunks_mut(r * d);
        let mut of_w = d_unembedding.map(|to| to.chunks_mut(blocks * WIDTH * d));
        let mut stripes: Vec<Stripe<'_, K>> = exponentials
            .chunks_mut(blocks * WIDTH * lanes)
            .enumerate()
            .map(|(i, exponentials)| Stripe {
                first_block: i * blocks,
                exponentials,
                d_x: of_x.next(),
                d_unembedding: of_w.as_mut().and_then(Iterator::next),
            })
            .collect();
        let used = stripes.len();
        // With more threads than stripes all of them share the products.
        let many = rayon::current_num_threads() > STRIPES;
        let multiply = if many { product } else { matmul_single_threaded };
        stripes.par_iter_mut().with_max_len(1).for_each(|stripe| {
            for (i, values) in stripe.exponentials.chunks_mut(lanes * WIDTH).enumerate() {
                let (block, width) = (stripe.first_block + i, values.len() / lanes);
                chunk.scale(values, block, found);
                let gradient = |rows| MatrixView::strided(K::floats(values), [width, rows], [lanes, 1]);
                if let Some(d_x) = &mut stripe.d_x {
                    let table = unembedding.rows(block * WIDTH, width);
                    multiply(d_x, d, i > 0, gradient(r).transposed(), table, K::PRECISION);
                }
                if let (Some(to), Some(x)) = (&mut stripe.d_unembedding, &packed_x) {
                    let to = &mut to[i * WIDTH * d..][..width * d];
                    if many {
                        to.par_chunks_mut(PART * d).enumerate().for_each(|(part, to)| {
                            let rows = gradient(even).rows(part * PART, to.len() / d);
                            x.times(to, d, accumulate, rows);
                        });
                    } else {
                        x.times(to, d, accumulate, gradient(even));
                    }
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
    fn scale(&self, values: &mut [K], block: usize, found: &[RowSum]) {
        let lanes = self.lanes;
        let mut factors = vec![0.0; lanes];
        for (part, values) in (block * PARTS..).zip(values.chunks_mut(PART * lanes)) {
            self.factors(part, found, &mut factors);
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
        for (i, (row, found)) in self.rows.iter().zip(found).enumerate() {
            let target = row.target.checked_sub(block * WIDTH);
            if let Some(to) = target.and_then(|at| values.get_mut(at * lanes + i)) {
                *to = K::nearest(self.at_target(i, found) as f32);
            }
        }
    }
}

/// From `logits` `[count, lanes]`, whose rows are `stride` apart: for each lane the largest one and the sum
/// of the exponentials relative to it, and those to `to` `[count, lanes]`. Not-a-number makes the sum
/// not-a-number.
#[inline(always)]
fn take_exponentials<K: Kept>(logits: &[f32], stride: usize, to: &mut [K], largest: &mut [f32], sums: &mut [f32]) {
    let lanes = largest.len();
    let mut first = 0;
    while first + WIDE <= lanes {
        exponentials_of_lanes::<K, WIDE>(first, logits, stride, to, largest, sums);
        first += WIDE;
    }
    while first < lanes {
        exponentials_of_lanes::<K, LANES>(first, logits, stride, to, largest, sums);
        first += LANES;
    }
}

/// [`take_exponentials`] of `N` lanes from `first` on.
#[inline(always)]
fn exponentials_of_lanes<K: Kept, const N: usize>(
    first: usize,
    logits: &[f32],
    stride: usize,
    to: &mut [K],
    largest: &mut [f32],
    sums: &mut [f32],
) {
    let lanes = largest.len();
    let mut most = [f32::MIN; N];
    for row in logits.chunks(stride).take(to.len() / lanes) {
        for (most, value) in most.iter_mut().zip(&row[first..first + N]) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    let mut sum = [0.0f32; N];
    for (row, to) in logits.chunks(stride).zip(to.chunks_exact_mut(lanes)) {
        let (row, to) = (&row[first..first + N], &mut to[first..first + N]);
        for (((sum, to), value), most) in sum.iter_mut().zip(to).zip(row).zip(&most) {
            let e = exp_not_positive(*value - *most);
            *sum += e;
            *to = K::nearest(e);
        }
    }
    largest[first..first + N].copy_from_slice(&most);
    sums[first..first + N].copy_from_slice(&sum);
}

/// Lanes that are computed together where there are so many: two lines of the cache at a time.
const WIDE: usize = 64;

/// Lanes that are computed together.
const LANES: usize = 16;
