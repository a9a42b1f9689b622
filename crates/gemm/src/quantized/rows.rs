//! Rows rounded to integers of 8 bits.

use super::layout::{GROUPS, QUAD, QUADS};
use super::{GROUP_VALUES, OFFSET};
use crate::simd::vectorized;

/// A row's values that are multiplied with a block of weights.
#[derive(Debug, Clone, Copy)]
pub struct RowBlock {
    /// Integers from -127 to 127, four in a word, the first one in the lowest byte.
    pub words: [[i32; QUADS]; GROUPS],
    /// What they are multiples of.
    pub scales: [f32; GROUPS],
    /// -128 times their sum, for weights to which 128 was added.
    pub corrections: [i32; GROUPS],
}

/// Rows `[R, K]`, each 32 values rounded to integers; K is filled up with zeros to whole blocks of weights.
pub struct QuantizedRows {
    count: usize,
    /// Blocks of a row.
    length: usize,
    blocks: Vec<RowBlock>,
}

/// Some of the rows.
#[derive(Clone, Copy)]
pub struct Some<'a> {
    rows: &'a QuantizedRows,
    first: usize,
    count: usize,
}

impl QuantizedRows {
    /// Rounds rows of `k` values, `k > 0`.
    pub fn new(rows: &[f32], k: usize) -> Self {
        let empty = RowBlock {
            words: [[0; QUADS]; GROUPS],
            scales: [0.0; GROUPS],
            corrections: [0; GROUPS],
        };
        let (count, length) = (rows.len() / k, k.div_ceil(GROUPS * GROUP_VALUES));
        let mut blocks = vec![empty; count * length];
        vectorized(
            #[inline(always)]
            || {
                for (row, blocks) in rows.chunks_exact(k).zip(blocks.chunks_exact_mut(length)) {
                    for (row, block) in row.chunks(GROUPS * GROUP_VALUES).zip(blocks) {
                        for (group, row) in row.chunks(GROUP_VALUES).enumerate() {
                            let mut values = [0.0; GROUP_VALUES];
                            values[..row.len()].copy_from_slice(row);
                            let (scale, integers, sum) = quantize(&values);
                            block.scales[group] = scale;
                            block.corrections[group] = -OFFSET * sum;
                            for (word, four) in block.words[group].iter_mut().zip(integers.as_chunks::<QUAD>().0) {
                                *word = i32::from_le_bytes(four.map(|integer| integer as u8));
                            }
                        }
                    }
                }
            },
        );
        Self { count, length, blocks }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows `first..first + count`.
    pub fn some(&self, first: usize, count: usize) -> Some<'_> {
        assert!(first + count <= self.count);
        Some {
            rows: self,
            first,
            count,
        }
    }
}

impl Some<'_> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A row's blocks.
    #[inline(always)]
    pub fn blocks(&self, row: usize) -> &[RowBlock] {
        &self.rows.blocks[(self.first + row) * self.rows.length..][..self.rows.length]
    }
}

/// Rounds rows of `k` values in place to what products with quantized weights take them for.
pub fn round_rows(values: &mut [f32], k: usize) {
    for row in values.chunks_mut(k.max(1)) {
        for group in row.chunks_mut(GROUP_VALUES) {
            let mut all = [0.0; GROUP_VALUES];
            all[..group.len()].copy_from_slice(group);
            let (scale, integers, _) = quantize(&all);
            for (value, integer) in group.iter_mut().zip(integers) {
                *value = f32::from(integer) * scale;
            }
        }
    }
}

/// Rounds a group: the scale, the integers and their sum. A value that is not finite makes the scale a NaN, and so
/// every sum that the group is part of.
#[inline(always)]
fn quantize(values: &[f32; GROUP_VALUES]) -> (f32, [i8; GROUP_VALUES], i32) {
    let (mut largest, mut odd) = (0.0_f32, 0.0_f32);
    for value in values {
        largest = if value.abs() > largest { value.abs() } else { largest };
        // 0 where the value is finite, else a NaN.
        odd += value * 0.0;
    }
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // A scale so small that its inverse is infinite stands for nothing.
    let (scale, inverse) = if inverse.is_finite() {
        (scale, inverse)
    } else {
        (0.0, 0.0)
    };
    let (mut integers, mut sum) = ([0; GROUP_VALUES], 0);
    for (integer, value) in integers.iter_mut().zip(values) {
        // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
        *integer = (value * inverse + 12_582_912.0).to_bits() as i8;
        sum += i32::from(*integer);
    }
    (scale + odd, integers, sum)
}
