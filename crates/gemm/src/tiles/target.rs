//! Results in memory: the epilogue that writes sums to them, and fetches ahead what is packed next.

use super::{
    block::{BLOCK, Epilogue, Sums},
    pack::rounded,
    unit::ROWS,
};
use crate::{FloatSlice, MatrixView};
use half::bf16;
use std::arch::x86_64::*;

/// How sums are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In place of what is there, f32.
    Set,
    /// The same past the caches, where the address allows it: for results that are not read again soon.
    Stream,
    /// Added to what is there, f32.
    Add,
    /// In place of what is there, rounded to bf16.
    Rounded,
}

/// A result matrix that several threads write to, each its own blocks.
#[derive(Clone, Copy)]
pub struct Target {
    /// The first element.
    pub data: *mut u8,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Elements from a row to the next.
    pub stride: usize,
    /// Which also says how large an element is.
    pub kind: Kind,
}

// SAFETY: each block is written by the one task that computes it.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> *mut u8 {
        let size = if self.kind == Kind::Rounded { 2 } else { 4 };
        self.data.wrapping_add((row * self.stride + column) * size)
    }

    /// Rows `rows[0]` to `rows[1]` and the like columns, as far as they exist.
    pub fn part(self, rows: [usize; 2], columns: [usize; 2]) -> Self {
        let rows = rows.map(|row| row.min(self.rows));
        let columns = columns.map(|column| column.min(self.columns));
        Self {
            data: self.at(rows[0], columns[0]),
            rows: rows[1] - rows[0],
            columns: columns[1] - columns[0],
            ..self
        }
    }

    /// Writes rows `first..last` of a block, which this is.
    ///
    /// # Safety
    /// Nothing else accesses these rows; there are at most 32 columns and rows.
    unsafe fn write(&self, sums: &Sums, first: usize, last: usize) {
        if crate::processor::has_avx512_bf16() {
            // SAFETY: the machine has AVX-512; by the caller's promise.
            return unsafe { self.write_vectors(sums, first, last) };
        }
        for i in first..last {
            for (j, &sum) in sums.row(i).iter().enumerate().take(self.columns) {
                let to = self.at(i, j).cast::<f32>();
                // SAFETY: by the caller's promise.
                unsafe {
                    match self.kind {
                        Kind::Set | Kind::Stream => to.write(sum),
                        Kind::Add => to.write(to.read() + sum),
                        Kind::Rounded => to.cast::<bf16>().write(rounded(sum)),
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Target::write`]; the machine has AVX-512 F, BW, VL and BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn write_vectors(&self, sums: &Sums, first: usize, last: usize) {
        let mask = ((1_u64 << self.columns) - 1) as u32;
        let halves = [mask as u16, (mask >> ROWS) as u16];
        for i in first..last {
            let to = self.at(i, 0).cast::<f32>();
            let row = sums.row(i).as_ptr();
            // SAFETY: by the caller's promise; what is beyond the columns is masked out.
            unsafe {
                let values = [_mm512_load_ps(row), _mm512_load_ps(row.add(ROWS))];
                match self.kind {
                    Kind::Rounded => {
                        let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(values[1], values[0]));
                        _mm512_mask_storeu_epi16(to.cast(), mask, both);
                    }
                    Kind::Stream if mask == u32::MAX && to.addr() % 64 == 0 => {
                        _mm512_stream_ps(to, values[0]);
                        _mm512_stream_ps(to.wrapping_add(ROWS), values[1]);
                    }
                    Kind::Set | Kind::Stream => {
                        _mm512_mask_storeu_ps(to, halves[0], values[0]);
                        _mm512_mask_storeu_ps(to.wrapping_add(ROWS), halves[1], values[1]);
                    }
                    Kind::Add => {
                        for (j, (value, mask)) in values.into_iter().zip(halves).enumerate() {
                            let to = to.wrapping_add(ROWS * j);
                            let sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), value);
                            _mm512_mask_storeu_ps(to, mask, sum);
                        }
                    }
                }
            }
        }
    }
}

/// Writes the sums to a target, some rows with each step, and fetches what is wanted next.
pub struct Writer {
    target: Target,
    /// The block whose sums there are, and the one that is computed.
    block: Target,
    next: Target,
    written: usize,
    /// Rows that are written in a step.
    rows: usize,
    ahead: Ahead,
}

impl Writer {
    /// # Safety
    /// Nothing else accesses the target while this is used.
    pub unsafe fn new(target: Target, ahead: Ahead) -> Self {
        let none = Target { rows: 0, ..target };
        Self {
            target,
            block: none,
            next: none,
            written: 0,
            rows: 0,
            ahead,
        }
    }

    #[inline(always)]
    fn write(&mut self, rows: usize, sums: &Sums) {
        let last = self.block.rows.min(self.written + rows);
        if self.written < last {
            // SAFETY: by the promise to `new`; a block has 32 rows and columns at most.
            unsafe { self.block.write(sums, self.written, last) };
            self.written = last;
        }
    }
}

impl Epilogue for Writer {
    #[inline(always)]
    fn begin(&mut self, next: Option<[usize; 2]>, steps: usize) {
        (self.block, self.written) = (self.next, 0);
        self.next = match next {
            Some(groups) => {
                let [rows, columns] = groups.map(|group| [group * ROWS, group * ROWS + BLOCK]);
                self.target.part(rows, columns)
            }
            None => Target { rows: 0, ..self.target },
        };
        self.rows = BLOCK.div_ceil(steps.max(1));
    }

    #[inline(always)]
    fn step(&mut self, sums: &Sums) {
        self.write(self.rows, sums);
        self.ahead.step();
    }

    #[inline(always)]
    fn finish(&mut self, sums: &Sums) {
        self.write(BLOCK, sums);
        if self.next.rows == 0 && self.target.kind == Kind::Stream {
            // What went past the caches is there before anything that the thread writes from now on.
            // SAFETY: every processor with tiles or AVX-512 has the instruction.
            unsafe { _mm_sfence() };
        }
    }
}

/// Fetches memory that is wanted next into the second cache, a little with each step.
pub struct Ahead {
    at: *const u8,
    /// Runs of memory that are left, bytes from one to the next, and cache lines of each.
    runs: usize,
    stride: usize,
    lines: usize,
    /// The cache line of the run that is next.
    next: usize,
    /// Cache lines in a step.
    each: usize,
}

impl Ahead {
    /// Nothing.
    pub const NOTHING: Self = Self {
        at: std::ptr::null(),
        runs: 0,
        stride: 0,
        lines: 0,
        next: 0,
        each: 0,
    };

    /// A matrix whose rows or columns are contiguous, in `steps` steps.
    pub fn of(matrix: MatrixView<'_>, steps: usize) -> Self {
        let (at, size) = match matrix.data {
            FloatSlice::F32(values) => (values.as_ptr().cast::<u8>(), size_of::<f32>()),
            FloatSlice::Bf16(values) => (values.as_ptr().cast(), size_of::<bf16>()),
        };
        let ([rows, columns], [row_stride, stride]) = (matrix.shape, matrix.strides);
        match (stride, row_stride) {
            (1, _) => Self::runs(at, [rows, row_stride * size, columns * size], steps),
            (_, 1) => Self::runs(at, [columns, stride * size, rows * size], steps),
            _ => Self::NOTHING,
        }
    }

    /// Contiguous memory, in `steps` steps.
    pub fn memory((at, bytes): (*const u8, usize), steps: usize) -> Self {
        Self::runs(at, [1, 0, bytes], steps)
    }

    fn runs(at: *const u8, [runs, stride, bytes]: [usize; 3], steps: usize) -> Self {
        let lines = bytes.div_ceil(64);
        if runs * lines == 0 {
            return Self::NOTHING;
        }
        Self {
            at,
            runs,
            stride,
            lines,
            next: 0,
            each: (runs * lines).div_ceil(steps.max(1)),
        }
    }

    /// The next share.
    #[inline(always)]
    pub fn step(&mut self) {
        for _ in 0..self.each {
            if self.runs == 0 {
                return;
            }
            let at = self.at.wrapping_add(64 * self.next);
            // SAFETY: a prefetch affects nothing but time, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            self.next += 1;
            if self.next == self.lines {
                (self.next, self.runs, self.at) = (0, self.runs - 1, self.at.wrapping_add(self.stride));
            }
        }
    }
}
