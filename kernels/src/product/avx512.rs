//! The products on AVX-512: a register tile of 8 x 48 results, fed from packed panels.

use super::pack::{GROUP, Unit, lay, lies_in_units, pack};
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

type Kernel = unsafe fn(usize, Left, *const u32, Target, [usize; 2], [usize; 2]);

/// Eight lines of the left factor: unit u of line i lies `u * unit + i * line` from `start`.
#[derive(Clone, Copy)]
struct Left {
    start: *const u32,
    /// Where lines lie one after another as they came (`unit` is 1 then), how far apart; otherwise they
    /// are packed, and 0.
    line: usize,
}

impl Left {
    fn packed(start: *const u32) -> Self {
        Self { start, line: 0 }
    }
}

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

/// All columns of a right factor, packed, for [`super::PackedColumns`].
pub struct PackedColumns(Vec<Panels>);

impl PackedColumns {
    /// Packs all of `right` `[K, N]` on all threads; the machine has been checked.
    pub fn new(right: View<'_>, unit: Unit) -> Self {
        let nothing = View::rows(&[], [0, right.shape[0]]);
        let target = Target {
            data: std::ptr::null_mut(),
            stride: 0,
            add: false,
        };
        Self(
            ranges(right.shape[0], unit)
                .map(|range| Part::new(nothing, right, range, unit, target, Threads::All).packed_right())
                .collect(),
        )
    }

