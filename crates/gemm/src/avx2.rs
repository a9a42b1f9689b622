//! Products in f32 on AVX2: packed panels feed a register tile of 6 x 16 results.
//!
//! The smaller factor is packed once for all threads, the larger one a part at a time by the thread that multiplies
//! it. Both are rounded while they are packed, if at all; bf16 values are widened.

use crate::panels::{Panels, Prefetch};
use crate::simd::{to_bf16, to_f32};
use crate::{FloatSlice, MatrixView, Precision, Threads};
use rayon::prelude::*;
use std::arch::x86_64::*;

/// Rows of the register tile.
const ROWS: usize = 6;

/// Columns of the register tile: two vectors.
const COLUMNS: usize = 16;

/// Values along K that are packed at a time: a panel of 16 columns (20 KiB) stays in the L1 cache.
const DEPTH: usize = 320;

/// Rows that are multiplied with all panels, one after the other: packed, they stay in the L2 cache.
const ROWS_PER_TASK: usize = 16 * ROWS;

/// The ranges of K that are packed at a time.
fn ranges(k: usize) -> impl Iterator<Item = [usize; 2]> {
    let length = k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1);
    (0..k).step_by(length).map(move |from| [from, (from + length).min(k)])
}

/// See [`crate::matmul`], which has checked the shapes and the machine.
pub fn matmul(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [MatrixView<'_>; 2],
    precision: Precision,
    threads: Threads,
) {
    let mut target = Target {
        data: to.as_mut_ptr(),
        stride: to_stride,
        add: accumulate,
    };
    for range in ranges(left.shape[1]) {
        let block = KBlock {
            left,
            columns: right.transposed(),
            range,
            precision,
            target,
            threads,
        };
        if left.shape[0] <= right.shape[1] {
            block.share_left();
        } else {
            block.share_right();
        }
        target.add = true;
    }
}

/// All columns of a right factor, packed, for [`crate::PackedRight`].
pub struct PackedRight(Vec<Panels>);

impl PackedRight {
    /// Packs all of `right` `[K, N]` on all threads; the machine has been checked.
    pub fn new(right: MatrixView<'_>, precision: Precision) -> Self {
        let nothing = MatrixView::row_major(&[], [0, right.shape[0]]);
        let target = Target {
            data: std::ptr::null_mut(),
            stride: 0,
            add: false,
        };
        let packed = |range| {
            let block = KBlock {
                left: nothing,
                columns: right.transposed(),
                range,
                precision,
                target,
                threads: Threads::All,
            };
            block.packed_right()
        };
        Self(ranges(right.shape[0]).map(packed).collect())
    }

    /// `to (+)= left * right` on the calling thread; `crate::PackedRight` has checked the shapes and passes
    /// the factor that was packed.
    pub fn multiply(
        &self,
        to: &mut [f32],
        to_stride: usize,
        accumulate: bool,
        [left, right]: [MatrixView<'_>; 2],
        precision: Precision,
    ) {
        let mut target = Target {
            data: to.as_mut_ptr(),
            stride: to_stride,
            add: accumulate,
        };
        for (range, panels) in ranges(left.shape[1]).zip(&self.0) {
            let block = KBlock {
                left,
                columns: right.transposed(),
                range,
                precision,
                target,
                threads: Threads::Calling,
            };
            block.share(panels);
            target.add = true;
        }
    }
}

/// A result matrix that several threads write to, each its own part.
#[derive(Clone, Copy)]
struct Target {
    data: *mut f32,
    stride: usize,
    add: bool,
}

// SAFETY: each tile is written by the one task that computes it.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// A range of K: its share of all results.
struct KBlock<'a> {
    left: MatrixView<'a>,
    columns: MatrixView<'a>,
    range: [usize; 2],
    precision: Precision,
    target: Target,
    threads: Threads,
}

impl KBlock<'_> {
    fn depth(&self) -> usize {
        self.range[1] - self.range[0]
    }

    /// Runs tasks 0 to `count`, each with scratch memory of `room` values that it may reuse.
    fn each(&self, count: usize, room: usize, task: impl Fn(&Panels, usize) + Sync) {
        match self.threads {
            Threads::All => (0..count)
                .into_par_iter()
                .for_each_init(|| Panels::new(room), |scratch, i| task(scratch, i)),
            Threads::Calling => {
                let scratch = Panels::new(room);
                (0..count).for_each(|i| task(&scratch, i));
            }
        }
    }

    /// Packs all of the left factor once; every task packs 16 columns of the right one.
    fn share_left(&self) {
        let ([m, _], [n, _], depth) = (self.left.shape, self.columns.shape, self.depth());
        let left = Panels::new(m.next_multiple_of(ROWS) * depth);
        self.each(m.div_ceil(ROWS), 0, |_, tile| {
            let to = left.at(tile * ROWS * depth, ROWS * depth).cast();
            self.pack::<ROWS>(self.left, tile * ROWS, to);
        });
        self.each(n.div_ceil(COLUMNS), COLUMNS * depth, |panel, p| {
            let panel = panel.at(0, COLUMNS * depth).cast();
            self.pack::<COLUMNS>(self.columns, p * COLUMNS, panel);
            let next = Prefetch::of(self.columns, (p + 1) * COLUMNS, COLUMNS, self.range);
            let tiles = m.div_ceil(ROWS);
            for tile in 0..tiles {
                next.fetch(tile, tiles);
                let rows = left.at(tile * ROWS * depth, ROWS * depth).cast();
                self.tile(rows, panel, [tile * ROWS, p * COLUMNS]);
            }
        });
    }

    /// All of the right factor.
    fn packed_right(&self) -> Panels {
        let ([n, _], depth) = (self.columns.shape, self.depth());
        let shared = Panels::new(n.next_multiple_of(COLUMNS) * depth);
        self.each(n.div_ceil(COLUMNS), 0, |_, p| {
            let to = shared.at(p * COLUMNS * depth, COLUMNS * depth).cast();
            self.pack::<COLUMNS>(self.columns, p * COLUMNS, to);
        });
        shared
    }

    /// Packs all of the right factor once; every task takes 96 rows of the left one.
    fn share_right(&self) {
        self.share(&self.packed_right());
    }

    fn share(&self, shared: &Panels) {
        let ([m, _], [n, _], depth) = (self.left.shape, self.columns.shape, self.depth());
        let room = ROWS_PER_TASK.min(m.next_multiple_of(ROWS)) * depth;
        self.each(m.div_ceil(ROWS_PER_TASK), room, |scratch, task| {
            let first = task * ROWS_PER_TASK;
            let tiles = (m - first).min(ROWS_PER_TASK).div_ceil(ROWS);
            let rows = |tile: usize| scratch.at(tile * ROWS * depth, ROWS * depth).cast();
            for tile in 0..tiles {
                self.pack::<ROWS>(self.left, first + tile * ROWS, rows(tile));
            }
            for p in 0..n.div_ceil(COLUMNS) {
                let panel = shared.at(p * COLUMNS * depth, COLUMNS * depth).cast();
                for tile in 0..tiles {
                    self.tile(rows(tile), panel, [first + tile * ROWS, p * COLUMNS]);
                }
            }
        });
    }

    /// Packs `COUNT` lines from `first` on, interleaved, at `to`, which has room for `COUNT` times the depth; lines
    /// beyond the last are zeros.
    fn pack<const COUNT: usize>(&self, lines: MatrixView<'_>, first: usize, to: *mut f32) {
        let count = COUNT.min(lines.shape[0] - first);
        let source = Lines {
            first: first * lines.strides[0] + self.range[0] * lines.strides[1],
            strides: lines.strides,
            count,
        };
        // SAFETY: the room is the caller's alone; f32 values need not be initialised to be written.
        let to = unsafe { std::slice::from_raw_parts_mut(to, COUNT * self.depth()) };
        // SAFETY: `crate::matmul` has checked the machine.
        unsafe {
            match (lines.data, self.precision) {
                (FloatSlice::F32(values), Precision::F32) => interleave::<COUNT, _>(values, source, to, |x| x),
                (FloatSlice::F32(values), Precision::Bf16) => {
                    interleave::<COUNT, _>(values, source, to, |x| to_f32(to_bf16(x)));
                }
                (FloatSlice::Bf16(values), _) => interleave::<COUNT, _>(values, source, to, to_f32),
            }
        }
    }

    /// Computes the tile whose first result is at `at`.
    fn tile(&self, rows: *const f32, columns: *const f32, at: [usize; 2]) {
        let count = [
            (self.left.shape[0] - at[0]).min(ROWS),
            (self.columns.shape[0] - at[1]).min(COLUMNS),
        ];
        // SAFETY: `crate::matmul` has checked the machine; both factors hold the depth's values; `at` plus `count`
        // lies inside the result, whose size `crate::matmul` has checked, and no other task writes there.
        unsafe { tile(self.depth(), rows, columns, self.target, at, count) }
    }
}

