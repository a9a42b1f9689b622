//! Products on AVX-512: packed panels feed a register tile of 8 x 48 results.

mod pack;
mod tile;

use crate::panels::{Panels, Prefetch};
use crate::{FloatSlice, MatrixView, Threads};
use pack::{GROUP, is_in_place, pack_interleaved, pack_row_major};
pub use pack::{Lane, transpose};
use rayon::prelude::*;
use std::arch::x86_64::*;
use tile::{COLUMNS, LeftRows, ROWS, Target, TileKernel, multiply_bf16, multiply_f32};

/// Lanes of a row that are packed at a time: a panel of 48 columns (144 KiB) stays in the L2 cache.
const PANEL_LANES: usize = 768;

/// Groups of 16 rows in a task when the right factor is shared.
const GROUPS_PER_TASK: usize = 4;

/// The ranges of K that are packed at a time.
fn ranges(k: usize, lane: Lane) -> impl Iterator<Item = [usize; 2]> {
    let blocks = k.div_ceil(PANEL_LANES * lane.values());
    let length = k.div_ceil(blocks.max(1)).next_multiple_of(2 * GROUP).max(1);
    (0..k).step_by(length).map(move |from| [from, (from + length).min(k)])
}

/// See [`crate::matmul`], which has checked the shapes and the machine.
pub fn matmul(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [MatrixView<'_>; 2],
    lane: Lane,
    threads: Threads,
) {
    let mut target = Target {
        data: to.as_mut_ptr(),
        stride: to_stride,
        add: accumulate,
    };
    for range in ranges(left.shape[1], lane) {
        let block = KBlock::new(left, right, range, lane, target, threads);
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
    pub fn new(right: MatrixView<'_>, lane: Lane) -> Self {
        let nothing = MatrixView::row_major(&[], [0, right.shape[0]]);
        let target = Target {
            data: std::ptr::null_mut(),
            stride: 0,
            add: false,
        };
        Self(
            ranges(right.shape[0], lane)
                .map(|range| KBlock::new(nothing, right, range, lane, target, Threads::All).packed_right())
                .collect(),
        )
    }

    /// `to (+)= left * right` on the calling thread; `crate::PackedRight` has checked the shapes and passes
    /// the factor that was packed.
    pub fn multiply(
        &self,
        to: &mut [f32],
        to_stride: usize,
        accumulate: bool,
        [left, right]: [MatrixView<'_>; 2],
        lane: Lane,
    ) {
        let mut target = Target {
            data: to.as_mut_ptr(),
            stride: to_stride,
            add: accumulate,
        };
        for (range, panels) in ranges(left.shape[1], lane).zip(&self.0) {
            let block = KBlock::new(left, right, range, lane, target, Threads::Calling);
            block.rows_times(panels, &Panels::new(block.lanes * GROUP), [0, left.shape[0]]);
            target.add = true;
        }
    }
}

/// A range of K: its share of all results.
struct KBlock<'a> {
    left: MatrixView<'a>,
    columns: MatrixView<'a>,
    range: [usize; 2],
    /// Lanes of a packed row.
    lanes: usize,
    lane: Lane,
    /// For interleaved and for row-major rows, by the number of vectors of the tile, less one.
    kernels: [[TileKernel; 3]; 2],
    /// Whether rows of the left factor can be read in place.
    left_in_place: bool,
    target: Target,
    threads: Threads,
}

impl<'a> KBlock<'a> {
    fn new(
        left: MatrixView<'a>,
        right: MatrixView<'a>,
        range: [usize; 2],
        lane: Lane,
        target: Target,
        threads: Threads,
    ) -> Self {
        Self {
            left,
            columns: right.transposed(),
            range,
            lanes: (range[1] - range[0]).div_ceil(lane.values()),
            lane,
            kernels: match lane {
                Lane::F32 | Lane::RoundedF32 => [
                    [
                        multiply_f32::<false, 1>,
                        multiply_f32::<false, 2>,
                        multiply_f32::<false, 3>,
                    ],
                    [
                        multiply_f32::<true, 1>,
                        multiply_f32::<true, 2>,
                        multiply_f32::<true, 3>,
                    ],
                ],
                Lane::Bf16Pair => [
                    [
                        multiply_bf16::<false, 1>,
                        multiply_bf16::<false, 2>,
                        multiply_bf16::<false, 3>,
                    ],
                    [
                        multiply_bf16::<true, 1>,
                        multiply_bf16::<true, 2>,
                        multiply_bf16::<true, 3>,
                    ],
                ],
            },
            left_in_place: is_in_place(left, range, lane),
            target,
            threads,
        }
    }

    /// Runs tasks 0 to `count`, each with scratch memory of `room` lanes that it may reuse.
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

    /// Packs all of the left factor once; every task packs 48 columns of the right one.
    fn share_left(&self) {
        let (m, n, lanes) = (self.left.shape[0], self.columns.shape[0], self.lanes);
        let left = Panels::new(m.next_multiple_of(GROUP) * lanes);
        self.each(m.div_ceil(GROUP), 0, |_, group| {
            self.pack_rows(group * GROUP, left.at(group * GROUP * lanes, GROUP * lanes));
        });
        self.each(n.div_ceil(COLUMNS), lanes * COLUMNS, |panel, p| {
            let panel = panel.at(0, lanes * COLUMNS);
            self.pack_columns(p * COLUMNS, panel);
            let next = Prefetch::of(self.columns, (p + 1) * COLUMNS, COLUMNS, self.range);
            let tiles = m.div_ceil(ROWS);
            for (tile, row) in (0..m).step_by(ROWS).enumerate() {
                next.fetch(tile, tiles);
                let rows = LeftRows::interleaved(left.at(row * lanes, ROWS * lanes));
                self.tile(rows, panel, [row, p * COLUMNS]);
            }
        });
    }

    /// All of the right factor.
    fn packed_right(&self) -> Panels {
        let (n, lanes) = (self.columns.shape[0], self.lanes);
        let shared = Panels::new(n.next_multiple_of(COLUMNS) * lanes);
        self.each(n.div_ceil(COLUMNS), 0, |_, p| {
            self.pack_columns(p * COLUMNS, shared.at(p * COLUMNS * lanes, COLUMNS * lanes));
        });
        shared
    }

    /// Packs all of the right factor once; every task takes 64 rows of the left one.
    fn share_right(&self) {
        let m = self.left.shape[0];
        let shared = self.packed_right();
        let rows_per_task = GROUPS_PER_TASK * GROUP;
        self.each(m.div_ceil(rows_per_task), self.lanes * GROUP, |scratch, task| {
            let first = task * rows_per_task;
            self.rows_times(&shared, scratch, [first, (first + rows_per_task).min(m)]);
        });
    }

    /// Rows `first..last` of the left factor times the packed right one. `scratch` has room for 16 rows.
    fn rows_times(&self, shared: &Panels, scratch: &Panels, [first, last]: [usize; 2]) {
        let (n, lanes) = (self.columns.shape[0], self.lanes);
        let panels = n.div_ceil(COLUMNS);
        for row in (first..last).step_by(GROUP) {
            let count = last.min(row + GROUP) - row;
            let sixteen = self.sixteen_rows(row, count, scratch);
            let next = Prefetch::of(
                self.left,
                row + GROUP,
                GROUP.min(last.saturating_sub(row + GROUP)),
                self.range,
            );
            for p in 0..panels {
                next.fetch(p, panels);
                let columns = shared.at(p * COLUMNS * lanes, COLUMNS * lanes);
                for (eight, at) in sixteen.iter().zip((0..count).step_by(ROWS)) {
                    self.tile(*eight, columns, [row + at, p * COLUMNS]);
                }
            }
        }
    }

    /// `count` rows of the left factor from `row` on, eight and eight: in place where the kernels can read
    /// them there, otherwise packed in `scratch`.
    fn sixteen_rows(&self, row: usize, count: usize, scratch: &Panels) -> [LeftRows; 2] {
        let [row_stride, stride] = self.left.strides;
        if self.left_in_place && count == GROUP {
            let (start, row_stride) = match self.left.data {
                FloatSlice::F32(values) => (values[row * row_stride + self.range[0]..].as_ptr().cast(), row_stride),
                FloatSlice::Bf16(values) => (
                    values[row * row_stride + self.range[0]..].as_ptr().cast::<u32>(),
                    row_stride / 2,
                ),
            };
            // Sixteen whole rows lie inside of the factor.
            return [0, ROWS].map(|first| LeftRows {
                start: start.wrapping_add(first * row_stride),
                row_stride,
            });
        }
        let lanes = self.lanes;
        let room = scratch.at(0, GROUP * lanes);
        if stride == 1 {
            // SAFETY: the machine has been checked and there are `count` rows from `row` on; the room holds
            // sixteen packed rows.
            unsafe { pack_row_major(self.left, [row, count], self.range, self.lane, room) };
            return [0, ROWS].map(|first| LeftRows {
                start: room.wrapping_add(first * lanes),
                row_stride: lanes,
            });
        }
        self.pack_rows(row, room);
        [0, ROWS].map(|first| LeftRows::interleaved(room.wrapping_add(first * lanes)))
    }

    /// Packs 16 rows of the left factor into two consecutive interleaved panels of 8 at `to`, which has room
    /// for 16 times `lanes`.
    fn pack_rows(&self, row: usize, to: *mut u32) {
        let second = self.lanes * ROWS;
        // SAFETY: `crate::matmul` has checked the machine; callers take rows below the number of
        // rows; u is below `lanes`, so both stores stay inside the room.
        unsafe {
            pack_interleaved(self.left, row, self.range, self.lane, |u, lane| {
                _mm256_storeu_si256(to.add(u * ROWS).cast(), _mm512_castsi512_si256(lane));
                _mm256_storeu_si256(to.add(second + u * ROWS).cast(), _mm512_extracti64x4_epi64::<1>(lane));
            });
        }
    }

    /// Packs 48 columns of the right factor interleaved at `to`, which has room for 48 times `lanes`; groups
    /// of columns beyond the last are zeros.
    fn pack_columns(&self, column: usize, to: *mut u32) {
        for first in (column..column + COLUMNS).step_by(GROUP) {
            if first >= self.columns.shape[0] {
                for u in 0..self.lanes {
                    // SAFETY: as below.
                    unsafe { to.add(u * COLUMNS + first - column).write_bytes(0, GROUP) };
                }
                continue;
            }
            // SAFETY: as in `pack_rows`; there are 48 columns a lane, of which this group's lie at
            // `first - column`, at most 32.
            unsafe {
                pack_interleaved(self.columns, first, self.range, self.lane, |u, lane| {
                    _mm512_storeu_si512(to.add(u * COLUMNS + first - column).cast(), lane);
                });
            }
        }
    }

    /// Computes the tile whose first result is at `[row, column]`.
    fn tile(&self, rows: LeftRows, columns: *const u32, at: [usize; 2]) {
        let count = [
            (self.left.shape[0] - at[0]).min(ROWS),
            (self.columns.shape[0] - at[1]).min(COLUMNS),
        ];
        let kernel = self.kernels[usize::from(rows.row_stride > 0)][(count[1] - 1) / GROUP];
        // SAFETY: both factors hold `lanes` lanes; `at` plus `count` lies inside the result, whose
        // size `crate::matmul` has checked, and no other task writes there.
        unsafe { kernel(self.lanes, rows, columns, self.target, at, count) }
    }
}
