//! What becomes of blocks of logits, while the tiles compute the next block.

use crate::simd::exp_not_positive;
use std::marker::PhantomData;
use wmtp_gemm::simd::rounded_bits;
use wmtp_gemm::tiles::{Ahead, BLOCK, Epilogue, Panels, ROWS, Sums, Tile, VALUES};

/// Lines of a block that are done at a time: enough to hide the call, few enough for the processor to overlap them
/// with the tiles.
const LINES: usize = 4;

/// A row's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    /// Index of the row in the batch.
    pub row: usize,
    /// Index of the token in the stripe.
    pub token: usize,
}

/// Which block is done, and how far.
#[derive(Default)]
struct Progress {
    /// First token of the stripe and first row of the block whose sums there are, and of the one that is computed.
    block: Option<[usize; 2]>,
    next: Option<[usize; 2]>,
    done: usize,
}

impl Progress {
    fn begin(&mut self, next: Option<[usize; 2]>) {
        (self.block, self.done) = (self.next, 0);
        self.next = next.map(|groups| groups.map(|group| group * ROWS));
    }

    /// The block, and lines of it that are done now: a share or all that are left.
    #[inline(always)]
    fn lines(&mut self, count: usize) -> Option<([usize; 2], [usize; 2])> {
        let first = self.done;
        self.done = BLOCK.min(first + count);
        match self.block {
            Some(block) if first < BLOCK => Some((block, [first, self.done])),
            _ => None,
        }
    }
}

/// The work on some lines of a block, as a loop that compiles to vector instructions.
trait TakeLines {
    /// Lines `lines[0]..lines[1]` of the block that begins with token and row `block`.
    fn take_lines(&mut self, block: [usize; 2], lines: [usize; 2], sums: &Sums);
}

/// [`TakeLines::take_lines`], compiled for AVX-512.
///
/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn take_lines_avx512<T: TakeLines>(it: &mut T, block: [usize; 2], lines: [usize; 2], sums: &Sums) {
    it.take_lines(block, lines, sums);
}

/// The same on any machine: `vectorized` would ask what the machine has more often than there is time for.
#[inline(always)]
fn take_lines<T: TakeLines>(it: &mut T, has_avx512: bool, block: [usize; 2], lines: [usize; 2], sums: &Sums) {
    if has_avx512 {
        // SAFETY: the machine has AVX-512.
        unsafe { take_lines_avx512(it, block, lines, sums) }
    } else {
        it.take_lines(block, lines, sums);
    }
}

/// The first pass: each row's largest logit, its sum of exponentials relative to that, and labels' logits.
pub(super) struct Statistics<'a> {
    /// Tokens of the stripe.
    tokens: usize,
    max: &'a mut [f32],
    sums: &'a mut [f32],
    /// Those that are left, in the order of blocks.
    labels: &'a [Label],
    /// Their rows and logits.
    found: &'a mut Vec<(usize, f32)>,
    ahead: Ahead,
    progress: Progress,
    has_avx512: bool,
}

impl<'a> Statistics<'a> {
    /// `max` and `sums` have a value for each row, and zeros to whole blocks.
    pub fn new(
        tokens: usize,
        [max, sums]: [&'a mut [f32]; 2],
        labels: &'a [Label],
        found: &'a mut Vec<(usize, f32)>,
        ahead: Ahead,
    ) -> Self {
        Self {
            tokens,
            max,
            sums,
            labels,
            found,
            ahead,
            progress: Progress::default(),
            has_avx512: has_avx512(),
        }
    }

    fn take(&mut self, count: usize, sums: &Sums) {
        if let Some((block, lines)) = self.progress.lines(count) {
            if lines[0] == 0 {
                self.take_labels(block, sums);
            }
            take_lines(self, self.has_avx512, block, lines, sums);
        }
    }

    fn take_labels(&mut self, [token, row]: [usize; 2], sums: &Sums) {
        while let Some((label, left)) = self.labels.split_first() {
            let (Some(line), Some(column)) = (label.token.checked_sub(token), label.row.checked_sub(row)) else {
                return;
            };
            if line >= BLOCK || column >= BLOCK {
                return;
            }
            self.found.push((label.row, sums.row(line)[column]));
            self.labels = left;
        }
    }
}

impl TakeLines for Statistics<'_> {
    #[inline(always)]
    fn take_lines(&mut self, [token, row]: [usize; 2], [first, last]: [usize; 2], block: &Sums) {
        let lines = self.tokens - token;
        let maxima: &mut [f32; BLOCK] = (&mut self.max[row..row + BLOCK]).try_into().expect("a block");
        let sums: &mut [f32; BLOCK] = (&mut self.sums[row..row + BLOCK]).try_into().expect("a block");
        let (mut max, mut sum) = (*maxima, *sums);
        if first == 0 {
            for line in 0..lines.min(BLOCK) {
                for (max, logit) in max.iter_mut().zip(block.row(line)) {
                    *max = if *logit > *max { *logit } else { *max };
                }
            }
            for ((sum, max), before) in sum.iter_mut().zip(&max).zip(&*maxima) {
                *sum *= exp_not_positive(*before - *max);
            }
            *maxima = max;
        }
        for line in first..last.min(lines) {
            for ((sum, max), logit) in sum.iter_mut().zip(&max).zip(block.row(line)) {
                *sum += exp_not_positive(*logit - *max);
            }
        }
        *sums = sum;
    }
}