/// Lines of a factor in memory: value u of line i is at `first + i * strides[0] + u * strides[1]`.
#[derive(Clone, Copy)]
struct Lines {
    first: usize,
    strides: [usize; 2],
    count: usize,
}

/// Writes value u of line i to `to[u * COUNT + i]`, in f32; lines that there are not are zeros.
#[target_feature(enable = "avx2,fma")]
fn interleave<const COUNT: usize, T: Copy>(values: &[T], lines: Lines, to: &mut [f32], value: impl Fn(T) -> f32) {
    /// Values of each line that are read in a row, so that cache lines are read and written whole.
    const RUN: usize = 16;
    let Lines { first, strides, count } = lines;
    if count < COUNT {
        to.fill(0.0);
    }
    if strides[0] == 1 && count == COUNT {
        for (u, to) in to.as_chunks_mut::<COUNT>().0.iter_mut().enumerate() {
            let from = &values[first + u * strides[1]..][..COUNT];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = value(*from));
        }
        return;
    }
    for (run, to) in to.chunks_mut(RUN * COUNT).enumerate() {
        let length = to.len() / COUNT;
        for i in 0..count {
            let start = first + i * strides[0] + run * RUN * strides[1];
            if strides[1] == 1 {
                let from = &values[start..][..length];
                (0..length).for_each(|u| to[u * COUNT + i] = value(from[u]));
            } else {
                (0..length).for_each(|u| to[u * COUNT + i] = value(values[start + u * strides[1]]));
            }
        }
    }
}

