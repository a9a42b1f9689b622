//! Causal softmax attention with grouped queries inside documents, on slices, without S x S scores.
//!
//! For query i and key j of one document, j <= i (and j > i - window where there is a sliding window): `p_ij
//! = softmax_j(q_i . k_j)`, `o_i = sum_j p_ij v_j`; the queries are already scaled. Queries are processed in
//! blocks of 64; only a block's scores over the keys before it exist at a time. The backward pass recomputes
//! them:
//!
//! ```text
//! dv_j = sum_i p_ij do_i     dp_ij = do_i . v_j     ds_ij = p_ij (dp_ij - sum_l p_il dp_il)
//! dq_i = sum_j ds_ij k_j     dk_j = sum_i ds_ij q_i
//! ```
//!
//! In bf16 on a processor with tiles the same is done on these.
//!
//! After Dao et al. 2022 (FlashAttention, arXiv 2205.14135); its blocks over keys are not needed at the cache
//! sizes of CPUs.

#[cfg(target_arch = "x86_64")]
pub(super) mod tiles;

use crate::simd::exp_not_positive;
use rayon::prelude::*;
use std::ops::Range;
use wmtp_gemm::simd::vectorized;
use wmtp_gemm::{FloatSlice, MatrixView, Precision, matmul_single_threaded};
#[cfg(target_arch = "x86_64")]
use wmtp_gemm::{Isa, tiles::Amx};

/// Queries of a block. Its scores take 512 KiB at 2048 keys.
const QUERIES: usize = 64;

/// Partial sums of a row: the lanes of the widest vectors.
const LANES: usize = 16;

/// The layout of a row of queries, keys and values: `heads` queries of `width` values, then `kv_heads` keys,
/// then as many values. Head h reads key head `h / (heads / kv_heads)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a head.
    pub width: usize,
}

impl Heads {
    /// Length of a row of queries, keys and values.
    pub fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.width
    }

    /// Column of the first key in a row.
    pub fn keys(&self) -> usize {
        self.heads * self.width
    }

    /// Column of the first value in a row.
    pub fn values(&self) -> usize {
        (self.heads + self.kv_heads) * self.width
    }

    fn groups(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// What a query sees: itself and keys of its document before it.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    /// The rows of each document.
    pub rows: &'a [Range<usize>],
    /// Sliding window: a query sees the last this many keys, its own among them; at least 1. None: all of
    /// them.
    pub window: Option<usize>,
}

impl<'a, R: AsRef<[Range<usize>]> + ?Sized> From<&'a R> for Documents<'a> {
    /// Without a window.
    fn from(rows: &'a R) -> Self {
        Self {
            rows: rows.as_ref(),
            window: None,
        }
    }
}

/// A task: one document and one key head.
struct Task<'a> {
    heads: Heads,
    kv: usize,
    rows: Range<usize>,
    window: Option<usize>,
    qkv: FloatSlice<'a>,
    precision: Precision,
}

impl<'a> Task<'a> {
    fn all(qkv: FloatSlice<'a>, heads: Heads, documents: Documents<'_>, precision: Precision) -> Vec<Self> {
        let of = |rows: &Range<usize>| {
            let rows = rows.clone();
            (0..heads.kv_heads).map(move |kv| Task {
                heads,
                kv,
                rows: rows.clone(),
                window: documents.window,
                qkv,
                precision,
            })
        };
        documents
            .rows
            .iter()
            .filter(|rows| !rows.is_empty())
            .flat_map(of)
            .collect()
    }

