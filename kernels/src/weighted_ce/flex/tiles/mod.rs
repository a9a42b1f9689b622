//! The loss and its gradients on the tile unit, with factors in bf16 and sums in f32.
//!
//! Tiles multiply faster than logits can be written to memory and read again. So all rows of a batch are taken at
//! once, and logits are computed twice, a block of 32 tokens by 32 rows at a time, which never leaves the caches:
//!
//! 1. for each row's largest logit, its sum of exponentials and its label's logit;
//! 2. a stripe of the vocabulary at a time: as a block of logits leaves the tiles, it becomes the gradient `weight *
//!    (softmax - onehot)`, rounded to bf16, in the two layouts that the next products read ([`epilogues`]). Those
//!    multiply it into dW, of which each element is written once for a batch, and dX while it is in the second cache.
//!
//! Logits are `[tokens, rows]`: so a row of a block is a row of a left tile for dW, and two of them interleaved are a
//! row of a right tile for dX. Parts of the vocabulary are tasks; each sums up a dX of its own, and these are added in
//! order. Parts depend on the shapes alone, and with more threads than parts several of them share a part's
//! products: the result does not depend on their number.

mod epilogues;
#[cfg(test)]
mod tests;

use super::{LossOutput, RowStats, UnembeddingGradient};
use crate::memory::advise_huge_pages;
use crate::simd::exp_not_positive;
use crate::weighted_ce::backend::RequestedGradients;
use crate::weighted_ce::rows::{KeptRow, even_rows};
use epilogues::{GradientTiles, Label, LogitGradient, Statistics};
use rayon::prelude::*;
use std::ops::Range;
use wmtp_gemm::simd::vectorized;
use wmtp_gemm::tiles::{
    Ahead, BLOCK, Kind, Packed, ROWS, Side, Target, Tile, TileUnit, VALUES, Writer, blocks, pack, with_room,
};
use wmtp_gemm::{MatrixView, Precision, Threads};

/// Bytes of dX sums, for all parts of the vocabulary together.
const SUMS_BYTES: usize = 40 << 20;

/// Parts of the vocabulary in the second pass, at most.
const PARTS: usize = 4;

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 5120;

/// Rows of a batch up to which a stripe's gradient fits into the second cache with [`STRIPE`] tokens; above, half
/// as many.
const WIDE_ROWS: usize = 2560;

/// Tokens whose logits are computed at a time.
const STRIPE: usize = 256;

/// Stripes whose gradient is multiplied into dX at a time.
const STRIPES: usize = 2;

/// Tokens of a task of the first pass.
const RANGE: usize = 1536;

/// f32 values by which rows of sums are longer than they need to be: rows whose distance is a power of two share few
/// sets of the cache.
const PADDING: usize = 16;

/// `hidden` `[N, D]`, `unembedding` `[V, D]`; dW in the type `gradient`, and rounded once.
pub(super) fn loss_and_gradients<U: TileUnit>(
    hidden: MatrixView<'_>,
    unembedding: MatrixView<'_>,
    rows: &[KeptRow],
    requested: RequestedGradients,
    gradient: Precision,
) -> LossOutput {
    let fit = match requested {
        RequestedGradients::NONE => BATCH_ROWS,
        _ => SUMS_BYTES / (2 * hidden.shape()[1] * size_of::<f32>()),
    };
    let batch_rows = even_rows(rows.len(), fit, BATCH_ROWS);
    in_batches::<U>(hidden, unembedding, rows, requested, gradient, batch_rows)
}