/// Writes (or adds) the first `count` rows and columns of the tile at `at` of the target.
///
/// # Safety
/// The machine has AVX2 and FMA; `rows` holds `depth` times 6 values and `columns` `depth` times 16, the latter on
/// bounds of 32 bytes; the tile lies inside the target, and nothing else accesses that part of it.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile(depth: usize, rows: *const f32, columns: *const f32, target: Target, at: [usize; 2], count: [usize; 2]) {
    let first = target.data.wrapping_add(at[0] * target.stride + at[1]);
    for i in 0..count[0] {
        _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * target.stride).cast());
        _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * target.stride + count[1] - 1).cast());
    }
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let (mut rows, mut columns) = (rows, columns);
    for _ in 0..depth {
        // SAFETY: by the caller's promise.
        unsafe {
            let right = [_mm256_load_ps(columns), _mm256_load_ps(columns.add(8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_broadcast_ss(&*rows.add(i));
                sums[0] = _mm256_fmadd_ps(left, right[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(left, right[1], sums[1]);
            }
            rows = rows.add(ROWS);
            columns = columns.add(COLUMNS);
        }
    }
    if count[1] == COLUMNS {
        for (i, sums) in sums.into_iter().enumerate().take(count[0]) {
            let to = first.wrapping_add(i * target.stride);
            for (half, sum) in sums.into_iter().enumerate() {
                // SAFETY: row i and its 16 columns lie inside the target, by the caller's promise.
                unsafe {
                    let to = to.add(8 * half);
                    let sum = if target.add {
                        _mm256_add_ps(_mm256_loadu_ps(to), sum)
                    } else {
                        sum
                    };
                    _mm256_storeu_ps(to, sum);
                }
            }
        }
        return;
    }
    for (i, [low, high]) in sums.into_iter().enumerate().take(count[0]) {
        let mut row = [0.0; COLUMNS];
        // SAFETY: the row has 16 values; of the target's, the first `count[1]` exist, by the caller's promise.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), low);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), high);
            for (j, sum) in row.into_iter().enumerate().take(count[1]) {
                let to = first.add(i * target.stride + j);
                *to = if target.add { *to + sum } else { sum };
            }
        }
    }
}
