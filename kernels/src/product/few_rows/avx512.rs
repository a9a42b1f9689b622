//! The product on AVX-512: up to six rows and four rows of the weight at a time, sixteen sums each.
//!
//! K is walked in steps of one vector of the weight: 16 f32 or 32 bf16 values. A bf16 value becomes
//! f32 by 16 zero bits behind it, so of a vector the odd values need a mask and the even ones a
//! shift; the rows are rearranged once to match: of each 32 values the even ones first.

use super::{Floats, TILE};
use half::bf16;
use std::arch::x86_64::*;
use std::borrow::Cow;

/// Values of a row that one or two vectors of it hold.
const STEP: usize = 32;

/// Rows that are multiplied at a time, at most: six times four sums stay in registers.
const MOST: usize = 4;

/// Lines of the weight between a value and the one that is fetched meanwhile: those of the next tile.
const AHEAD: usize = TILE;

/// Each row filled up with zeros to a multiple of 32 values; for a weight of bf16 values every 32
/// rearranged, the even ones first.
pub fn arranged<'a>(rows: &'a [f32], weight: Floats<'_>, k: usize) -> Cow<'a, [f32]> {
    let padded = k.next_multiple_of(STEP);
    let mut to = vec![0.0; rows.len() / k * padded];
    for (to, row) in to.chunks_exact_mut(padded).zip(rows.chunks_exact(k)) {
        match weight {
            Floats::F32(_) => to[..k].copy_from_slice(row),
            Floats::Bf16(_) => {
                for (to, step) in to.chunks_exact_mut(STEP).zip(row.chunks(STEP)) {
                    for (l, value) in step.iter().enumerate() {
                        to[l % 2 * (STEP / 2) + l / 2] = *value;
                    }
                }
            }
        }
    }
    Cow::Owned(to)
}

/// See [`super::Kernel`]; the rows as [`arranged`] leaves them. Only for machines with AVX-512 F, BW
/// and VL, which `super::rows_by_weight` has made sure of.
pub fn multiply(to: &mut [f32], rows: &[f32], weight: Floats<'_>, [first, count]: [usize; 2], [r, k]: [usize; 2]) {
    let padded = k.next_multiple_of(STEP);
    assert!(rows.len() == r * padded && weight.len() >= (first + count) * k && to.len() == r * count);
    // As even as possible: seven rows are four and three, not six and one.
    let group = r.div_ceil(r.div_ceil(MOST));
    for j in (0..count).step_by(TILE) {
        // Beyond the last row the last one again: its results are not written.
        let lines: [usize; TILE] = std::array::from_fn(|l| (first + (j + l).min(count - 1)) * k);
        for i in (0..r).step_by(group) {
            let here = group.min(r - i);
            let rows = &rows[i * padded..(i + here) * padded];
            let sums = match weight {
                Floats::F32(values) => {
                    let lines = lines.map(|at| &values[at..at + k]);
                    // SAFETY: the machine has been checked, and there are `here` rows.
                    unsafe {
                        by_rows(
                            here,
                            rows,
                            lines,
                            [tile_f32::<1>, tile_f32::<2>, tile_f32::<3>, tile_f32::<4>],
                        )
                    }
                }
                Floats::Bf16(values) => {
                    let lines = lines.map(|at| &values[at..at + k]);
                    // SAFETY: as above.
                    unsafe {
                        by_rows(
                            here,
                            rows,
                            lines,
                            [tile_bf16::<1>, tile_bf16::<2>, tile_bf16::<3>, tile_bf16::<4>],
                        )
                    }
                }
            };
            let some = TILE.min(count - j);
            for (l, sums) in sums.iter().enumerate().take(here) {
                to[(i + l) * count + j..][..some].copy_from_slice(&sums[..some]);
            }
        }
    }
}

/// A tile for a fixed number of rows: rows and four lines of the weight.
type Tile<T> = unsafe fn(&[f32], [&[T]; TILE]) -> [[f32; TILE]; MOST];

