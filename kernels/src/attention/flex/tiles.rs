//! Attention on the tile unit, with factors in bf16; the formulas are those of the [module above](super).
//!
//! Keys and values of a document and key head are packed once for all queries. The vector unit turns a block of scores
//! into probabilities, and those and their gradients into tiles, in both layouts that products read: rows of queries,
//! and pairs of such rows interleaved, which are the right factors of the gradients of keys and values. So nothing is
//! transposed but keys, queries and the two sums at the end.

use super::{Documents, Heads, QUERIES, Task, d_softmax, softmax};
use rayon::prelude::*;
use std::ops::Range;
use wmtp_gemm::simd::{rounded_bits, vectorized};
use wmtp_gemm::tiles::{Ahead, Kind, Packed, Panels, ROWS, Side, Target, Tile, TileUnit, VALUES, Writer, blocks, pack};
use wmtp_gemm::{FloatSlice, MatrixView, Precision, Threads};

/// # Panics
/// Unless documents follow one another, within `n` rows: their results are written by several threads.
fn check(documents: Documents<'_>, n: usize) {
    let mut end = 0;
    for rows in documents.rows {
        assert!(
            end <= rows.start && rows.start <= rows.end && rows.end <= n,
            "document {rows:?} of {n} rows begins before {end} or ends too late"
        );
        end = rows.end;
    }
}

/// As [`super::forward`].
///
/// # Panics
/// Unless documents follow one another.
pub(in crate::attention) fn forward<U: TileUnit>(
    qkv: FloatSlice<'_>,
    heads: Heads,
    documents: Documents<'_>,
) -> Vec<f32> {
    let (n, width) = (qkv.len() / heads.row(), heads.keys());
    check(documents, n);
    let mut to = vec![0.0; n * width];
    let all = Target {
        data: to.as_mut_ptr().cast(),
        rows: n,
        columns: width,
        stride: width,
        kind: Kind::Set,
    };
    Task::all(qkv, heads, documents, Precision::Bf16)
        .into_par_iter()
        // SAFETY: `to` lives; every task has rows and columns of its own.
        .for_each(|task| unsafe { attend::<U>(&task, all) });
    to
}

/// As [`super::backward`].
///
/// # Panics
/// Unless documents follow one another.
pub(in crate::attention) fn backward<U: TileUnit>(
    qkv: FloatSlice<'_>,
    heads: Heads,
    documents: Documents<'_>,
    upstream: &[f32],
) -> Vec<f32> {
    let (n, width) = (qkv.len() / heads.row(), heads.width);
    check(documents, n);
    let mut to = vec![0.0; n * heads.row()];
    let all = Target {
        data: to.as_mut_ptr().cast(),
        rows: n,
        columns: heads.row(),
        stride: heads.row(),
        kind: Kind::Set,
    };
    let tasks = Task::all(qkv, heads, documents, Precision::Bf16);
    let of_keys: Vec<[Vec<f32>; 2]> = tasks
        .par_iter()
        // SAFETY: `to` lives; every task has rows and columns of its own.
        .map(|task| unsafe { attend_backward::<U>(task, upstream, all) })
        .collect();
    for (task, [d_keys, d_values]) in tasks.iter().zip(&of_keys) {
        let [keys, values] = [heads.keys(), heads.values()].map(|column| column + task.kv * width);
        let rows = d_keys.chunks_exact(width).zip(d_values.chunks_exact(width));
        for (row, (d_key, d_value)) in task.rows.clone().zip(rows) {
            let to = &mut to[row * heads.row()..][..heads.row()];
            to[keys..][..width].copy_from_slice(d_key);
            to[values..][..width].copy_from_slice(d_value);
        }
    }
    to
}

/// A block of queries and the keys that it sees, from a whole tile on.
struct Block {
    queries: Range<usize>,
    /// The first key, a multiple of 32, and the number of keys up to the last query's own.
    first_key: usize,
    keys: usize,
}