impl Epilogue for Statistics<'_> {
    #[inline(always)]
    fn begin(&mut self, next: Option<[usize; 2]>, _steps: usize) {
        self.progress.begin(next);
    }

    #[inline(always)]
    fn step(&mut self, sums: &Sums) {
        self.take(LINES, sums);
        self.ahead.step();
    }

    #[inline(always)]
    fn finish(&mut self, sums: &Sums) {
        self.take(BLOCK, sums);
    }
}

/// Memory for the gradient of logits in two layouts, which several threads fill, each its own rows.
#[derive(Clone, Copy)]
pub(super) struct GradientTiles<'a> {
    /// `[tokens of a stripe, rows]`
    left: *mut Tile,
    /// `[rows, tokens of several stripes]`
    right: *mut Tile,
    rows: usize,
    tokens: usize,
    room: [usize; 2],
    lifetime: PhantomData<&'a mut [Tile]>,
}

// SAFETY: each row is written by the one task that computes it.
unsafe impl Send for GradientTiles<'_> {}
// SAFETY: as above.
unsafe impl Sync for GradientTiles<'_> {}

impl<'a> GradientTiles<'a> {
    /// For `rows` and `tokens`, multiples of 32; the left room may be that of fewer tokens.
    ///
    /// # Panics
    /// If the right room is too small.
    pub fn new(left: &'a mut [Tile], right: &'a mut [Tile], [rows, tokens]: [usize; 2]) -> Self {
        assert!(rows / ROWS * (tokens / VALUES) <= right.len() && [rows % BLOCK, tokens % BLOCK] == [0, 0]);
        Self {
            left: left.as_mut_ptr(),
            right: right.as_mut_ptr(),
            rows,
            tokens,
            room: [left.len(), right.len()],
            lifetime: PhantomData,
        }
    }

    /// The left factor of dW: `tokens` lines of all rows.
    pub fn left(&self, tokens: usize) -> Panels {
        // SAFETY: the memory is borrowed for as long as this lives.
        let room = unsafe { std::slice::from_raw_parts(self.left, self.room[0]) };
        Panels::new(room, tokens.div_ceil(ROWS), self.rows / VALUES)
    }

    /// The right factor of dX: a line of `tokens` values for each row.
    pub fn right(&self, tokens: usize) -> Panels {
        // SAFETY: as above.
        let room = unsafe { std::slice::from_raw_parts(self.right, self.room[1]) };
        Panels::new(room, self.rows / ROWS, self.tokens / VALUES).between(0, tokens.div_ceil(VALUES))
    }

    /// The left tile of a token of the stripe and a row.
    #[inline(always)]
    fn left_tile(&self, token: usize, row: usize) -> *mut Tile {
        let tile = token / ROWS * (self.rows / VALUES) + row / VALUES;
        assert!(tile < self.room[0]);
        self.left.wrapping_add(tile)
    }

    /// The right tile of a row and a token of all stripes.
    #[inline(always)]
    fn right_tile(&self, row: usize, token: usize) -> *mut Tile {
        let tile = row / ROWS * (self.tokens / VALUES) + token / VALUES;
        assert!(tile < self.room[1]);
        self.right.wrapping_add(tile)
    }

    /// Sets the gradient at a label of the stripe whose first token is `offset`.
    ///
    /// # Safety
    /// No other thread accesses the label's row or its token.
    pub unsafe fn set(&self, offset: usize, label: Label, value: f32) {
        let Label { row, token } = label;
        let value = (rounded_bits(value) >> 16) as u16;
        let left = self.left_tile(token, row).cast::<[[u16; VALUES]; ROWS]>();
        let right = self.right_tile(row, offset + token).cast::<[[[u16; 2]; ROWS]; ROWS]>();
        let token_of_tile = (offset + token) % VALUES;
        // SAFETY: both tiles exist, and no other thread accesses their rows' values.
        unsafe {
            (&raw mut (*left)[token % ROWS][row % VALUES]).write(value);
            (&raw mut (*right)[token_of_tile / 2][row % ROWS][token_of_tile % 2]).write(value);
        }
    }
}

