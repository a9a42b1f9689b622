//! The products on AVX-512: a register tile of 8 x 48 results, fed from packed panels.

use super::pack::{GROUP, Unit, pack};
use super::{Floats, Threads, View};
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// Rows of the register tile.
const ROWS: usize = 8;

/// Columns of the register tile: three vectors.
const COLUMNS: usize = 3 * GROUP;

/// Units of a line that are packed at a time: the panel of 48 columns stays in the second cache.
const UNITS: usize = 768;

/// Groups of 16 rows that a thread packs at a time when the right factor is shared.
const ROW_GROUPS: usize = 4;

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

/// A line of the cache: panels begin with one, so that no vector that is read from them crosses two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; GROUP]);

/// Room for panels. Several threads may fill it, each its own part, before any of them reads it.
struct Panels(Vec<UnsafeCell<MaybeUninit<Line>>>);

// SAFETY: parts that are filled at the same time do not overlap, and reading starts after filling.
unsafe impl Sync for Panels {}

impl Panels {
    /// Room for `length` units.
    fn new(length: usize) -> Self {
        let lines = length.div_ceil(GROUP);
        let mut panels = Vec::with_capacity(lines);
        // SAFETY: the capacity is there, and lines need not be initialised.
        unsafe { panels.set_len(lines) };
        Self(panels)
    }

    /// The address of unit `index`, with at least `room` units from there on.
    fn at(&self, index: usize, room: usize) -> *mut u32 {
        assert!(index + room <= self.0.len() * GROUP);
        self.0.as_ptr().cast::<u32>().wrapping_add(index).cast_mut()
    }
}

type Kernel = unsafe fn(usize, *const u32, *const u32, Target, [usize; 2], [usize; 2]);

/// The ranges of K that are packed at a time.
fn ranges(k: usize, unit: Unit) -> impl Iterator<Item = [usize; 2]> {
    let blocks = k.div_ceil(UNITS * unit.values());
    let length = k.div_ceil(blocks.max(1)).next_multiple_of(2 * GROUP).max(1);
    (0..k).step_by(length).map(move |from| [from, (from + length).min(k)])
}