impl Block {
    /// Those of a task.
    fn all<'a>(task: &'a Task<'_>) -> impl Iterator<Item = Self> + use<'a> {
        task.blocks().map(|queries| {
            let first_key = task.first_seen(queries.start) / VALUES * VALUES;
            let keys = queries.end - first_key;
            Self {
                queries,
                first_key,
                keys,
            }
        })
    }

    /// Keys, in tiles along a product's K.
    fn tiles(&self) -> usize {
        self.keys.div_ceil(VALUES)
    }

    /// The lines of panels `[keys, ...]`.
    fn lines_of(&self, keys: Panels) -> Panels {
        keys.part(self.first_key / ROWS, self.keys.div_ceil(ROWS))
    }

    /// The tiles along K of panels `[..., keys]`.
    fn tiles_of(&self, panels: Panels) -> Panels {
        panels.between(self.first_key / VALUES, self.tiles())
    }

    /// Calls `work` with each query's row of `values`, `stride` apart, and the columns of the keys that it sees.
    fn rows(&self, task: &Task<'_>, values: &mut [f32], stride: usize, mut work: impl FnMut(&mut [f32], Range<usize>)) {
        for (query, row) in self.queries.clone().zip(values.chunks_exact_mut(stride)) {
            let seen = task.first_seen(query) - self.first_key..query + 1 - self.first_key;
            work(row, seen);
        }
    }
}

/// A document's rows in whole blocks of queries.
fn padded(task: &Task<'_>) -> usize {
    task.rows.len().next_multiple_of(QUERIES)
}

fn room([groups, tiles]: [usize; 2]) -> Vec<Tile> {
    vec![Tile::ZERO; groups * tiles]
}

fn packed(lines: MatrixView<'_>) -> Packed {
    let mut packed = Packed::default();
    packed.fill(lines, Side::Right, Threads::Calling);
    packed
}

/// Scores of a block of queries, in f32; what is not seen is zero.
struct Scores {
    values: Vec<f32>,
    stride: usize,
}

impl Scores {
    /// For the longest block of a task.
    fn new(task: &Task<'_>) -> Self {
        // Rows whose distance is a power of two share few sets of the cache.
        let stride = padded(task) + ROWS;
        Self {
            values: vec![0.0; QUERIES * stride],
            stride,
        }
    }

    /// `left [queries, W] * right [keys, W]^T`.
    fn multiply<U: TileUnit>(&mut self, block: &Block, left: Panels, right: Panels) {
        let to = Target {
            data: self.values.as_mut_ptr().cast(),
            rows: block.queries.len(),
            columns: block.keys,
            stride: self.stride,
            kind: Kind::Set,
        };
        // SAFETY: the rows lie inside of `values`, which is borrowed exclusively.
        let mut writer = unsafe { Writer::new(to, Ahead::NOTHING) };
        blocks::<U, _>(left, block.lines_of(right), Side::Right, &mut writer);
    }

    /// Scores become probabilities.
    fn softmax(&mut self, block: &Block, task: &Task<'_>) {
        let columns = block.tiles() * VALUES;
        block.rows(task, &mut self.values, self.stride, |row, seen| {
            softmax(&mut row[seen.clone()]);
            row[..seen.start].fill(0.0);
            row[seen.end..columns].fill(0.0);
        });
        self.clear_after(block);
    }

    /// The gradient of probabilities becomes that of scores.
    fn d_softmax(&mut self, block: &Block, task: &Task<'_>, probabilities: &Self) {
        let columns = block.tiles() * VALUES;
        let mut of_queries = probabilities.values.chunks_exact(self.stride);
        block.rows(task, &mut self.values, self.stride, |row, seen| {
            let probabilities = of_queries.next().unwrap_or_default();
            d_softmax(&probabilities[seen.clone()], &mut row[seen.clone()]);
            row[..seen.start].fill(0.0);
            row[seen.end..columns].fill(0.0);
        });
        self.clear_after(block);
    }