/// The same, `batch_rows` at a time.
fn in_batches<U: TileUnit>(
    hidden: MatrixView<'_>,
    unembedding: MatrixView<'_>,
    rows: &[KeptRow],
    requested: RequestedGradients,
    gradient: Precision,
    batch_rows: usize,
) -> LossOutput {
    let ([n, d], [v, _]) = (hidden.shape(), unembedding.shape());
    let single = rows.len() <= batch_rows;
    let mut output = LossOutput {
        loss: 0.0,
        ce: vec![0.0; n],
        d_hidden: requested.hidden.then(|| vec![0.0; n * d]),
        // The first batch writes all of it, and its memory is not touched before.
        d_unembedding: requested.unembedding.then(|| match gradient {
            _ if rows.is_empty() => UnembeddingGradient::F32(vec![0.0; v * d]),
            // What several batches add up is summed in f32.
            Precision::Bf16 if single => UnembeddingGradient::Bf16(Vec::with_capacity(v * d)),
            _ => UnembeddingGradient::F32(Vec::with_capacity(v * d)),
        }),
    };
    let mut loss = 0.0;
    for (number, kept) in rows.chunks(batch_rows).enumerate() {
        let batch = Batch::new(hidden, unembedding, kept, requested);
        let stats = batch.statistics::<U>();
        for (row, stats) in kept.iter().zip(&stats) {
            loss += row.weight * stats.cross_entropy();
            output.ce[row.index] = stats.cross_entropy() as f32;
        }
        if requested == RequestedGradients::NONE {
            continue;
        }
        let d_unembedding = output.d_unembedding.as_mut().map(|gradient| {
            let (data, kind) = match gradient {
                UnembeddingGradient::Bf16(values) => {
                    advise_huge_pages(values.spare_capacity_mut());
                    (values.as_mut_ptr().cast(), Kind::Rounded)
                }
                UnembeddingGradient::F32(values) => {
                    advise_huge_pages(values.spare_capacity_mut());
                    let kind = if number == 0 { Kind::Stream } else { Kind::Add };
                    (values.as_mut_ptr().cast(), kind)
                }
            };
            Target {
                data,
                rows: v,
                columns: d,
                stride: d,
                kind,
            }
        });
        // SAFETY: the target is the gradient `[V, D]`, which is borrowed exclusively. The first batch sets all of its
        // elements, which are its length from then on.
        unsafe {
            batch.gradients::<U>(&stats, d_unembedding, output.d_hidden.as_deref_mut());
            match &mut output.d_unembedding {
                Some(UnembeddingGradient::Bf16(values)) => values.set_len(v * d),
                Some(UnembeddingGradient::F32(values)) => values.set_len(v * d),
                None => {}
            }
        }
    }
    output.loss = loss as f32;
    output
}

/// Rows that are computed together.
struct Batch<'a> {
    kept: &'a [KeptRow],
    /// Their number, and zeros to whole blocks.
    rows: usize,
    /// Indices of `kept` by target.
    by_target: Vec<usize>,
    unembedding: MatrixView<'a>,
    /// The rows, as the right factor of logits.
    x: Packed,
    /// Their columns, as the right factor of dW; empty where that is not requested.
    x_columns: Packed,
}

impl<'a> Batch<'a> {
    fn new(
        hidden: MatrixView<'_>,
        unembedding: MatrixView<'a>,
        kept: &'a [KeptRow],
        requested: RequestedGradients,
    ) -> Self {
        let (d, rows) = (hidden.shape()[1], kept.len().next_multiple_of(BLOCK));
        let mut gathered = vec![0.0; rows * d];
        gathered
            .par_chunks_mut(d)
            .with_min_len(ROWS)
            .zip(kept)
            .for_each(|(to, row)| hidden.copy_from_row(row.index, 0, to));
        let lines = MatrixView::row_major(&gathered, [rows, d]);
        let (mut x, mut x_columns) = (Packed::default(), Packed::default());
        x.fill(lines, Side::Right, Threads::All);
        if requested.unembedding {
            x_columns.fill(lines.transposed(), Side::Right, Threads::All);
        }
        let mut by_target: Vec<usize> = (0..kept.len()).collect();
        by_target.sort_unstable_by_key(|i| (kept[*i].target, *i));
        Self {
            kept,
            rows,
            by_target,
            unembedding,
            x,
            x_columns,
        }
    }

    /// D, in tiles.
    fn tiles(&self) -> usize {
        self.unembedding.shape()[1].div_ceil(VALUES)
    }

    /// The rows whose labels are in a stripe, in the order in which blocks of the stripe are computed.
    fn labels(&self, stripe: &Range<usize>) -> Vec<Label> {
        let target = |i: &usize| self.kept[*i].target;
        let first = self.by_target.partition_point(|i| target(i) < stripe.start);
        let of_stripe = self.by_target[first..].iter().take_while(|i| target(i) < stripe.end);
        let label = |i: &usize| Label {
            row: *i,
            token: target(i) - stripe.start,
        };
        let mut labels: Vec<Label> = of_stripe.map(label).collect();
        labels.sort_unstable_by_key(|label| (label.row / BLOCK, label.token / BLOCK));
        labels
    }

