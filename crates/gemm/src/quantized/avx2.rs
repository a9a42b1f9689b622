//! The product on AVX2: products of the weights' magnitudes and the rows' values with the weights' signs, which fit
//! 16 bits in pairs (2 * 127 * 127), added up to 32 bits.

use super::layout::{GROUPS, LINE_BYTES, Line, PANEL_ROWS, QUADS, block_lines};
use super::rows::{RowBlock, Some};
use super::{Bits, LEVELS};
use std::arch::x86_64::*;

/// Vectors of a line.
const HALVES: usize = 2;

/// Weight rows of a vector.
const LANES: usize = PANEL_ROWS / HALVES;

/// Whether AVX2 and FMA are there, and may be used.
pub fn is_present() -> bool {
    crate::isa::isa() >= crate::Isa::Avx2 && crate::Isa::Avx2.is_present()
}

/// Multiplies some rows with a panel. Only for machines with AVX2 and FMA.
pub fn multiply(panel: &[Line], rows: Some<'_>, bits: Bits, sums: &mut [[f32; PANEL_ROWS]]) {
    by_rows!(multiply_rows(panel, rows, bits, sums): 1 2 3 4 5 6 7 8);
}

/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_rows<const R: usize, const FOUR: bool>(
    panel: &[Line],
    rows: Some<'_>,
    to: &mut [[f32; PANEL_ROWS]],
) {
    let lines = block_lines(if FOUR { Bits::Four } else { Bits::Eight });
    let rows: [&[RowBlock]; R] = std::array::from_fn(|r| rows.blocks(r));
    assert!(rows.iter().all(|blocks| blocks.len() * lines == panel.len()));
    // SAFETY: sixteen bytes are a vector.
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) });
    let (low_half, high_bit, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_ps(); HALVES]; R];
    for (block, lines) in panel.chunks_exact(lines).enumerate() {
        for group in 0..GROUPS {
            let mut totals = [[_mm256_setzero_si256(); HALVES]; R];
            for line in 0..QUADS {
                let at = 1 + line + if FOUR { 0 } else { group * QUADS };
                for half in 0..HALVES {
                    let start = lines[at].0[half * LINE_BYTES / HALVES..].as_ptr();
                    // SAFETY: half of a line is a vector.
                    let stored = unsafe { _mm256_load_si256(start.cast()) };
                    let weights = match (FOUR, group) {
                        (false, _) => _mm256_xor_si256(stored, high_bit),
                        (true, 0) => _mm256_shuffle_epi8(table, _mm256_and_si256(stored, low_half)),
                        (true, _) => {
                            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(stored), low_half);
                            _mm256_shuffle_epi8(table, high)
                        }
                    };
                    let sizes = _mm256_abs_epi8(weights);
                    for (totals, row) in totals.iter_mut().zip(&rows) {
                        let signed = _mm256_sign_epi8(_mm256_set1_epi32(row[block].words[group][line]), weights);
                        let pairs = _mm256_maddubs_epi16(sizes, signed);
                        totals[half] = _mm256_add_epi32(totals[half], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for half in 0..HALVES {
                let start = lines[0].0[2 * (group * PANEL_ROWS + half * LANES)..].as_ptr();
                // SAFETY: the scales of eight rows follow.
                let scales = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(start.cast()) });
                let scales = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(scales));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let of_both = _mm256_mul_ps(scales, _mm256_set1_ps(rows[r][block].scales[group]));
                    sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[r][half]), of_both, sums[half]);
                }
            }
        }
    }
    for (to, sums) in to.iter_mut().zip(sums) {
        for (to, sum) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: eight floats.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sum) };
        }
    }
}
