//! The product on AVX2: up to four rows with one weight row or with two, as on AVX-512 with vectors of half the width.
//!
//! A weight row is read in steps of 16 values; the last step of a row that is no multiple of it goes through a buffer.
//! From three rows on two weight rows share each load of a row. An element's sum has one order in all of these. Of a
//! vector of bf16 values the odd ones need a mask and the even ones a shift; the rows are rearranged once to match.

use super::{LATE_ROWS, PREFETCH_DISTANCE, Rows, TILE, padded, tiles};
use crate::FloatSlice;
use half::bf16;
use std::arch::x86_64::*;

/// Values of a vector.
const LANES: usize = 8;

/// Values of a step; rows are padded to a multiple of it.
const STEP: usize = 2 * LANES;

/// Rows that are multiplied at a time, at most: their sums with two weight rows fit the registers.
const MAX_ROWS: usize = 4;

/// Calls a kernel with the number of rows as a constant, and more weight rows at a time as on AVX-512.
macro_rules! by_rows {
    ($kernel:ident, $rows:expr, $is_first:expr, $($arguments:expr),*) => {
        match ($rows, $is_first) {
            (1, true) => $kernel::<1, 1>($($arguments),*, $is_first),
            (1, false) => $kernel::<1, 4>($($arguments),*, $is_first),
            (2, true) => $kernel::<2, 1>($($arguments),*, $is_first),
            (2, false) => $kernel::<2, 2>($($arguments),*, $is_first),
            (3, _) => $kernel::<3, 2>($($arguments),*, $is_first),
            _ => $kernel::<MAX_ROWS, 2>($($arguments),*, $is_first),
        }
    };
}

implementation!();

macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $T:ty, $zero:expr,
        |$weight:ident| $load:expr
    ) => {
        $(#[$doc])*
        /// `tile` are up to four weight rows; their results start at `column` of the rows of `to`, which are
        /// `stride` apart.
        ///
        /// # Safety
        /// The machine has AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const R: usize, const W: usize>(
            to: &mut [f32],
            [column, stride]: [usize; 2],
            rows: &[f32],
            tile: &[$T],
            k: usize,
            prefetch: bool,
        ) {
            let (padded, some) = (k.next_multiple_of(STEP), tile.len() / k);
            assert!(rows.len() == R * padded && some <= TILE && tile.len() == some * k);
            let prefetch = prefetch && (R >= LATE_ROWS || crate::processor::prefetches_early());
            let whole = k / STEP * STEP;
            let mut found = [[_mm256_setzero_ps(); TILE]; R];
            for first in (0..some).step_by(W) {
                // Beyond the last weight row the last one again: its sums are not written.
                let starts: [*const $T; W] = std::array::from_fn(|l| tile[(first + l).min(some - 1) * k..].as_ptr());
                let mut sums = [[_mm256_setzero_ps(); W]; R];
                let mut step = |at: usize, starts: [*const $T; W]| {
                    let mut values = [[_mm256_setzero_ps(); 2]; W];
                    for (values, $weight) in values.iter_mut().zip(starts) {
                        // SAFETY: the callers have 16 values there.
                        *values = unsafe { $load };
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: `at` plus the step is at most `padded`, the length of each row.
                        let [left, right] = unsafe {
                            let row = rows.as_ptr().add(r * padded + at);
                            [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(LANES))]
                        };
                        for (sum, values) in sums.iter_mut().zip(values) {
                            *sum = _mm256_fmadd_ps(left, values[0], *sum);
                            *sum = _mm256_fmadd_ps(right, values[1], *sum);
                        }
                    }
                };
                for at in (0..whole).step_by(STEP) {
                    let here = starts.map(|start| start.wrapping_add(at));
                    if prefetch {
                        for start in here {
                            let ahead = start.cast::<u8>().wrapping_add(PREFETCH_DISTANCE);
                            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        }
                    }
                    step(at, here);
                }
                if whole < k {
                    let mut rest = [[$zero; STEP]; W];
                    for (l, rest) in rest.iter_mut().enumerate() {
                        let row = (first + l).min(some - 1) * k;
                        rest[..k - whole].copy_from_slice(&tile[row + whole..row + k]);
                    }
                    step(whole, std::array::from_fn(|l| rest[l].as_ptr()));
                }
                for (found, sums) in found.iter_mut().zip(sums) {
                    for (l, sum) in sums.into_iter().enumerate() {
                        if let Some(found) = found.get_mut(first + l) {
                            *found = sum;
                        }
                    }
                }
            }
            for (to, found) in to.chunks_mut(stride).zip(found) {
                let mut four = [0.0; TILE];
                // SAFETY: there is room for four values.
                unsafe { _mm_storeu_ps(four.as_mut_ptr(), summed(found)) };
                to[column..column + some].copy_from_slice(&four[..some]);
            }
        }
    };
}

kernel!(
    /// R rows times weight rows of f32 values.
    multiply_f32, f32, 0.0,
    |weight| [_mm256_loadu_ps(weight), _mm256_loadu_ps(weight.add(LANES))]
);

kernel!(
    /// R rows, of every 16 values the even ones first, times weight rows of bf16 values.
    multiply_bf16, bf16, bf16::ZERO,
    |weight| {
        let values = _mm256_loadu_si256(weight.cast());
        let odd = _mm256_and_si256(values, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(values)), _mm256_castsi256_ps(odd)]
    }
);

/// The sums over the lanes of each vector.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn summed([a, b, c, d]: [__m256; TILE]) -> __m128 {
    let all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all))
}