/// The tile for `count` rows, 1 to 6.
///
/// # Safety
/// As the tiles'.
#[inline]
unsafe fn by_rows<T>(count: usize, rows: &[f32], lines: [&[T]; TILE], tiles: [Tile<T>; MOST]) -> [[f32; TILE]; MOST] {
    // SAFETY: by the caller's promise.
    unsafe { tiles[count - 1](rows, lines) }
}

/// R rows times four lines of f32 values.
///
/// # Safety
/// The machine has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile_f32<const R: usize>(rows: &[f32], lines: [&[f32]; TILE]) -> [[f32; TILE]; MOST] {
    let k = lines[0].len();
    let padded = k.next_multiple_of(STEP);
    assert!(rows.len() == R * padded && lines.iter().all(|line| line.len() == k));
    let mut sums = [[_mm512_setzero_ps(); TILE]; R];
    for at in (0..k).step_by(16) {
        let mask = (0xffff_u32 >> 16_usize.saturating_sub(k - at)) as u16;
        // SAFETY: `at + 16` is at most `padded`, the length of each row; lanes of a line from `k` on
        // are masked out, and a prefetch reads nothing.
        unsafe {
            let mut line = [_mm512_setzero_ps(); TILE];
            for i in 0..TILE {
                let from = lines[i].as_ptr().add(at);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD * k).cast());
                line[i] = _mm512_maskz_loadu_ps(mask, from);
            }
            for r in 0..R {
                let row = _mm512_loadu_ps(rows.as_ptr().add(r * padded + at));
                for i in 0..TILE {
                    sums[r][i] = _mm512_fmadd_ps(row, line[i], sums[r][i]);
                }
            }
        }
    }
    summed(&sums)
}

/// R rows, of every 32 values the even ones first, times four lines of bf16 values.
///
/// # Safety
/// The machine has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile_bf16<const R: usize>(rows: &[f32], lines: [&[bf16]; TILE]) -> [[f32; TILE]; MOST] {
    let k = lines[0].len();
    let padded = k.next_multiple_of(STEP);
    assert!(rows.len() == R * padded && lines.iter().all(|line| line.len() == k));
    let mut sums = [[_mm512_setzero_ps(); TILE]; R];
    let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    for at in (0..k).step_by(STEP) {
        let mask = u32::MAX >> STEP.saturating_sub(k - at);
        // SAFETY: `at + 32` is at most `padded`, the length of each row; lanes of a line from `k` on
        // are masked out, and a prefetch reads nothing.
        unsafe {
            let mut pairs = [_mm512_setzero_si512(); TILE];
            for i in 0..TILE {
                let from = lines[i].as_ptr().add(at);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD * k).cast());
                pairs[i] = _mm512_maskz_loadu_epi16(mask, from.cast());
            }
            for r in 0..R {
                let row = rows.as_ptr().add(r * padded + at);
                let (even, odd) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16)));
                for i in 0..TILE {
                    let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs[i]));
                    let high = _mm512_castsi512_ps(_mm512_and_si512(pairs[i], high));
                    sums[r][i] = _mm512_fmadd_ps(odd, high, _mm512_fmadd_ps(even, low, sums[r][i]));
                }
            }
        }
    }
    summed(&sums)
}

/// The sums over the lanes of each vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn summed<const R: usize>(sums: &[[__m512; TILE]; R]) -> [[f32; TILE]; MOST] {
    let mut to = [[0.0; TILE]; MOST];
    for (to, [a, b, c, d]) in to.iter_mut().zip(sums) {
        // In each 128-bit part: a, b, a, b, then c, d, c, d, then a, b, c, d.
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(*a, *b), _mm512_unpackhi_ps(*a, *b));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(*c, *d), _mm512_unpackhi_ps(*c, *d));
        let all = _mm512_add_ps(
            _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
        );
        let halves = _mm256_add_ps(_mm512_castps512_ps256(all), upper_half(all));
        let sum = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
        // SAFETY: `to` has room for four values.
        unsafe { _mm_storeu_ps(to.as_mut_ptr(), sum) };
    }
    to
}

/// The upper half; AVX-512 F alone has it for f64 only.
#[target_feature(enable = "avx512f")]
#[inline]
fn upper_half(x: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)))
}
