//! How quantized weights lie in memory.

use super::{Bits, GROUP_VALUES, Group, LEVELS, OFFSET};
use crate::simd::to_f32;
use half::bf16;
use rayon::prelude::*;

/// Rows of a panel: the 32-bit lanes of a vector.
pub const PANEL_ROWS: usize = 16;

/// Groups that lie together.
pub const GROUPS: usize = 2;

/// Values along a row that are multiplied by one instruction.
pub const QUAD: usize = 4;

/// Lines of a group's values in 8 bits.
pub const QUADS: usize = GROUP_VALUES / QUAD;

/// Bytes of a line: a cache line and a vector.
pub const LINE_BYTES: usize = PANEL_ROWS * QUAD;

/// A cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Line(pub [u8; LINE_BYTES]);

/// A matrix `[N, K]` of 8 or 4 bits a value.
///
/// Sixteen rows are a panel, 64 values of each of them a block: a line of their scales (of the first 32 values, then
/// of the next 32) and the values. A line of 8 bits has four values of each row, the integers plus 128: line q values
/// 4 q to 4 q + 3. A line of 4 bits has two such lines: in its low halves line q of the first 32 values, in its high
/// ones that of the next 32. Rows and values that there are not are zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedMatrix {
    bits: Bits,
    shape: [usize; 2],
    lines: Vec<Line>,
}

impl QuantizedMatrix {
    /// Rounds the rows that `row` gives; `shape` is `[N, K]`.
    ///
    /// # Panics
    /// If a row has another length than K.
    pub fn new(bits: Bits, row: impl Fn(usize) -> Vec<f32> + Sync, shape: [usize; 2]) -> Self {
        let [n, k] = shape;
        let per_panel = panel_lines(bits, k);
        let mut lines = vec![Line([0; LINE_BYTES]); n.div_ceil(PANEL_ROWS) * per_panel];
        if per_panel > 0 {
            lines
                .par_chunks_exact_mut(per_panel)
                .enumerate()
                .for_each(|(panel, lines)| {
                    let first = panel * PANEL_ROWS;
                    for i in 0..PANEL_ROWS {
                        let values = if first + i < n { row(first + i) } else { vec![0.0; k] };
                        assert_eq!(values.len(), k, "a row of the matrix");
                        fill_row(bits, lines, i, &values);
                    }
                });
        }
        Self { bits, shape, lines }
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits of a value.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of a row, in memory.
    pub(crate) fn row_bytes(&self) -> usize {
        panel_lines(self.bits, self.shape[1]) * LINE_BYTES / PANEL_ROWS
    }

    /// The lines of a panel.
    ///
    /// # Panics
    /// If there is no such panel.
    pub(super) fn panel(&self, panel: usize) -> &[Line] {
        let lines = panel_lines(self.bits, self.shape[1]);
        &self.lines[panel * lines..(panel + 1) * lines]
    }

    /// Writes the values that row `index` stands for.
    ///
    /// # Panics
    /// If there is no such row, or it has another length.
    pub fn copy_row(&self, index: usize, to: &mut [f32]) {
        assert!(
            index < self.shape[0] && to.len() == self.shape[1],
            "row {index} of {:?}",
            self.shape
        );
        let (panel, row) = (self.panel(index / PANEL_ROWS), index % PANEL_ROWS);
        let blocks = panel.chunks_exact(block_lines(self.bits));
        for (to, block) in to.chunks_mut(GROUPS * GROUP_VALUES).zip(blocks) {
            for (g, to) in to.chunks_mut(GROUP_VALUES).enumerate() {
                let scale = scale(block, g, row);
                for (i, to) in to.iter_mut().enumerate() {
                    *to = integer(self.bits, block, g, i / QUAD, row * QUAD + i % QUAD) as f32 * scale;
                }
            }
        }
    }
}

/// Lines of 64 values of sixteen rows.
pub const fn block_lines(bits: Bits) -> usize {
    1 + match bits {
        Bits::Eight => GROUPS * QUADS,
        Bits::Four => QUADS,
    }
}

fn panel_lines(bits: Bits, k: usize) -> usize {
    k.div_ceil(GROUPS * GROUP_VALUES) * block_lines(bits)
}

/// The scale of a row's group in a block.
#[inline(always)]
pub fn scale(block: &[Line], group: usize, row: usize) -> f32 {
    let at = 2 * (group * PANEL_ROWS + row);
    to_f32(bf16::from_le_bytes([block[0].0[at], block[0].0[at + 1]]))
}

/// The integer at a byte of a group's line, which [`QUADS`] there are of.
#[inline(always)]
pub fn integer(bits: Bits, block: &[Line], group: usize, line: usize, byte: usize) -> i32 {
    match bits {
        Bits::Eight => i32::from(block[1 + group * QUADS + line].0[byte]) - OFFSET,
        Bits::Four => {
            let both = block[1 + line].0[byte];
            i32::from(LEVELS[usize::from(both >> (4 * group) & 15)])
        }
    }
}

/// Writes row `row` of a panel.
fn fill_row(bits: Bits, panel: &mut [Line], row: usize, values: &[f32]) {
    let blocks = panel.chunks_exact_mut(block_lines(bits)).enumerate();
    for (block, lines) in blocks {
        for group in 0..GROUPS {
            let first = (block * GROUPS + group) * GROUP_VALUES;
            let values = values
                .get(first..values.len().min(first + GROUP_VALUES))
                .unwrap_or_default();
            let Group { scale, integers } = bits.group(values);
            let at = 2 * (group * PANEL_ROWS + row);
            lines[0].0[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            for (i, integer) in integers.into_iter().enumerate() {
                let (line, byte, code) = (i / QUAD, row * QUAD + i % QUAD, bits.code(integer));
                match bits {
                    Bits::Eight => lines[1 + group * QUADS + line].0[byte] = code,
                    Bits::Four => lines[1 + line].0[byte] |= code << (4 * group),
                }
            }
        }
    }
}
