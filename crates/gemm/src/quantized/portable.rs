//! The product for every machine, compiled for its widest SIMD vectors.

use super::Bits;
use super::layout::{GROUPS, Line, PANEL_ROWS, QUAD, QUADS, block_lines, integer, scale};
use super::rows::Some;
use crate::simd::vectorized;

/// Multiplies some rows with a panel.
pub fn multiply(panel: &[Line], rows: Some<'_>, bits: Bits, sums: &mut [[f32; PANEL_ROWS]]) {
    vectorized(
        #[inline(always)]
        || {
            for (block, lines) in panel.chunks_exact(block_lines(bits)).enumerate() {
                for group in 0..GROUPS {
                    // The weights' integers, line by line, once for all rows.
                    let mut weights = [[0_i16; PANEL_ROWS * QUAD]; QUADS];
                    for (line, weights) in weights.iter_mut().enumerate() {
                        for (byte, weight) in weights.iter_mut().enumerate() {
                            *weight = integer(bits, lines, group, line, byte) as i16;
                        }
                    }
                    let mut scales = [0.0; PANEL_ROWS];
                    for (row, to) in scales.iter_mut().enumerate() {
                        *to = scale(lines, group, row);
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let of_row = &rows.blocks(row)[block];
                        let mut totals = [0_i32; PANEL_ROWS];
                        for (weights, word) in weights.iter().zip(of_row.words[group]) {
                            let values = word.to_le_bytes().map(|byte| i16::from(byte as i8));
                            for (total, weights) in totals.iter_mut().zip(weights.chunks_exact(QUAD)) {
                                for (weight, value) in weights.iter().zip(values) {
                                    *total += i32::from(*weight) * i32::from(value);
                                }
                            }
                        }
                        for ((sum, total), scale) in sums.iter_mut().zip(totals).zip(&scales) {
                            *sum = (total as f32).mul_add(scale * of_row.scales[group], *sum);
                        }
                    }
                }
            }
        },
    );
}