    /// `rows` of the document (from its start) of a head that starts at `column`.
    fn view(&self, rows: Range<usize>, column: usize) -> MatrixView<'a> {
        let (stride, width) = (self.heads.row(), self.heads.width);
        let start = (self.rows.start + rows.start) * stride + column;
        let end = start + (rows.len() - 1) * stride + width;
        MatrixView::strided(self.qkv.slice(start..end), [rows.len(), width], [stride, 1])
    }

    fn query_column(&self, group: usize) -> usize {
        (self.kv * self.heads.groups() + group) * self.heads.width
    }

    fn keys(&self, rows: Range<usize>) -> MatrixView<'a> {
        self.view(rows, self.heads.keys() + self.kv * self.heads.width)
    }

    fn values(&self, rows: Range<usize>) -> MatrixView<'a> {
        self.view(rows, self.heads.values() + self.kv * self.heads.width)
    }

    /// Blocks of queries, from the document's start.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let length = self.rows.len();
        (0..length).step_by(QUERIES).map(move |i| i..(i + QUERIES).min(length))
    }

    /// The first key that a query sees.
    fn first_seen(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }

    /// The keys that a block of queries sees.
    fn seen(&self, block: &Range<usize>) -> Range<usize> {
        self.first_seen(block.start)..block.end
    }

    /// Softmax `[block, keys]` of a block of queries over the keys that the block sees.
    fn probabilities(&self, block: &Range<usize>, group: usize, probabilities: &mut [f32]) {
        let seen = self.seen(block);
        let keys = seen.len();
        let queries = self.view(block.clone(), self.query_column(group));
        matmul_single_threaded(
            probabilities,
            keys,
            false,
            queries,
            self.keys(seen.clone()).transposed(),
            self.precision,
        );
        for (i, row) in probabilities.chunks_exact_mut(keys).enumerate() {
            let query = block.start + i;
            let (row, after) = row.split_at_mut(query + 1 - seen.start);
            let (before, row) = row.split_at_mut(self.first_seen(query) - seen.start);
            softmax(row);
            before.fill(0.0);
            after.fill(0.0);
        }
    }
}

/// Attention of rows `qkv` `[N, heads.row()]`, `documents` the rows of each document, with a sliding window or
/// without; rows of no document get 0. Returns `[N, heads * width]`.
pub fn forward<'a>(
    qkv: FloatSlice<'_>,
    heads: Heads,
    documents: impl Into<Documents<'a>>,
    precision: Precision,
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if on_tiles(precision) {
        return tiles::forward::<Amx>(qkv, heads, documents.into());
    }
    let (n, width) = (qkv.len() / heads.row(), heads.keys());
    let tasks = Task::all(qkv, heads, documents.into(), precision);
    let part = heads.groups() * heads.width;
    let attended: Vec<Vec<f32>> = tasks
        .par_iter()
        .map(|task| {
            let mut attended = vec![0.0; task.rows.len() * part];
            let mut probabilities = vec![0.0; QUERIES.min(task.rows.len()) * task.rows.len()];
            for block in task.blocks() {
                let seen = task.seen(&block);
                let probabilities = &mut probabilities[..block.len() * seen.len()];
                for group in 0..heads.groups() {
                    task.probabilities(&block, group, probabilities);
                    let to = &mut attended[block.start * part + group * heads.width..];
                    let probabilities = MatrixView::row_major(probabilities, [block.len(), seen.len()]);
                    matmul_single_threaded(to, part, false, probabilities, task.values(seen.clone()), precision);
                }
            }
            attended
        })
        .collect();
    let mut to = vec![0.0; n * width];
    for (task, attended) in tasks.iter().zip(&attended) {
        for (row, from) in task.rows.clone().zip(attended.chunks_exact(part)) {
            to[row * width + task.kv * part..][..part].copy_from_slice(from);
        }
    }
    to
}

