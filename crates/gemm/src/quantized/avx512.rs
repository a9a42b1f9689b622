//! The product on AVX-512 with VNNI: four values of sixteen weight rows times four of a row, added up in one
//! instruction. Weights are read once, front to back.

use super::layout::{GROUPS, LINE_BYTES, Line, PANEL_ROWS, QUADS, block_lines};
use super::rows::{RowBlock, Some};
use super::{Bits, LEVELS, OFFSET};
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Bytes that the prefetch is ahead.
const PREFETCH_DISTANCE: usize = 1 << 12;

/// Whether the machine has AVX-512 with VNNI, and it may be used.
pub fn is_present() -> bool {
    crate::isa::isa() >= crate::Isa::Avx512 && has_vnni()
}

/// Whether the machine has it.
pub fn has_vnni() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| crate::processor::has_avx512() && is_x86_feature_detected!("avx512vnni"))
}

/// Multiplies some rows with a panel. Only for machines with VNNI, which [`has_vnni`] has found.
pub fn multiply(panel: &[Line], rows: Some<'_>, bits: Bits, sums: &mut [[f32; PANEL_ROWS]]) {
    by_rows!(multiply_rows(panel, rows, bits, sums): 1 2 3 4 5 6 7 8);
}

/// # Safety
/// The machine has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply_rows<const R: usize, const FOUR: bool>(
    panel: &[Line],
    rows: Some<'_>,
    to: &mut [[f32; PANEL_ROWS]],
) {
    let lines = block_lines(if FOUR { Bits::Four } else { Bits::Eight });
    let prefetch = crate::processor::prefetches_early() || R > 2;
    let rows: [&[RowBlock]; R] = std::array::from_fn(|r| rows.blocks(r));
    assert!(rows.iter().all(|blocks| blocks.len() * lines == panel.len()));
    let mut table = [0_u8; 16];
    for (to, level) in table.iter_mut().zip(LEVELS) {
        *to = (i32::from(level) + OFFSET) as u8;
    }
    // SAFETY: any 16 bytes are a vector.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    let low_half = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); R];
    for (block, lines) in panel.chunks_exact(lines).enumerate() {
        if prefetch {
            for i in 0..lines.len() {
                let ahead = lines
                    .as_ptr()
                    .cast::<u8>()
                    .wrapping_add(PREFETCH_DISTANCE + i * LINE_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
        }
        let of_rows: [&RowBlock; R] = std::array::from_fn(|r| &rows[r][block]);
        let mut totals = [[_mm512_setzero_si512(); GROUPS]; R];
        for (totals, row) in totals.iter_mut().zip(of_rows) {
            for (total, correction) in totals.iter_mut().zip(row.corrections) {
                *total = _mm512_set1_epi32(correction);
            }
        }
        for line in 0..QUADS {
            let first = lines[1 + line].0.as_ptr();
            let second = lines[1 + line + if FOUR { 0 } else { QUADS }].0.as_ptr();
            // SAFETY: a line is a vector.
            let [low, high] = unsafe { [_mm512_load_si512(first.cast()), _mm512_load_si512(second.cast())] };
            let weights: [__m512i; GROUPS] = if FOUR {
                let high = _mm512_srli_epi16::<4>(high);
                [
                    _mm512_shuffle_epi8(table, _mm512_and_si512(low, low_half)),
                    _mm512_shuffle_epi8(table, _mm512_and_si512(high, low_half)),
                ]
            } else {
                [low, high]
            };
            for (totals, row) in totals.iter_mut().zip(of_rows) {
                for (group, total) in totals.iter_mut().enumerate() {
                    *total = _mm512_dpbusd_epi32(*total, weights[group], _mm512_set1_epi32(row.words[group][line]));
                }
            }
        }
        // SAFETY: a line is two halves.
        let of_weights = unsafe {
            let start = lines[0].0.as_ptr();
            [
                _mm256_load_si256(start.cast()),
                _mm256_load_si256(start.add(LINE_BYTES / 2).cast()),
            ]
        };
        for group in 0..GROUPS {
            let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(of_weights[group])));
            for r in 0..R {
                let of_both = _mm512_mul_ps(scale, _mm512_set1_ps(of_rows[r].scales[group]));
                sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[r][group]), of_both, sums[r]);
            }
        }
    }
    for (to, sum) in to.iter_mut().zip(sums) {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) };
    }
}