    /// `to (+)= left * right` on the calling thread; `super::PackedColumns` has checked the shapes and
    /// hands over the factor that was packed.
    pub fn multiply(
        &self,
        to: &mut [f32],
        to_stride: usize,
        accumulate: bool,
        [left, right]: [View<'_>; 2],
        unit: Unit,
    ) {
        let mut target = Target {
            data: to.as_mut_ptr(),
            stride: to_stride,
            add: accumulate,
        };
        for (range, panels) in ranges(left.shape[1], unit).zip(&self.0) {
            let part = Part::new(left, right, range, unit, target, Threads::This);
            part.rows_times(panels, &Panels::new(part.units * GROUP), [0, left.shape[0]]);
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
        let (first, last) = (share * all / of, (share + 1) * all / of);
        if first == last {
            return;
        }
        let (mut piece, mut line) = (first / self.lines, first % self.lines);
        for _ in first..last {
            let at = self.start.wrapping_add(piece * self.stride + line * 64);
            // SAFETY: fetching has no effect but on time, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            line += 1;
            if line == self.lines {
                (piece, line) = (piece + 1, 0);
            }
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
    /// For packed lines and for lines as they lie, by the number of vectors of the tile, less one.
    kernels: [[Kernel; 3]; 2],
    /// Whether lines of the left factor can be read as they lie.
    as_it_lies: bool,
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
            kernels: match unit {
                Unit::Value | Unit::Rounded => [
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
                Unit::Pair => [
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
            as_it_lies: lies_in_units(left, range, unit),
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
        let (m, n, units) = (self.left.shape[0], self.columns.shape[0], self.units);
        let left = Panels::new(m.next_multiple_of(GROUP) * units);
        self.each(m.div_ceil(GROUP), 0, |_, group| {
            self.pack_rows(group * GROUP, left.at(group * GROUP * units, GROUP * units));
        });
        self.each(n.div_ceil(COLUMNS), units * COLUMNS, |panel, p| {
            let panel = panel.at(0, units * COLUMNS);
            self.pack_columns(p * COLUMNS, panel);
            let ahead = Ahead::of(self.columns, (p + 1) * COLUMNS, COLUMNS, self.range);
            let tiles = m.div_ceil(ROWS);
            for (tile, row) in (0..m).step_by(ROWS).enumerate() {
                ahead.fetch(tile, tiles);
                let rows = Left::packed(left.at(row * units, ROWS * units));
                self.tile(rows, panel, [row, p * COLUMNS]);
            }
        });
    }

    /// All of the right factor.
    fn packed_right(&self) -> Panels {
        let (n, units) = (self.columns.shape[0], self.units);
        let shared = Panels::new(n.next_multiple_of(COLUMNS) * units);
        self.each(n.div_ceil(COLUMNS), 0, |_, p| {
            self.pack_columns(p * COLUMNS, shared.at(p * COLUMNS * units, COLUMNS * units));
        });
        shared
    }

    /// Packs all of the right factor once; every task takes 64 rows of the left one.
    fn share_right(&self) {
        let m = self.left.shape[0];
        let shared = self.packed_right();
        let rows_per_task = ROW_GROUPS * GROUP;
        self.each(m.div_ceil(rows_per_task), self.units * GROUP, |scratch, task| {
            let first = task * rows_per_task;
            self.rows_times(&shared, scratch, [first, (first + rows_per_task).min(m)]);
        });
    }

    /// Rows `first..last` of the left factor times the right one as it was packed. `scratch` has room
    /// for 16 lines.
    fn rows_times(&self, shared: &Panels, scratch: &Panels, [first, last]: [usize; 2]) {
        let (n, units) = (self.columns.shape[0], self.units);
        let panels = n.div_ceil(COLUMNS);
        for row in (first..last).step_by(GROUP) {
            let rows = last.min(row + GROUP) - row;
            let lines = self.sixteen_lines(row, rows, scratch);
            let ahead = Ahead::of(
                self.left,
                row + GROUP,
                GROUP.min(last.saturating_sub(row + GROUP)),
                self.range,
            );
            for p in 0..panels {
                ahead.fetch(p, panels);
                let columns = shared.at(p * COLUMNS * units, COLUMNS * units);
                for (lines, at) in lines.iter().zip((0..rows).step_by(ROWS)) {
                    self.tile(*lines, columns, [row + at, p * COLUMNS]);
                }
            }
        }
    }

    /// `count` lines of the left factor from `row` on, eight and eight: as they lie where the kernels
    /// can read them so, otherwise in `scratch`.
    fn sixteen_lines(&self, row: usize, count: usize, scratch: &Panels) -> [Left; 2] {
        let [down, along] = self.left.strides;
        if self.as_it_lies && count == GROUP {
            let (start, line) = match self.left.data {
                Floats::F32(values) => (values[row * down + self.range[0]..].as_ptr().cast(), down),
                Floats::Bf16(values) => (values[row * down + self.range[0]..].as_ptr().cast::<u32>(), down / 2),
            };
            // Sixteen whole lines lie inside of the factor.
            return [0, ROWS].map(|first| Left {
                start: start.wrapping_add(first * line),
                line,
            });
        }
        let units = self.units;
        let room = scratch.at(0, GROUP * units);
        if along == 1 {
            let line = units;
            // SAFETY: the machine has been checked and there are `count` lines from `row` on; the room
            // holds sixteen lines.
            unsafe { lay(self.left, [row, count], self.range, self.unit, room) };
            return [0, ROWS].map(|first| Left {
                start: room.wrapping_add(first * line),
                line,
            });
        }
        self.pack_rows(row, room);
        [0, ROWS].map(|first| Left::packed(room.wrapping_add(first * units)))
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
    fn tile(&self, rows: Left, columns: *const u32, at: [usize; 2]) {
        let count = [
            (self.left.shape[0] - at[0]).min(ROWS),
            (self.columns.shape[0] - at[1]).min(COLUMNS),
        ];
        let kernel = self.kernels[usize::from(rows.line > 0)][(count[1] - 1) / GROUP];
        // SAFETY: both factors hold `units` units; `at` plus `count` lies inside the result, whose
        // size `super::product` has checked, and no other task writes there.
        unsafe { kernel(self.units, rows, columns, self.target, at, count) }
    }
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, |$sum:ident, $left:ident, $right:ident| $step:expr) => {
        $(#[$doc])*
        ///
        /// Writes (or adds) the first `count` rows and columns of the tile at `at` of the target.
        ///
        /// # Safety
        /// The machine has AVX-512 F, BW, VL and BF16; `rows` holds `units` units of 8 lines, as they lie if
        /// `RAW`, `columns` `units` times 48, on the bounds of cache lines, of which the first `16 V` are
        /// multiplied; the tile lies inside the target, and nothing else accesses that part of it.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn $name<const RAW: bool, const V: usize>(
            units: usize,
            rows: Left,
            columns: *const u32,
            target: Target,
            at: [usize; 2],
            count: [usize; 2],
        ) {
            let first = target.data.wrapping_add(at[0] * target.stride + at[1]);
            // What will be written comes near while the products are summed up.
            for i in 0..count[0] {
                for j in 0..V {
                    _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * target.stride + GROUP * j).cast());
                }
            }
            let (unit, line) = if RAW { (1, rows.line) } else { (ROWS, 1) };
            let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
            for u in 0..units {
                // SAFETY: u is below `units`.
                unsafe {
                    let column = columns.add(u * COLUMNS);
                    let right: [__m512i; V] =
                        std::array::from_fn(|j| _mm512_load_si512(column.add(j * GROUP).cast()));
                    // Eight units on, perhaps in the next panel: a fetch may go anywhere.
                    for j in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(column.wrapping_add(8 * COLUMNS + j * GROUP).cast());
                    }
                    let row = rows.start.add(u * unit);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let $left = _mm512_set1_epi32(row.add(i * line).read_unaligned() as i32);
                        for (sum, $right) in sums.iter_mut().zip(right) {
                            let $sum = *sum;
                            *sum = $step;
                        }
                    }
                }
            }
            let masks: [u16; V] =
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