    /// What is fetched while a stripe is multiplied: the stripe of the unembedding after it, if it is before `end`.
    fn ahead(&self, stripe: &Range<usize>, end: usize, steps: usize) -> Ahead {
        match stripe.end < end {
            true => {
                let count = stripe.len().min(end - stripe.end);
                Ahead::of(self.unembedding.rows(stripe.end, count), steps)
            }
            false => Ahead::NOTHING,
        }
    }

    /// The first pass.
    fn statistics<U: TileUnit>(&self) -> Vec<RowStats> {
        let v = self.unembedding.shape()[0];
        let ranges: Vec<RangeStatistics> = (0..v.div_ceil(RANGE))
            .into_par_iter()
            .with_max_len(1)
            .map(|range| self.range_statistics::<U>(range * RANGE..v.min((range + 1) * RANGE)))
            .collect();
        let mut stats = vec![RowStats::default(); self.kept.len()];
        for (i, label) in ranges.iter().flat_map(|range| &range.labels) {
            stats[*i].label = *label;
        }
        stats
            .par_iter_mut()
            .with_min_len(32)
            .enumerate()
            .for_each(|(i, stats)| {
                stats.max = ranges.iter().fold(f32::MIN, |max, range| max.max(range.max[i]));
                let sum = |range: &RangeStatistics| range.sums[i] * f64::from(range.max[i] - stats.max).exp();
                stats.sum = ranges.iter().map(sum).sum();
            });
        stats
    }

    fn range_statistics<U: TileUnit>(&self, range: Range<usize>) -> RangeStatistics {
        let mut of_range = RangeStatistics {
            max: vec![f32::MIN; self.rows],
            sums: vec![0.0; self.rows],
            labels: Vec::new(),
        };
        let (mut max, mut sums) = (vec![0.0; self.rows], vec![0.0; self.rows]);
        with_room(STRIPE / ROWS * self.tiles(), |room| {
            for stripe in stripes(range.clone(), STRIPE) {
                let tokens = self.unembedding.rows(stripe.start, stripe.len());
                let tokens = pack(tokens, Side::Left, room, Threads::Calling);
                let steps = tokens.groups.div_ceil(2) * self.rows / BLOCK * tokens.tiles;
                let labels = self.labels(&stripe);
                max.fill(f32::MIN);
                sums.fill(0.0);
                let mut epilogue = Statistics::new(
                    stripe.len(),
                    [&mut max, &mut sums],
                    &labels,
                    &mut of_range.labels,
                    self.ahead(&stripe, range.end, steps),
                );
                blocks::<U, _>(tokens, self.x.panels(), Side::Left, &mut epilogue);
                of_range.add(&max, &sums);
            }
        });
        of_range
    }

    /// The second pass: adds dX to `d_hidden` `[N, D]` and writes dW to its target `[V, D]`.
    ///
    /// # Safety
    /// Nothing else accesses the target.
    unsafe fn gradients<U: TileUnit>(
        &self,
        stats: &[RowStats],
        d_unembedding: Option<Target>,
        d_hidden: Option<&mut [f32]>,
    ) {
        let [v, d] = self.unembedding.shape();
        let stride = self.rows + PADDING;
        let parts = match &d_hidden {
            Some(_) => (SUMS_BYTES / (stride * d * size_of::<f32>())).clamp(2, PARTS),
            None => PARTS,
        };
        let tokens = if self.rows > WIDE_ROWS { STRIPE / 2 } else { STRIPE };
        let part_tokens = v.div_ceil(parts).next_multiple_of(tokens * STRIPES);
        let parts = v.div_ceil(part_tokens);
        let mut max = vec![0.0; self.rows];
        let mut factors = vec![0.0; self.rows];
        for (i, (row, stats)) in self.kept.iter().zip(stats).enumerate() {
            max[i] = stats.max;
            factors[i] = stats.factor(row.weight);
        }
        let mut sums = vec![0.0; if d_hidden.is_some() { parts * stride * d } else { 0 }];
        let mut of_parts = sums.chunks_mut(stride * d);
        let parts: Vec<Part<'_>> = (0..parts)
            .map(|part| Part {
                batch: self,
                tokens: part * part_tokens..v.min((part + 1) * part_tokens),
                stripe: tokens,
                workers: rayon::current_num_threads().div_ceil(parts),
                stats,
                max: &max,
                factors: &factors,
                d_unembedding,
                sums: of_parts.next().map(|sums| Target {
                    data: sums.as_mut_ptr().cast(),
                    rows: d,
                    columns: self.rows,
                    stride,
                    kind: Kind::Set,
                }),
            })
            .collect();
        // SAFETY: by the caller's promise; each part has sums of its own.
        parts
            .par_iter()
            .with_max_len(1)
            .for_each(|part| unsafe { part.multiply::<U>() });
        drop(parts);
        if let Some(d_hidden) = d_hidden {
            self.add_up(&sums, stride, d_hidden);
        }
    }

