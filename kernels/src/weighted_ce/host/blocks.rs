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
//! The vocabulary is cut into [`STRIPES`] for that, each with a dX of its own, which are added up in
//! order at the end: the threads meet once for each chunk, and the result does not depend on them.
//!
//! The cross-entropies are those of the f32 logits, not of rounded ones. Online log-sum-exp over
//! blocks after Milakov and Gimelshein 2018, arXiv:1805.02867.

use super::super::extension::Wanted;
use super::super::rows::{CHUNK_BYTES, KeptRow, even_rows};
use super::filter::Filtered;
use super::{Found, Matrix};
use crate::host::exp::exp_not_positive;
use crate::host::{rounded, vectorised};
use crate::product::{PackedRows, Precision, View, product, product_here};
use half::bf16;
use rayon::prelude::*;
use std::borrow::Cow;

/// Columns of the exponentials that lie together, row after row: one task of the first pass, one
/// product of the second.
const WIDTH: usize = 1536;

/// Columns with a largest value of their own: two panels of the product.
const PART: usize = 96;

/// Parts of a block.
const PARTS: usize = WIDTH / PART;

/// Parts of the vocabulary that are multiplied into gradients of their own.
const STRIPES: usize = 4;

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

    /// Rows one after another.
    fn view(values: &[Self], shape: [usize; 2]) -> View<'_>;

    /// The values in this type.
    fn all(values: &[f32]) -> Cow<'_, [Self]>;
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

    fn view(values: &[Self], shape: [usize; 2]) -> View<'_> {
        View::rows(values, shape)
    }

    fn all(values: &[f32]) -> Cow<'_, [Self]> {
        Cow::Borrowed(values)
    }
}

impl Kept for bf16 {
    const ROWS: usize = 416;
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

    fn view(values: &[Self], shape: [usize; 2]) -> View<'_> {
        View::bf16_rows(values, shape)
    }

    fn all(values: &[f32]) -> Cow<'_, [Self]> {
        Cow::Owned(rounded(values))
    }
}

/// Largest logit and sum of exponentials relative to it, of some columns of a row.
#[derive(Debug, Clone, Copy)]
struct Sum {
    largest: f32,
    sum: f32,
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
    vocabulary: usize,
    /// For each block of `WIDTH` columns `[rows, width]`.
    exponentials: &'a mut [K],
    /// For each block, for each part of it, `[rows]`.
    sums: &'a mut [Sum],
}