    /// Rows of queries that the block lacks, to whole tiles.
    fn clear_after(&mut self, block: &Block) {
        let columns = block.tiles() * VALUES;
        let count = block.queries.len();
        let rows = self.values.chunks_exact_mut(self.stride);
        rows.take(count.next_multiple_of(VALUES))
            .skip(count)
            .for_each(|row| row[..columns].fill(0.0));
    }

    /// As lines `[queries, keys]` of a left factor.
    fn left(&self, block: &Block, room: &mut [Tile]) -> Panels {
        let (tiles, groups) = (block.tiles(), block.queries.len().div_ceil(ROWS));
        for (group, of_group) in room.chunks_exact_mut(tiles).enumerate().take(groups) {
            for (i, row) in self.values[group * ROWS * self.stride..]
                .chunks(self.stride)
                .enumerate()
                .take(ROWS)
            {
                vectorized(
                    #[inline(always)]
                    || {
                        for (tile, values) in of_group.iter_mut().zip(row.chunks_exact(VALUES)) {
                            for (to, value) in tile.rows_mut()[i].iter_mut().zip(values) {
                                *to = (rounded_bits(*value) >> 16) as u16;
                            }
                        }
                    },
                );
            }
        }
        Panels::new(room, groups, tiles)
    }

    /// As lines `[keys, queries]` of a right factor.
    fn right(&self, block: &Block, room: &mut [Tile]) -> Panels {
        let tiles = block.queries.len().div_ceil(VALUES);
        let groups = block.tiles() * VALUES / ROWS;
        for (pair, rows) in self.values.chunks_exact(2 * self.stride).enumerate().take(tiles * ROWS) {
            let (tile, row) = (pair / ROWS, pair % ROWS);
            let (even, odd) = rows.split_at(self.stride);
            let values = even.chunks_exact(ROWS).zip(odd.chunks_exact(ROWS));
            vectorized(
                #[inline(always)]
                || {
                    for (group, (even, odd)) in room.chunks_exact_mut(tiles).take(groups).zip(values) {
                        for ((to, even), odd) in group[tile].words_mut()[row].iter_mut().zip(even).zip(odd) {
                            *to = rounded_bits(*even) >> 16 | rounded_bits(*odd) & 0xffff_0000;
                        }
                    }
                },
            );
        }
        Panels::new(room, groups, tiles)
    }
}

/// Writes the task's rows and columns of `to` `[N, heads * W]`.
///
/// # Safety
/// Nothing else accesses them.
unsafe fn attend<U: TileUnit>(task: &Task<'_>, to: Target) {
    let (length, width) = (task.rows.len(), task.heads.width);
    let keys = packed(task.keys(0..length));
    let values = packed(task.values(0..length).transposed());
    let mut queries = room([QUERIES / ROWS, width.div_ceil(VALUES)]);
    let mut probabilities = room([QUERIES / ROWS, padded(task) / VALUES]);
    let mut scores = Scores::new(task);
    for block in Block::all(task) {
        for group in 0..task.heads.groups() {
            let column = task.query_column(group);
            let of_queries = task.view(block.queries.clone(), column);
            let of_queries = pack(of_queries, Side::Left, &mut queries, Threads::Calling);
            scores.multiply::<U>(&block, of_queries, keys.panels());
            scores.softmax(&block, task);
            let left = scores.left(&block, &mut probabilities);
            let [first, last] = [block.queries.start, block.queries.end].map(|query| task.rows.start + query);
            let to = to.part([first, last], [column, column + width]);
            // SAFETY: by the caller's promise.
            let mut writer = unsafe { Writer::new(to, Ahead::NOTHING) };
            blocks::<U, _>(left, block.tiles_of(values.panels()), Side::Left, &mut writer);
        }
    }
}

