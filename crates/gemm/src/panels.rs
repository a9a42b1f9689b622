//! Memory for packed panels, and prefetching of what will be packed next.

use crate::{FloatSlice, MatrixView};
use std::arch::x86_64::*;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// 32-bit lanes of a cache line.
const GROUP: usize = CACHE_LINE / 4;

/// Panels start on cache lines, so that no vector that is read from them crosses two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u32; GROUP]);

/// Uninitialised memory for packed panels. Several threads may fill it, each its own part, before any of them
/// reads it.
pub struct Panels(Vec<UnsafeCell<MaybeUninit<CacheLine>>>);

// SAFETY: parts that are filled at the same time do not overlap, and reading starts after filling.
unsafe impl Sync for Panels {}

impl Panels {
    /// Room for `length` 32-bit lanes.
    pub fn new(length: usize) -> Self {
        let lines = length.div_ceil(GROUP);
        let mut panels = Vec::with_capacity(lines);
        // SAFETY: the capacity is there, and cache lines need not be initialised.
        unsafe { panels.set_len(lines) };
        Self(panels)
    }

    /// The address of lane `index`, followed by at least `room` lanes.
    pub fn at(&self, index: usize, room: usize) -> *mut u32 {
        assert!(index + room <= self.0.len() * GROUP);
        self.0.as_ptr().cast::<u32>().wrapping_add(index).cast_mut()
    }
}

/// Rows that will be packed next. They are prefetched into the L2 cache while the rows before them are
/// multiplied, because packing itself is bound by memory latency.
pub struct Prefetch {
    start: *const u8,
    /// Contiguous runs of memory, their distance in bytes, and the cache lines of each.
    runs: usize,
    stride: usize,
    lines: usize,
}

impl Prefetch {
    /// Values `from..to` of `count` rows from `first` on, of those that exist.
    pub fn of(rows: MatrixView<'_>, first: usize, count: usize, [from, to]: [usize; 2]) -> Self {
        let (start, size) = match rows.data {
            FloatSlice::F32(values) => (values.as_ptr().cast::<u8>(), size_of::<f32>()),
            FloatSlice::Bf16(values) => (values.as_ptr().cast(), size_of::<half::bf16>()),
        };
        let count = count.min(rows.shape[0].saturating_sub(first));
        let [row_stride, stride] = rows.strides;
        let (runs, run_stride, length) = match (stride, row_stride) {
            (1, _) => (count, row_stride, to - from),
            (_, 1) => (to - from, stride, count),
            _ => (0, 0, 0),
        };
        Self {
            start: start.wrapping_add((first * row_stride + from * stride) * size),
            runs,
            stride: run_stride * size,
            lines: (length * size).div_ceil(CACHE_LINE),
        }
    }

    /// Prefetches the `share`th of `of` equal shares.
    pub fn fetch(&self, share: usize, of: usize) {
        let all = self.runs * self.lines;
        let (first, last) = (share * all / of, (share + 1) * all / of);
        if first == last {
            return;
        }
        let (mut run, mut line) = (first / self.lines, first % self.lines);
        for _ in first..last {
            let at = self.start.wrapping_add(run * self.stride + line * CACHE_LINE);
            // SAFETY: a prefetch affects nothing but time, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            line += 1;
            if line == self.lines {
                (run, line) = (run + 1, 0);
            }
        }
    }
}
