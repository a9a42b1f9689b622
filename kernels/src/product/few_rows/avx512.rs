//! The product on AVX-512: up to four rows and four lines of the weight at a time, sixteen sums each.
//!
//! K is walked in steps of one vector of the weight: 16 f32 or 32 bf16 values. A bf16 value becomes
//! f32 by 16 zero bits behind it, so of a vector the odd values need a mask and the even ones a
//! shift; the rows are rearranged once to match: of each 32 values the even ones first. While four
//! lines are multiplied the next four are fetched: the processor's own prefetching starts anew with
//! every line.

use super::{Floats, TILE};
use half::bf16;
use std::arch::x86_64::*;
use std::borrow::Cow;

/// Rows are filled up to a multiple of so many values.
const STEP: usize = 32;

/// Rows that are multiplied at a time, at most: four times four sums stay in registers.
const MOST: usize = 4;

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
    assert!(k > 0 && rows.len() == r * padded && to.len() == r * count);
    let lines = first * k..(first + count) * k;
    // As even as possible: five rows are three and two, not four and one.
    let group = r.div_ceil(r.div_ceil(MOST)).max(1);
    for (to, rows) in to.chunks_mut(group * count).zip(rows.chunks(group * padded)) {
        // SAFETY: the machine has been checked.
        unsafe {
            match (weight, to.len() / count) {
                (Floats::F32(values), 1) => multiply_f32::<1>(to, rows, &values[lines.clone()], k),
                (Floats::F32(values), 2) => multiply_f32::<2>(to, rows, &values[lines.clone()], k),
                (Floats::F32(values), 3) => multiply_f32::<3>(to, rows, &values[lines.clone()], k),
                (Floats::F32(values), _) => multiply_f32::<4>(to, rows, &values[lines.clone()], k),
                (Floats::Bf16(values), 1) => multiply_bf16::<1>(to, rows, &values[lines.clone()], k),
                (Floats::Bf16(values), 2) => multiply_bf16::<2>(to, rows, &values[lines.clone()], k),
                (Floats::Bf16(values), 3) => multiply_bf16::<3>(to, rows, &values[lines.clone()], k),
                (Floats::Bf16(values), _) => multiply_bf16::<4>(to, rows, &values[lines.clone()], k),
            }
        }
    }
}

macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $T:ty, $step:expr,
        |$line:ident, $mask:ident| $load:expr,
        |$sum:ident, $row:ident, $values:ident| $multiply:expr
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The machine has AVX-512 F, BW and VL.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        unsafe fn $name<const R: usize>(to: &mut [f32], rows: &[f32], weight: &[$T], k: usize) {
            let (padded, count) = (k.next_multiple_of(STEP), weight.len() / k);
            assert!(rows.len() == R * padded && to.len() == R * count && weight.len() == count * k);
            for j in (0..count).step_by(TILE) {
                // Beyond the last line the last one again: its results are not written.
                let lines: [*const $T; TILE] = std::array::from_fn(|l| weight[(j + l).min(count - 1) * k..].as_ptr());
                let mut sums = [[_mm512_setzero_ps(); TILE]; R];
                let mut at = 0;
                while at < k {
                    let $mask = u32::MAX >> ($step - (k - at).min($step)) >> (32 - $step);
                    // SAFETY: `at` plus the step is at most `padded`, the length of each row; lanes
                    // of a line from `k` on are masked out, and a prefetch reads nothing.
                    unsafe {
                        let mut line = [_mm512_setzero_si512(); TILE];
                        for (line, from) in line.iter_mut().zip(lines) {
                            let $line = from.add(at);
                            _mm_prefetch::<_MM_HINT_T0>($line.wrapping_add(TILE * k).cast());
                            *line = $load;
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let $row = rows.as_ptr().add(r * padded + at);
                            for (sum, $values) in sums.iter_mut().zip(line) {
                                let $sum = *sum;
                                *sum = $multiply;
                            }
                        }
                    }
                    at += $step;
                }
                let some = TILE.min(count - j);
                for (to, sums) in to.chunks_exact_mut(count).zip(sums) {
                    // SAFETY: `some` values from j on lie inside the row; the rest is masked out.
                    unsafe { _mm_mask_storeu_ps(to[j..j + some].as_mut_ptr(), (1 << some) - 1, summed(sums)) };
                }
            }
        }
    };
}

kernel!(
    /// R rows times lines of f32 values.
    multiply_f32, f32, 16,
    |line, mask| _mm512_castps_si512(_mm512_maskz_loadu_ps(mask as u16, line)),
    |sum, row, values| _mm512_fmadd_ps(_mm512_loadu_ps(row), _mm512_castsi512_ps(values), sum)
);

kernel!(
    /// R rows, of every 32 values the even ones first, times lines of bf16 values.
    multiply_bf16, bf16, 32,
    |line, mask| _mm512_maskz_loadu_epi16(mask, line.cast()),
    |sum, row, values| {
        let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(values));
        let odd = _mm512_castsi512_ps(_mm512_and_si512(values, _mm512_set1_epi32(0xffff_0000_u32 as i32)));
        let sum = _mm512_fmadd_ps(_mm512_loadu_ps(row), even, sum);
        _mm512_fmadd_ps(_mm512_loadu_ps(row.add(16)), odd, sum)
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
    let halves = _mm256_add_ps(_mm512_castps512_ps256(all), upper_half(all));
    _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves))
}

/// The upper half; AVX-512 F alone has it for f64 only.
#[target_feature(enable = "avx512f")]
#[inline]
fn upper_half(x: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)))
}