/// Writes the gradients of the task's queries to `to` `[N, heads.row()]`, and returns those of its keys and values,
/// `[rows, W]`.
///
/// # Safety
/// Nothing else accesses those of the queries.
unsafe fn attend_backward<U: TileUnit>(task: &Task<'_>, upstream: &[f32], to: Target) -> [Vec<f32>; 2] {
    let (length, heads, width) = (task.rows.len(), task.heads, task.heads.width);
    let keys = packed(task.keys(0..length));
    let key_columns = packed(task.keys(0..length).transposed());
    let values = packed(task.values(0..length));
    let [mut queries, mut d_attended] = [(); 2].map(|()| room([QUERIES / ROWS, width.div_ceil(VALUES)]));
    let [mut query_columns, mut d_columns] = [(); 2].map(|()| room([width.div_ceil(ROWS), QUERIES / VALUES]));
    let mut d_scores_left = room([QUERIES / ROWS, padded(task) / VALUES]);
    let [mut p_right, mut d_scores_right] = [(); 2].map(|()| room([padded(task) / ROWS, QUERIES / VALUES]));
    let [mut probabilities, mut d_scores] = [(); 2].map(|()| Scores::new(task));
    // `[W, keys]`
    let stride = padded(task) + ROWS;
    let [mut d_keys, mut d_values] = [(); 2].map(|()| vec![0.0; width * stride]);
    let sums = |of: &mut Vec<f32>, block: &Block| Target {
        data: of[block.first_key..].as_mut_ptr().cast(),
        rows: width,
        columns: block.keys,
        stride,
        kind: Kind::Add,
    };
    for block in Block::all(task) {
        let [first, last] = [block.queries.start, block.queries.end].map(|query| task.rows.start + query);
        for group in 0..heads.groups() {
            let column = task.query_column(group);
            let of_queries = task.view(block.queries.clone(), column);
            let above = &upstream[first * heads.keys() + column..(last - 1) * heads.keys() + column + width];
            let above = MatrixView::strided(FloatSlice::F32(above), [last - first, width], [heads.keys(), 1]);
            let left = |lines: MatrixView<'_>, room: &mut [Tile]| pack(lines, Side::Left, room, Threads::Calling);
            let queries = left(of_queries, &mut queries);
            let query_columns = left(of_queries.transposed(), &mut query_columns);
            let d_attended = left(above, &mut d_attended);
            let d_columns = left(above.transposed(), &mut d_columns);

            probabilities.multiply::<U>(&block, queries, keys.panels());
            probabilities.softmax(&block, task);
            let right = probabilities.right(&block, &mut p_right);
            // SAFETY: the columns lie inside of `d_values`, which nothing else accesses meanwhile.
            let mut writer = unsafe { Writer::new(sums(&mut d_values, &block), Ahead::NOTHING) };
            blocks::<U, _>(d_columns, right, Side::Right, &mut writer);

            d_scores.multiply::<U>(&block, d_attended, values.panels());
            d_scores.d_softmax(&block, task, &probabilities);
            let of_queries = to.part([first, last], [column, column + width]);
            // SAFETY: by the caller's promise.
            let mut writer = unsafe { Writer::new(of_queries, Ahead::NOTHING) };
            let left = d_scores.left(&block, &mut d_scores_left);
            blocks::<U, _>(left, block.tiles_of(key_columns.panels()), Side::Left, &mut writer);

            let right = d_scores.right(&block, &mut d_scores_right);
            // SAFETY: as with `d_values`.
            let mut writer = unsafe { Writer::new(sums(&mut d_keys, &block), Ahead::NOTHING) };
            blocks::<U, _>(query_columns, right, Side::Right, &mut writer);
        }
    }
    [d_keys, d_values].map(|columns| {
        let mut rows = vec![0.0; length * width];
        for (column, values) in columns.chunks_exact(stride).enumerate() {
            for (row, value) in rows.chunks_exact_mut(width).zip(values) {
                row[column] = *value;
            }
        }
        rows
    })
}