/// The gradient of `qkv` for the gradient `upstream` `[N, heads * width]` of [`forward`]'s result;
/// `[N, heads.row()]`.
pub fn backward<'a>(
    qkv: FloatSlice<'_>,
    heads: Heads,
    documents: impl Into<Documents<'a>>,
    upstream: &[f32],
    precision: Precision,
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if on_tiles(precision) {
        return tiles::backward::<Amx>(qkv, heads, documents.into(), upstream);
    }
    let (n, width, part) = (qkv.len() / heads.row(), heads.width, heads.groups() * heads.width);
    let tasks = Task::all(qkv, heads, documents.into(), precision);
    // A row of the task's gradients: of its queries, its key and its value.
    let row = part + 2 * width;
    let gradients: Vec<Vec<f32>> = tasks
        .par_iter()
        .map(|task| {
            let length = task.rows.len();
            let mut gradient = vec![0.0; length * row];
            let mut scratch = vec![0.0; 2 * QUERIES.min(length) * length];
            for block in task.blocks() {
                let seen = task.seen(&block);
                let (size, keys) = (block.len() * seen.len(), seen.len());
                // The gradients of the first key that the block sees.
                let first_key = seen.start * row + part;
                let (probabilities, d_probabilities) = scratch.split_at_mut(size);
                let d_probabilities = &mut d_probabilities[..size];
                for group in 0..heads.groups() {
                    task.probabilities(&block, group, probabilities);
                    let start = (task.rows.start + block.start) * heads.keys() + task.query_column(group);
                    let end = start + (block.len() - 1) * heads.keys() + width;
                    let d_attended = FloatSlice::F32(&upstream[start..end]);
                    let d_attended = MatrixView::strided(d_attended, [block.len(), width], [heads.keys(), 1]);
                    let shape = [block.len(), keys];
                    let transposed = MatrixView::row_major(probabilities, shape).transposed();
                    matmul_single_threaded(
                        &mut gradient[first_key + width..],
                        row,
                        true,
                        transposed,
                        d_attended,
                        precision,
                    );
                    let values = task.values(seen.clone()).transposed();
                    matmul_single_threaded(d_probabilities, keys, false, d_attended, values, precision);
                    let rows = probabilities
                        .chunks_exact(keys)
                        .zip(d_probabilities.chunks_exact_mut(keys));
                    rows.for_each(|(probability, d_probability)| d_softmax(probability, d_probability));
                    let d_scores = MatrixView::row_major(d_probabilities, shape);
                    let to = &mut gradient[block.start * row + group * width..];
                    matmul_single_threaded(to, row, false, d_scores, task.keys(seen.clone()), precision);
                    let queries = task.view(block.clone(), task.query_column(group));
                    matmul_single_threaded(
                        &mut gradient[first_key..],
                        row,
                        true,
                        d_scores.transposed(),
                        queries,
                        precision,
                    );
                }
            }
            gradient
        })
        .collect();
    let mut to = vec![0.0; n * heads.row()];
    for (task, gradient) in tasks.iter().zip(&gradients) {
        for (n, from) in task.rows.clone().zip(gradient.chunks_exact(row)) {
            let to = &mut to[n * heads.row()..][..heads.row()];
            to[task.kv * part..][..part].copy_from_slice(&from[..part]);
            to[heads.keys() + task.kv * width..][..width].copy_from_slice(&from[part..part + width]);
            to[heads.values() + task.kv * width..][..width].copy_from_slice(&from[part + width..]);
        }
    }
    to
}

/// Whether the tile unit multiplies.
#[cfg(target_arch = "x86_64")]
fn on_tiles(precision: Precision) -> bool {
    precision == Precision::Bf16 && Isa::chosen() == Ok(Isa::Amx)
}

/// Scores become probabilities.
pub(super) fn softmax(scores: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let larger = |a: f32, b: f32| if b > a { b } else { a };
            let (chunks, rest) = scores.as_chunks::<LANES>();
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in chunks {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *lane = if *score > *lane { *score } else { *lane };
                }
            }
            let largest = rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, b| larger(a, *b));
            let (chunks, rest) = scores.as_chunks_mut::<LANES>();
            let mut sums = [0.0f32; LANES];
            for chunk in chunks {
                for (sum, score) in sums.iter_mut().zip(chunk) {
                    *score = exp_not_positive(*score - largest);
                    *sum += *score;
                }
            }
            for (sum, score) in sums.iter_mut().zip(rest) {
                *score = exp_not_positive(*score - largest);
                *sum += *score;
            }
            let scale = 1.0 / sums.iter().sum::<f32>();
            scores.iter_mut().for_each(|probability| *probability *= scale);
        },
    );
}

/// The gradient of the probabilities becomes that of the scores.
fn d_softmax(probabilities: &[f32], gradient: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let ((chunks, rest), (of_chunks, of_rest)) =
                (probabilities.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
            let mut sums = [0.0f32; LANES];
            for (probabilities, gradient) in chunks.iter().zip(of_chunks) {
                for ((sum, p), d) in sums.iter_mut().zip(probabilities).zip(gradient) {
                    *sum += p * d;
                }
            }
            for ((sum, p), d) in sums.iter_mut().zip(rest).zip(of_rest) {
                *sum += p * d;
            }
            let total = sums.iter().sum::<f32>();
            for (p, d) in probabilities.iter().zip(gradient) {
                *d = p * (*d - total);
            }
        },
    );
}
