//! The loss and its gradients with products in bf16: the logits of a chunk never exist.
//!
//! While a block of logits is still in the cache of the thread that has multiplied it, its largest
//! value and its sum of exponentials are found for every row in f32, and only the exponentials,
//! relative to the block's own largest value, are kept, in bf16: half the memory of logits, so twice
//! the rows for the same room, and half the passes over the unembedding and its gradient. Relative
//! to their own block's maximum no exponential loses more than bf16's 2^-9, whatever the logits'
//! magnitude. When all blocks of a row are known, each is scaled in place to the gradient
//! `weight * (softmax - onehot)`, which the products round to bf16 in any case.
//!
//! The cross-entropies are those of the f32 logits, not of rounded ones. Online log-sum-exp over
//! blocks after Milakov and Gimelshein 2018, arXiv:1805.02867.

use super::super::extension::Wanted;
use super::super::rows::{CHUNK_BYTES, KeptRow, even_rows};
use super::filter::Filtered;
use super::{Found, Matrix};
use crate::host::exp::exp_not_positive;
use crate::host::{rounded, vectorised};
use crate::product::{PackedRows, Precision, View, product};
use half::bf16;
use rayon::prelude::*;

/// Rows of a chunk, at most.
const CHUNK_ROWS: usize = 512;

/// Columns of the exponentials that lie together, row after row: one task of the first pass, one
/// product of the second.
const WIDTH: usize = 1536;

/// Columns with a largest value of their own: two panels of the product.
const PART: usize = 96;

/// Rows scaled at a time.
const ROWS: usize = 32;

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
struct Chunk<'a> {
    rows: &'a [KeptRow],
    vocabulary: usize,
    /// For each block of `WIDTH` columns `[rows, width]`.
    exponentials: &'a mut [bf16],
    /// For each block, for each part of it, `[rows]`.
    sums: &'a mut [Sum],
}

/// As [`super::loss_and_gradients`] with [`Precision::Bf16`]; at least one gradient is wanted.
pub(super) fn loss_and_gradients(
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
    let chunk_rows = even_rows(rows.len(), CHUNK_BYTES / (v * size_of::<bf16>()), CHUNK_ROWS);
    let mut x = vec![0.0; chunk_rows * d];
    let mut d_x = vec![0.0; if wanted.hidden { chunk_rows * d } else { 0 }];
    let mut exponentials = vec![bf16::ZERO; chunk_rows * v];
    let nothing = Sum { largest: 0.0, sum: 0.0 };
    let parts = v.div_ceil(WIDTH) * WIDTH.div_ceil(PART);
    let mut sums = vec![nothing; chunk_rows * parts];

    for (number, kept) in rows.chunks(chunk_rows).enumerate() {
        let r = kept.len();
        for (row, to) in kept.iter().zip(x.chunks_exact_mut(d)) {
            hidden.copy_row(row.index, to);
        }
        let kept_x = &x[..r * d];
        let x = rounded(kept_x);
        let x = View::bf16_rows(&x, [r, d]);
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
            for (block, first) in (0..v).step_by(WIDTH).enumerate() {
                let gradient = chunk.gradient(block, &row_sums);
                let width = gradient.shape()[1];
                if wanted.hidden {
                    let table = unembedding.rows_from(first, width);
                    product(&mut d_x[..r * d], d, block > 0, gradient, table, Precision::Bf16);
                }
                if let Some(d_unembedding) = &mut d_unembedding {
                    let to = &mut d_unembedding[first * d..][..width * d];
                    product(to, d, number > 0, gradient.transposed(), x, Precision::Bf16);
                }
            }
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

impl<'a> Chunk<'a> {
    /// Fills in the exponentials and their sums from `x` `[rows, D]` and `unembedding` `[V, D]`.
    fn exponentials(&mut self, x: View<'_>, unembedding: View<'_>) -> Vec<RowSum> {
        let (r, v) = (self.rows.len(), self.vocabulary);
        let x = PackedRows::new(x, Precision::Bf16);
        let parts = WIDTH.div_ceil(PART);
        let labels: Vec<Vec<(usize, f32)>> = self
            .exponentials
            .par_chunks_mut(r * WIDTH)
            .zip(self.sums.par_chunks_mut(r * parts))
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
            .with_min_len(ROWS)
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
            let parts = (block * WIDTH.div_ceil(PART) + start / PART)..;
            for ((part, values), to) in parts.zip(values.chunks(PART)).zip(to.chunks_mut(PART)) {
                let factor = self.factor(part, i, &found[i]);
                vectorised(
                    #[inline(always)]
                    || {
                        for (to, value) in to.iter_mut().zip(values) {
                            *to = f32::from_bits(u32::from(value.to_bits()) << 16) * factor;
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

    /// Scales the exponentials of `block` to their gradient `[rows, width]`.
    fn gradient(&mut self, block: usize, found: &[RowSum]) -> View<'_> {
        let (r, v) = (self.rows.len(), self.vocabulary);
        let first = block * WIDTH;
        let width = WIDTH.min(v - first);
        let exponentials = std::mem::take(&mut self.exponentials);
        let chunk = &*self;
        exponentials[first * r..][..width * r]
            .par_chunks_mut(ROWS * width)
            .enumerate()
            .for_each(|(group, values)| {
                for (i, values) in (group * ROWS..).zip(values.chunks_exact_mut(width)) {
                    for (part, values) in (block * WIDTH.div_ceil(PART)..).zip(values.chunks_mut(PART)) {
                        let factor = chunk.factor(part, i, &found[i]);
                        vectorised(
                            #[inline(always)]
                            || scale_by(values, factor),
                        );
                    }
                    let target = chunk.rows[i].target.checked_sub(first);
                    if let Some(target) = target.and_then(|at| values.get_mut(at)) {
                        *target = bf16::from_f64(chunk.at_target(i, &found[i]));
                    }
                }
            });
        self.exponentials = exponentials;
        View::bf16_rows(&self.exponentials[first * r..][..width * r], [r, width])
    }
}

/// The parts of all blocks of `columns` columns.
fn parts_of(columns: usize) -> usize {
    columns / WIDTH * WIDTH.div_ceil(PART) + (columns % WIDTH).div_ceil(PART)
}

/// For each row of `logits` (`PART` apart, `count` of them logits): its [`Sum`], and its exponentials
/// to `to`, whose rows are `stride` apart. Not-a-number makes the sum not-a-number.
#[inline(always)]
fn take_exponentials(logits: &mut [f32], count: usize, sums: &mut [Sum], to: &mut [bf16], stride: usize) {
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
            *to = nearest(*from);
        }
    }
}

/// Lanes that are summed apart.
const LANES: usize = 16;

/// The nearest even bf16 of a value that is not negative, or not-a-number.
#[inline(always)]
fn nearest(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
}

/// Multiplies in f32 and rounds.
#[inline(always)]
fn scale_by(values: &mut [bf16], factor: f32) {
    for value in values {
        *value = nearest(f32::from_bits(u32::from(value.to_bits()) << 16) * factor);
    }
}