    /// Writes the sum of the parts' `[D, rows]` to the rows of `d_hidden` `[N, D]`.
    fn add_up(&self, sums: &[f32], stride: usize, d_hidden: &mut [f32]) {
        let d = self.unembedding.shape()[1];
        let mut of_rows: Vec<(usize, &mut [f32])> = Vec::with_capacity(self.kept.len());
        let (mut left, mut done) = (d_hidden, 0);
        for row in self.kept {
            let (_, rest) = left.split_at_mut((row.index - done) * d);
            let (of_row, rest) = rest.split_at_mut(d);
            of_rows.push((of_rows.len(), of_row));
            (left, done) = (rest, row.index + 1);
        }
        of_rows.par_chunks_mut(ROWS).for_each(|of_rows| {
            let first = of_rows[0].0;
            for column in 0..d {
                let mut total = [0.0; ROWS];
                for part in sums.chunks(stride * d) {
                    let part = &part[column * stride + first..][..ROWS];
                    total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
                }
                for ((_, of_row), total) in of_rows.iter_mut().zip(total) {
                    of_row[column] = total;
                }
            }
        });
    }
}

/// `range`, `tokens` at a time.
fn stripes(range: Range<usize>, tokens: usize) -> impl Iterator<Item = Range<usize>> {
    range
        .clone()
        .step_by(tokens)
        .map(move |first| first..range.end.min(first + tokens))
}

/// Every row's largest logit over some of the vocabulary, its exponentials' sum relative to that, and the logits of
/// the labels that are there.
struct RangeStatistics {
    max: Vec<f32>,
    sums: Vec<f64>,
    labels: Vec<(usize, f32)>,
}

impl RangeStatistics {
    /// Adds the statistics of further tokens.
    fn add(&mut self, max: &[f32], sums: &[f32]) {
        vectorized(
            #[inline(always)]
            || {
                for (((total_max, total), max), sum) in self.max.iter_mut().zip(&mut self.sums).zip(max).zip(sums) {
                    let largest = if *max > *total_max { *max } else { *total_max };
                    let before = f64::from(exp_not_positive(*total_max - largest));
                    *total = *total * before + f64::from(sum * exp_not_positive(*max - largest));
                    *total_max = largest;
                }
            },
        );
    }
}

/// A part of the vocabulary in the second pass.
struct Part<'a> {
    batch: &'a Batch<'a>,
    tokens: Range<usize>,
    /// Tokens of a stripe.
    stripe: usize,
    /// Threads that share the part's products.
    workers: usize,
    stats: &'a [RowStats],
    max: &'a [f32],
    /// Weight over sum of exponentials.
    factors: &'a [f32],
    /// dW `[V, D]`.
    d_unembedding: Option<Target>,
    /// The part's dX, `[D, rows]`.
    sums: Option<Target>,
}