/// As [`super::loss_and_gradients`]; at least one gradient is wanted.
pub(super) fn loss_and_gradients<K: Kept>(
    hidden: Matrix<'_, f32>,
    unembedding: View<'_>,
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
    let mut x = vec![0.0; chunk_rows * d];
    let mut d_x = vec![0.0; if wanted.hidden { STRIPES * chunk_rows * d } else { 0 }];
    let mut exponentials = vec![K::ZERO; chunk_rows * v];
    let nothing = Sum { largest: 0.0, sum: 0.0 };
    let parts = v.div_ceil(WIDTH) * PARTS;
    let mut sums = vec![nothing; chunk_rows * parts];

    for (number, kept) in rows.chunks(chunk_rows).enumerate() {
        let r = kept.len();
        for (row, to) in kept.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_row(row.index, to);
        }
        let kept_x = &x[..r * d];
        let x = K::all(kept_x);
        let x = K::view(&x, [r, d]);
        let mut chunk = Chunk {
            rows: kept,
            vocabulary: v,
            exponentials: &mut exponentials[..r * v],
            sums: &mut sums[..r * parts],
        };
        let row_sums = chunk.exponentials(x, unembedding);
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
                filtered.transposed_times(kept_x, d, d_unembedding, number > 0);
            }
        } else {
            let d_x = &mut d_x[..if wanted.hidden { STRIPES * r * d } else { 0 }];
            chunk.multiply(&row_sums, x, unembedding, d_x, d_unembedding.as_deref_mut(), number > 0);
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
    fn exponentials(&mut self, x: View<'_>, unembedding: View<'_>) -> Vec<RowSum> {
        let (r, v) = (self.rows.len(), self.vocabulary);
        let x = PackedRows::new(x, K::PRECISION);
        let labels: Vec<Vec<(usize, f32)>> = self
            .exponentials
            .par_chunks_mut(r * WIDTH)
            .zip(self.sums.par_chunks_mut(r * PARTS))
            .enumerate()
            .map(|(block, (exponentials, sums))| {
                let first = block * WIDTH;
                let width = WIDTH.min(v - first);
                let mut logits = vec![0.0; r * PART];
                let mut labels = Vec::new();
                for (start, sums) in (0..width).step_by(PART).zip(sums.chunks_mut(r)) {
                    let count = PART.min(width - start);
                    let table = unembedding.rows_from(first + start, count);
                    x.times(&mut logits, PART, table.transposed());
                    let columns = first + start..first + start + count;
                    let here = self
                        .rows
                        .iter()
                        .enumerate()
                        .filter(|(_, row)| columns.contains(&row.target));
                    labels.extend(here.map(|(i, row)| (i, logits[i * PART + row.target - columns.start])));
                    vectorised(
                        #[inline(always)]
                        || take_exponentials(&mut logits, count, sums, &mut exponentials[start..], width),
                    );
                }
                labels
            })
            .collect();
        let mut found = vec![RowSum::default(); r];
        for (i, label) in labels.into_iter().flatten() {
            found[i].label = label;
        }
        let sums = &self.sums[..r * parts_of(v)];
        found
            .par_iter_mut()
            .with_min_len(32)
            .enumerate()
            .for_each(|(i, found)| {
                let parts = || sums[i..].iter().step_by(r);
                found.largest = parts().fold(f32::MIN, |most, part| most.max(part.largest));
                found.sum = parts()
                    .map(|part| f64::from(part.sum) * f64::from(part.largest - found.largest).exp())
                    .sum();
            });
        found
    }

    /// The gradient without its small elements, read from the exponentials.
    fn filtered(&self, found: &[RowSum], tolerance: f64) -> Option<Filtered> {
        let (r, v) = (self.rows.len(), self.vocabulary);
        Filtered::new(self.rows, v, tolerance, |i, first, to| {
            let block = first / WIDTH;
            let start = first % WIDTH;
            let width = WIDTH.min(v - block * WIDTH);
            let values = &self.exponentials[block * WIDTH * r + i * width + start..][..to.len()];
            let parts = (block * PARTS + start / PART)..;
            for ((part, values), to) in parts.zip(values.chunks(PART)).zip(to.chunks_mut(PART)) {
                let factor = self.factor(part, i, &found[i]);
                vectorised(
                    #[inline(always)]
                    || {
                        for (to, value) in to.iter_mut().zip(values) {
                            *to = value.wide() * factor;
                        }
                    },
                );
            }
            let target = self.rows[i].target.checked_sub(first);
            if let Some(to) = target.and_then(|at| to.get_mut(at)) {
                *to = self.at_target(i, &found[i]) as f32;
            }
        })
    }

    /// What the exponentials of row `i` in `part` are multiplied by.
    fn factor(&self, part: usize, i: usize, found: &RowSum) -> f32 {
        let below = self.sums[part * self.rows.len() + i].largest - found.largest;
        (self.rows[i].weight / found.sum * f64::from(below).exp()) as f32
    }

    /// Row `i`'s gradient at its label.
    fn at_target(&self, i: usize, found: &RowSum) -> f64 {
        // (p - 1) as (e - sum) / sum: no cancellation when p is near 1.
        let e = f64::from(found.label - found.largest).exp();
        self.rows[i].weight * ((e - found.sum) / found.sum)
    }

    /// Turns the exponentials into the gradient, and that into dX of the chunk, `[rows, D]` at the
    /// start of `d_x` (which has room for one a stripe), and dW. What is not wanted is empty or none.
    fn multiply(
        &mut self,
        found: &[RowSum],
        x: View<'_>,
        unembedding: View<'_>,
        d_x: &mut [f32],
        d_unembedding: Option<&mut [f32]>,
        accumulate: bool,
    ) {
        let (r, v, d) = (self.rows.len(), self.vocabulary, x.shape()[1]);
        let blocks = v.div_ceil(WIDTH).div_ceil(STRIPES);
        let exponentials = std::mem::take(&mut self.exponentials);
        let chunk = &*self;
        let mut of_x = d_x.chunks_mut(r * d);
        let mut of_w = d_unembedding.map(|to| to.chunks_mut(blocks * WIDTH * d));
        let mut stripes: Vec<Stripe<'_, K>> = exponentials
            .chunks_mut(blocks * WIDTH * r)
            .enumerate()
            .map(|(i, exponentials)| Stripe {
                first_block: i * blocks,
                exponentials,
                d_x: of_x.next(),
                d_unembedding: of_w.as_mut().and_then(Iterator::next),
            })
            .collect();
        let used = stripes.len();
        // With more threads than stripes all of them share each product.
        let multiply = if rayon::current_num_threads() > STRIPES {
            product
        } else {
            product_here
        };
        stripes.par_iter_mut().with_max_len(1).for_each(|stripe| {
            for (i, values) in stripe.exponentials.chunks_mut(r * WIDTH).enumerate() {
                let (block, width) = (stripe.first_block + i, values.len() / r);
                chunk.scale(values, block, found);
                let gradient = K::view(values, [r, width]);
                if let Some(d_x) = &mut stripe.d_x {
                    let table = unembedding.rows_from(block * WIDTH, width);
                    multiply(d_x, d, i > 0, gradient, table, K::PRECISION);
                }
                if let Some(to) = &mut stripe.d_unembedding {
                    let to = &mut to[i * WIDTH * d..][..width * d];
                    multiply(to, d, accumulate, gradient.transposed(), x, K::PRECISION);
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

    /// Scales the exponentials `[rows, width]` of `block` to their gradient.
    fn scale(&self, values: &mut [K], block: usize, found: &[RowSum]) {
        let width = values.len() / self.rows.len();
        for (i, values) in values.chunks_exact_mut(width).enumerate() {
            for (part, values) in (block * PARTS..).zip(values.chunks_mut(PART)) {
                let factor = self.factor(part, i, &found[i]);
                vectorised(
                    #[inline(always)]
                    || {
                        values
                            .iter_mut()
                            .for_each(|value| *value = K::nearest(value.wide() * factor))
                    },
                );
            }
            let target = self.rows[i].target.checked_sub(block * WIDTH);
            if let Some(target) = target.and_then(|at| values.get_mut(at)) {
                *target = K::nearest(self.at_target(i, &found[i]) as f32);
            }
        }
    }
}

/// The parts of all blocks of `columns` columns.
fn parts_of(columns: usize) -> usize {
    columns / WIDTH * PARTS + (columns % WIDTH).div_ceil(PART)
}

/// For each row of `logits` (`PART` apart, `count` of them logits): its [`Sum`], and its exponentials
/// to `to`, whose rows are `stride` apart. Not-a-number makes the sum not-a-number.
#[inline(always)]
fn take_exponentials<K: Kept>(logits: &mut [f32], count: usize, sums: &mut [Sum], to: &mut [K], stride: usize) {
    let mut exponentials = [0.0f32; PART];
    for ((i, logits), sum) in logits.chunks_exact_mut(PART).enumerate().zip(sums) {
        logits[count..].fill(f32::NEG_INFINITY);
        let mut lanes = [f32::MIN; LANES];
        for values in logits.chunks_exact(LANES) {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        let largest = lanes.iter().fold(f32::MIN, |a, b| if *b > a { *b } else { a });
        let mut lanes = [0.0f32; LANES];
        for (to, values) in exponentials.chunks_exact_mut(LANES).zip(logits.chunks_exact(LANES)) {
            for ((lane, to), value) in lanes.iter_mut().zip(to).zip(values) {
                *to = exp_not_positive(*value - largest);
                *lane += *to;
            }
        }
        *sum = Sum {
            largest,
            sum: lanes.iter().sum(),
        };
        for (to, from) in to[i * stride..][..count].iter_mut().zip(&exponentials) {
            *to = K::nearest(*from);
        }
    }
}

/// Lanes that are summed apart.
const LANES: usize = 16;