/// The second pass: logits become their gradient `factor * exp(logit - max)`, in both layouts.
pub(super) struct LogitGradient<'a> {
    tiles: GradientTiles<'a>,
    /// The stripe's first token in the right layout, and the number of its tokens.
    offset: usize,
    tokens: usize,
    /// The first row of those that are computed.
    first_row: usize,
    max: &'a [f32],
    factors: &'a [f32],
    progress: Progress,
    has_avx512: bool,
}

impl<'a> LogitGradient<'a> {
    /// `max` and `factors` have a value for each row from `first_row` on.
    pub fn new(
        tiles: GradientTiles<'a>,
        offset: usize,
        tokens: usize,
        first_row: usize,
        [max, factors]: [&'a [f32]; 2],
    ) -> Self {
        Self {
            tiles,
            offset,
            tokens,
            first_row,
            max,
            factors,
            progress: Progress::default(),
            has_avx512: has_avx512(),
        }
    }

    fn take(&mut self, count: usize, sums: &Sums) {
        if let Some((block, lines)) = self.progress.lines(count) {
            take_lines(self, self.has_avx512, block, lines, sums);
        }
    }
}

impl LogitGradient<'_> {
    /// The gradient of a line of a block, as [`rounded_bits`]. (A closure would not be compiled for AVX-512.)
    #[inline(always)]
    fn gradient(
        &self,
        block: &Sums,
        [token, line]: [usize; 2],
        max: &[f32; BLOCK],
        factors: &[f32; BLOCK],
    ) -> [u32; BLOCK] {
        let exists = if token + line < self.tokens { u32::MAX } else { 0 };
        let mut bits = [0; BLOCK];
        for (((bits, logit), max), factor) in bits.iter_mut().zip(block.row(line)).zip(max).zip(factors) {
            *bits = rounded_bits(factor * exp_not_positive(*logit - *max)) & exists;
        }
        bits
    }
}

impl TakeLines for LogitGradient<'_> {
    /// Both lines are even. Tokens beyond the stripe's last get zeros.
    #[inline(always)]
    fn take_lines(&mut self, [token, row]: [usize; 2], [first, last]: [usize; 2], block: &Sums) {
        let max: &[f32; BLOCK] = self.max[row..row + BLOCK].try_into().expect("a block");
        let factors: &[f32; BLOCK] = self.factors[row..row + BLOCK].try_into().expect("a block");
        let row = self.first_row + row;
        let right = [row, row + ROWS].map(|row| self.tiles.right_tile(row, self.offset + token));
        let left = [token, token + ROWS].map(|token| self.tiles.left_tile(token, row));
        for line in (first..last).step_by(2) {
            let bits = [
                self.gradient(block, [token, line], max, factors),
                self.gradient(block, [token, line + 1], max, factors),
            ];
            for (line, bits) in (line..).zip(&bits) {
                let mut values = [0_u16; BLOCK];
                for (value, bits) in values.iter_mut().zip(bits) {
                    *value = (bits >> 16) as u16;
                }
                let to = left[line / ROWS].cast::<[[u16; VALUES]; ROWS]>();
                // SAFETY: the tile exists, and this is the only thread that accesses values of these rows.
                unsafe { (&raw mut (*to)[line % ROWS]).write(values) };
            }
            for (half, to) in right.into_iter().enumerate() {
                let mut pairs = [0_u32; ROWS];
                for (i, pair) in pairs.iter_mut().enumerate() {
                    let [low, high] = [bits[0][half * ROWS + i], bits[1][half * ROWS + i]];
                    *pair = low >> 16 | high & 0xffff_0000;
                }
                let to = to.cast::<[[u32; ROWS]; ROWS]>();
                // SAFETY: as above.
                unsafe { (&raw mut (*to)[line / 2]).write(pairs) };
            }
        }
    }
}

impl Epilogue for LogitGradient<'_> {
    #[inline(always)]
    fn begin(&mut self, next: Option<[usize; 2]>, _steps: usize) {
        self.progress.begin(next);
    }

    #[inline(always)]
    fn step(&mut self, sums: &Sums) {
        self.take(LINES, sums);
    }

    #[inline(always)]
    fn finish(&mut self, sums: &Sums) {
        self.take(BLOCK, sums);
    }
}

fn has_avx512() -> bool {
    wmtp_gemm::Isa::Avx512.is_present()
}