impl Part<'_> {
    /// # Safety
    /// Nothing else accesses the part's rows of dW, or its sums.
    unsafe fn multiply<U: TileUnit>(&self) {
        let (batch, d_tiles) = (self.batch, self.batch.tiles());
        let d = batch.unembedding.shape()[1];
        let wide = self.stripe * STRIPES;
        let room = |count: usize| vec![Tile::ZERO; count];
        let mut of_tokens = room(self.stripe / ROWS * d_tiles);
        let mut left = room(self.stripe / ROWS * batch.rows / VALUES);
        let mut right = room(batch.rows / ROWS * wide / VALUES);
        let mut of_columns = room(d.div_ceil(ROWS) * wide / VALUES);
        let threads = if self.workers > 1 {
            Threads::All
        } else {
            Threads::Calling
        };
        let tiles = GradientTiles::new(&mut left, &mut right, [batch.rows, wide]);
        for (number, tokens) in stripes(self.tokens.clone(), wide).enumerate() {
            for stripe in stripes(tokens.clone(), self.stripe) {
                let packed = pack(
                    batch.unembedding.rows(stripe.start, stripe.len()),
                    Side::Left,
                    &mut of_tokens,
                    threads,
                );
                let offset = stripe.start - tokens.start;
                self.shared(batch.rows / BLOCK, |row_blocks| {
                    let [first, last] = [row_blocks.start, row_blocks.end].map(|block| block * BLOCK);
                    let x = batch.x.panels().part(first / ROWS, (last - first) / ROWS);
                    let [max, factors] = [self.max, self.factors].map(|values| &values[first..last]);
                    let mut epilogue = LogitGradient::new(tiles, offset, stripe.len(), first, [max, factors]);
                    blocks::<U, _>(packed, x, Side::Left, &mut epilogue);
                });
                for label in batch.labels(&stripe) {
                    let row = &batch.kept[label.row];
                    let value = self.stats[label.row].gradient_at_label(row.weight) as f32;
                    // SAFETY: all blocks of the stripe are there.
                    unsafe { tiles.set(offset, label, value) };
                }
                if let Some(to) = self.d_unembedding {
                    let to = to.part([stripe.start, stripe.end], [0, d]);
                    let left = tiles.left(stripe.len());
                    let steps = stripe.len() / BLOCK * d.div_ceil(BLOCK) * left.tiles / self.workers;
                    self.shared(stripe.len().div_ceil(BLOCK), |token_blocks| {
                        let [first, last] = [token_blocks.start, token_blocks.end].map(|block| block * BLOCK);
                        let groups = left.groups.min(last / ROWS) - first / ROWS;
                        let ahead = match first {
                            0 => batch.ahead(&stripe, self.tokens.end, steps),
                            _ => Ahead::NOTHING,
                        };
                        // SAFETY: by the caller's promise; every worker has rows of its own.
                        let mut writer = unsafe { Writer::new(to.part([first, last], [0, d]), ahead) };
                        let left = left.part(first / ROWS, groups);
                        blocks::<U, _>(left, batch.x_columns.panels(), Side::Left, &mut writer);
                    });
                }
            }
            if let Some(sums) = self.sums {
                let columns = batch.unembedding.rows(tokens.start, tokens.len()).transposed();
                let columns = pack(columns, Side::Left, &mut of_columns, threads);
                let kind = if number == 0 { Kind::Set } else { Kind::Add };
                let sums = Target { kind, ..sums };
                let right = tiles.right(tokens.len());
                self.shared(batch.rows / BLOCK, |row_blocks| {
                    let [first, last] = [row_blocks.start, row_blocks.end].map(|block| block * BLOCK);
                    let to = sums.part([0, d], [first, last]);
                    // SAFETY: as above.
                    let mut writer = unsafe { Writer::new(to, Ahead::NOTHING) };
                    let right = right.part(first / ROWS, (last - first) / ROWS);
                    blocks::<U, _>(columns, right, Side::Left, &mut writer);
                });
            }
        }
    }

    /// Calls `work` with ranges that make up `0..count`, one for each worker.
    fn shared(&self, count: usize, work: impl Fn(Range<usize>) + Sync) {
        if self.workers == 1 {
            return work(0..count);
        }
        let each = count.div_ceil(self.workers);
        (0..count.div_ceil(each))
            .into_par_iter()
            .with_max_len(1)
            .for_each(|worker| work(worker * each..count.min((worker + 1) * each)));
    }
}
