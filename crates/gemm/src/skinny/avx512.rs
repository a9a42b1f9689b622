//! The product on AVX-512: up to four rows with one weight row after another, or up to eight rows with two.
//!
//! A weight row is read from memory once, in steps of 32 values; a single stream is what the hardware prefetcher
//! follows best. From three rows on, where multiplications delay the hardware, and on Intel's processors always, weight
//! rows are prefetched in software; from five rows on, two weight rows share each load of a row. An element's sum has
//! one order in all of these. The sums of four weight rows are reduced across their vectors together. A bf16 value
//! becomes f32 by 16 zero bits behind it, so of a vector of bf16 the odd values need a mask and the even ones a shift;
//! the rows are rearranged once to match: of each 32 values the even ones first.

use super::{LATE_ROWS, PREFETCH_DISTANCE, Rows, TILE, padded, tiles};
use crate::FloatSlice;
use half::bf16;
use std::arch::x86_64::*;

/// Values of a step; rows are padded to a multiple of it.
const STEP: usize = 2 * LANES;

/// Values of a vector.
const LANES: usize = 16;

/// Rows that are multiplied at a time, at most: their sums with two weight rows fit the registers.
const MAX_ROWS: usize = 8;

/// Calls a kernel with the number of rows as a constant, and more weight rows at a time for many of them; and for few
/// that do not see the weight rows first, where the sums' latency is what takes the time.
macro_rules! by_rows {
    ($kernel:ident, $rows:expr, $is_first:expr, $($arguments:expr),*) => {
        match ($rows, $is_first) {
            (1, true) => $kernel::<1, 1>($($arguments),*, $is_first),
            (1, false) => $kernel::<1, 4>($($arguments),*, $is_first),
            (2, true) => $kernel::<2, 1>($($arguments),*, $is_first),
            (2, false) => $kernel::<2, 4>($($arguments),*, $is_first),
            (3, true) => $kernel::<3, 1>($($arguments),*, $is_first),
            (3, false) => $kernel::<3, 4>($($arguments),*, $is_first),
            (4, true) => $kernel::<4, 1>($($arguments),*, $is_first),
            (4, false) => $kernel::<4, 4>($($arguments),*, $is_first),
            (5, _) => $kernel::<5, 2>($($arguments),*, $is_first),
            (6, _) => $kernel::<6, 2>($($arguments),*, $is_first),
            (7, _) => $kernel::<7, 2>($($arguments),*, $is_first),
            _ => $kernel::<MAX_ROWS, 2>($($arguments),*, $is_first),
        }
    };
}

implementation!();

macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $T:ty,
        |$weight:ident, $mask:ident| $load:expr
    ) => {
        $(#[$doc])*
        /// `tile` are up to four weight rows; their results start at `column` of the rows of `to`, which are
        /// `stride` apart.
        ///
        /// # Safety
        /// The machine has AVX-512 F, BW and VL.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
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
            let mut found = [[_mm512_setzero_ps(); TILE]; R];
            for first in (0..some).step_by(W) {
                // Beyond the last weight row the last one again: its sums are not written.
                let starts: [*const $T; W] = std::array::from_fn(|l| tile[(first + l).min(some - 1) * k..].as_ptr());
                let mut sums = [[_mm512_setzero_ps(); W]; R];
                let mut at = 0;
                while at < k {
                    let $mask = u32::MAX >> (STEP - (k - at).min(STEP));
                    // SAFETY: `at` plus the step is at most `padded`, the length of each row; lanes of a
                    // weight row from `k` on are masked out, and a prefetch reads nothing.
                    unsafe {
                        let mut values = [[_mm512_setzero_ps(); 2]; W];
                        for (values, start) in values.iter_mut().zip(starts) {
                            let $weight = start.add(at);
                            if prefetch {
                                let ahead = $weight.cast::<u8>().wrapping_add(PREFETCH_DISTANCE);
                                for i in 0..(STEP * size_of::<$T>()).div_ceil(64) {
                                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * i).cast());
                                }
                            }
                            *values = $load;
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let row = rows.as_ptr().add(r * padded + at);
                            let (left, right) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(STEP / 2)));
                            for (sum, values) in sums.iter_mut().zip(values) {
                                *sum = _mm512_fmadd_ps(left, values[0], *sum);
                                *sum = _mm512_fmadd_ps(right, values[1], *sum);
                            }
                        }
                    }
                    at += STEP;
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
                let to = &mut to[column..column + some];
                // SAFETY: `some` values lie inside the row; the rest is masked out.
                unsafe { _mm_mask_storeu_ps(to.as_mut_ptr(), (1 << some) - 1, summed(found)) };
            }
        }
    };
}

kernel!(
    /// R rows times weight rows of f32 values.
    multiply_f32, f32,
    |weight, mask| [
        _mm512_maskz_loadu_ps(mask as u16, weight),
        _mm512_maskz_loadu_ps((mask >> 16) as u16, weight.wrapping_add(STEP / 2)),
    ]
);

kernel!(
    /// R rows, of every 32 values the even ones first, times weight rows of bf16 values.
    multiply_bf16, bf16,
    |weight, mask| {
        let values = _mm512_maskz_loadu_epi16(mask, weight.cast());
        let odd = _mm512_and_si512(values, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(values)), _mm512_castsi512_ps(odd)]
    }
);

/// The sums over the lanes of each vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn summed([a, b, c, d]: [__m512; TILE]) -> __m128 {
    // In each 128-bit part: a, b, a, b, then c, d, c, d, then a, b, c, d.
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let all = _mm512_add_ps(
        _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
        _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
    );
    let half = _mm256_add_ps(_mm512_castps512_ps256(all), upper_half(all));
    _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half))
}

/// The upper half; AVX-512 F alone has it for f64 only.
#[target_feature(enable = "avx512f")]
#[inline]
fn upper_half(x: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)))
}