/// See [`super::product`], which has checked the shapes and the machine.
pub fn product(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [View<'_>; 2],
    unit: Unit,
    threads: Threads,
) {
    let mut target = Target {
        data: to.as_mut_ptr(),
        stride: to_stride,
        add: accumulate,
    };
    for range in ranges(left.shape[1], unit) {
        let part = Part::new(left, right, range, unit, target, threads);
        if left.shape[0] <= right.shape[1] {
            part.share_left();
        } else {
            part.share_right();
        }
        target.add = true;
    }
}

/// All rows of a left factor, packed, for [`super::PackedRows`].
pub struct PackedRows(Vec<Panels>);

impl PackedRows {
    /// Packs all of `left` `[M, K]` on all threads; the machine has been checked.
    pub fn new(left: View<'_>, unit: Unit) -> Self {
        let nothing = View::rows(&[], [left.shape[1], 0]);
        let target = Target {
            data: std::ptr::null_mut(),
            stride: 0,
            add: false,
        };
        Self(
            ranges(left.shape[1], unit)
                .map(|range| Part::new(left, nothing, range, unit, target, Threads::All).packed_left())
                .collect(),
        )
    }

    /// `to = left * right` on the calling thread; `super::PackedRows` has checked the shapes and
    /// hands over the factor that was packed.
    pub fn multiply(&self, to: &mut [f32], to_stride: usize, [left, right]: [View<'_>; 2], unit: Unit) {
        let mut target = Target {
            data: to.as_mut_ptr(),
            stride: to_stride,
            add: false,
        };
        for (range, panels) in ranges(left.shape[1], unit).zip(&self.0) {
            Part::new(left, right, range, unit, target, Threads::This).times_packed(panels);
            target.add = true;
        }
    }
}

/// Lines of a factor that will be packed next. They are fetched while the ones before them are
/// multiplied, since packing has nothing to do but wait for memory.
struct Ahead {
    start: *const u8,
    /// Pieces that lie together in memory, their distance, and the lines of the cache in each.
    pieces: usize,
    stride: usize,
    lines: usize,
}

impl Ahead {
    /// Values `from..to` of `count` lines from `line` on, as far as there are any.
    fn of(lines: View<'_>, line: usize, count: usize, [from, to]: [usize; 2]) -> Self {
        let (start, size) = match lines.data {
            Floats::F32(values) => (values.as_ptr().cast::<u8>(), size_of::<f32>()),
            Floats::Bf16(values) => (values.as_ptr().cast(), size_of::<half::bf16>()),
        };
        let count = count.min(lines.shape[0].saturating_sub(line));
        let [down, along] = lines.strides;
        let (pieces, stride, length) = match (along, down) {
            (1, _) => (count, down, to - from),
            (_, 1) => (to - from, along, count),
            _ => (0, 0, 0),
        };
        Self {
            start: start.wrapping_add((line * down + from * along) * size),
            pieces,
            stride: stride * size,
            lines: (length * size).div_ceil(64),
        }
    }

    /// Fetches the `share`th of `of` shares.
    fn fetch(&self, share: usize, of: usize) {
        let all = self.pieces * self.lines;
        for i in share * all / of..(share + 1) * all / of {
            let at = self
                .start
                .wrapping_add(i / self.lines * self.stride + i % self.lines * 64);
            // SAFETY: fetching has no effect but on time, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
        }
    }
}

/// The share of a range of K in all results.
struct Part<'a> {
    left: View<'a>,
    columns: View<'a>,
    range: [usize; 2],
    units: usize,
    unit: Unit,
    kernel: Kernel,
    target: Target,
    threads: Threads,
}

impl<'a> Part<'a> {
    fn new(left: View<'a>, right: View<'a>, range: [usize; 2], unit: Unit, target: Target, threads: Threads) -> Self {
        Self {
            left,
            columns: right.transposed(),
            range,
            units: (range[1] - range[0]).div_ceil(unit.values()),
            unit,
            kernel: match unit {
                Unit::Value | Unit::Rounded => multiply_f32,
                Unit::Pair => multiply_bf16,
            },
            target,
            threads,
        }
    }

    /// Runs tasks 0 to `count`, each with scratch memory of `room` units that it may reuse.
    fn each(&self, count: usize, room: usize, task: impl Fn(&Panels, usize) + Sync) {
        match self.threads {
            Threads::All => (0..count)
                .into_par_iter()
                .for_each_init(|| Panels::new(room), |scratch, i| task(scratch, i)),
            Threads::This => {
                let scratch = Panels::new(room);
                (0..count).for_each(|i| task(&scratch, i));
            }
        }
    }

    /// Packs all of the left factor once; every task packs 48 columns of the right one.
    fn share_left(&self) {
        self.times_packed(&self.packed_left());
    }

    /// All of the left factor.
    fn packed_left(&self) -> Panels {
        let (m, units) = (self.left.shape[0], self.units);
        let panels = Panels::new(m.next_multiple_of(GROUP) * units);
        self.each(m.div_ceil(GROUP), 0, |_, group| {
            self.pack_rows(group * GROUP, panels.at(group * GROUP * units, GROUP * units));
        });
        panels
    }

    /// The left factor as it was packed, times 48 columns of the right one a task.
    fn times_packed(&self, left: &Panels) {
        let (m, n, units) = (self.left.shape[0], self.columns.shape[0], self.units);
        self.each(n.div_ceil(COLUMNS), units * COLUMNS, |panel, p| {
            let panel = panel.at(0, units * COLUMNS);
            self.pack_columns(p * COLUMNS, panel);
            let ahead = Ahead::of(self.columns, (p + 1) * COLUMNS, COLUMNS, self.range);
            let tiles = m.div_ceil(ROWS);
            for (tile, row) in (0..m).step_by(ROWS).enumerate() {
                ahead.fetch(tile, tiles);
                self.tile(left.at(row * units, ROWS * units), panel, [row, p * COLUMNS]);
            }
        });
    }

    /// Packs all of the right factor once; every task packs 64 rows of the left one.
    fn share_right(&self) {
        let (m, n, units) = (self.left.shape[0], self.columns.shape[0], self.units);
        let shared = Panels::new(n.next_multiple_of(COLUMNS) * units);
        self.each(n.div_ceil(COLUMNS), 0, |_, p| {
            self.pack_columns(p * COLUMNS, shared.at(p * COLUMNS * units, COLUMNS * units));
        });
        let rows_per_task = ROW_GROUPS * GROUP;
        self.each(m.div_ceil(rows_per_task), units * rows_per_task, |panel, task| {
            let first = task * rows_per_task;
            let last = (first + rows_per_task).min(m);
            for row in (first..last).step_by(GROUP) {
                self.pack_rows(row, panel.at((row - first) * units, GROUP * units));
            }
            let ahead = Ahead::of(self.left, last, rows_per_task, self.range);
            let panels = n.div_ceil(COLUMNS);
            for p in 0..panels {
                ahead.fetch(p, panels);
                let columns = shared.at(p * COLUMNS * units, COLUMNS * units);
                for row in (first..last).step_by(ROWS) {
                    self.tile(
                        panel.at((row - first) * units, ROWS * units),
                        columns,
                        [row, p * COLUMNS],
                    );
                }
            }
        });
    }

    /// Packs 16 rows of the left factor into two panels of 8, one after the other, at `to`, which
    /// has room for 16 times `units`.
    fn pack_rows(&self, row: usize, to: *mut u32) {
        let second = self.units * ROWS;
        // SAFETY: `super::product` has checked the machine; callers take rows below the number of
        // rows; u is below `units`, so both stores stay inside the room.
        unsafe {
            pack(self.left, row, self.range, self.unit, |u, unit| {
                _mm256_storeu_si256(to.add(u * ROWS).cast(), _mm512_castsi512_si256(unit));
                _mm256_storeu_si256(to.add(second + u * ROWS).cast(), _mm512_extracti64x4_epi64::<1>(unit));
            });
        }
    }

    /// Packs 48 columns of the right factor at `to`, which has room for 48 times `units`; groups of
    /// columns beyond the last are zeros.
    fn pack_columns(&self, column: usize, to: *mut u32) {
        for first in (column..column + COLUMNS).step_by(GROUP) {
            if first >= self.columns.shape[0] {
                for u in 0..self.units {
                    // SAFETY: as below.
                    unsafe { to.add(u * COLUMNS + first - column).write_bytes(0, GROUP) };
                }
                continue;
            }
            // SAFETY: as in `pack_rows`; a unit has room for 48 lanes, of which this group's lie at
            // `first - column`, at most 32.
            unsafe {
                pack(self.columns, first, self.range, self.unit, |u, unit| {
                    _mm512_storeu_si512(to.add(u * COLUMNS + first - column).cast(), unit);
                });
            }
        }
    }

    /// Computes the tile whose first result is at `[row, column]`.
    fn tile(&self, rows: *const u32, columns: *const u32, at: [usize; 2]) {
        let count = [
            (self.left.shape[0] - at[0]).min(ROWS),
            (self.columns.shape[0] - at[1]).min(COLUMNS),
        ];
        // SAFETY: both panels hold `units` units; `at` plus `count` lies inside the result, whose
        // size `super::product` has checked, and no other task writes there.
        unsafe { (self.kernel)(self.units, rows, columns, self.target, at, count) }
    }
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, |$sum:ident, $left:ident, $right:ident| $step:expr) => {
        $(#[$doc])*
        ///
        /// Writes (or adds) the first `count` rows and columns of the tile at `at` of the target.
        ///
        /// # Safety
        /// The machine has AVX-512 F, BW, VL and BF16; `rows` holds `units` times 8 values, `columns`
        /// `units` times 48, on the bounds of cache lines; the tile lies inside the target, and nothing
        /// else accesses that part of it.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn $name(
            units: usize,
            rows: *const u32,
            columns: *const u32,
            target: Target,
            at: [usize; 2],
            count: [usize; 2],
        ) {
            let first = target.data.wrapping_add(at[0] * target.stride + at[1]);
            // What will be written comes near while the products are summed up.
            for i in 0..count[0] {
                for j in 0..3 {
                    _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * target.stride + GROUP * j).cast());
                }
            }
            let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
            for u in 0..units {
                // SAFETY: u is below `units`.
                unsafe {
                    let column = columns.add(u * COLUMNS);
                    let right = [
                        _mm512_load_si512(column.cast()),
                        _mm512_load_si512(column.add(GROUP).cast()),
                        _mm512_load_si512(column.add(2 * GROUP).cast()),
                    ];
                    // Eight units on, perhaps in the next panel: a fetch may go anywhere.
                    for j in 0..3 {
                        _mm_prefetch::<_MM_HINT_T0>(column.wrapping_add(8 * COLUMNS + j * GROUP).cast());
                    }
                    let row = rows.add(u * ROWS);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let $left = _mm512_set1_epi32(*row.add(i) as i32);
                        for (sum, $right) in sums.iter_mut().zip(right) {
                            let $sum = *sum;
                            *sum = $step;
                        }
                    }
                }
            }
            let masks: [u16; 3] =
                std::array::from_fn(|j| ((1u32 << count[1].saturating_sub(GROUP * j).min(GROUP)) - 1) as u16);
            for (i, sums) in sums.iter().enumerate() {
                if i >= count[0] {
                    break;
                }
                for (j, sum) in sums.iter().enumerate() {
                    let to = first.wrapping_add(i * target.stride + GROUP * j);
                    // SAFETY: by the caller's promise; lanes beyond the last column are masked out.
                    unsafe {
                        let sum = if target.add {
                            _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(masks[j], to))
                        } else {
                            *sum
                        };
                        _mm512_mask_storeu_ps(to, masks[j], sum);
                    }
                }
            }
        }
    };
}

kernel!(
    /// A unit is one value: multiply and add.
    multiply_f32,
    |sum, left, right| _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum)
);

kernel!(
    /// A unit is two values: both products are added to the lane's sum.
    multiply_bf16,
    |sum, left, right| _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512i, __m512bh>(left),
        std::mem::transmute::<__m512i, __m512bh>(right)
    )
);
