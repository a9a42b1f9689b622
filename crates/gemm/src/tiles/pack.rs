//! Factors as tiles.
//!
//! Both factors are packed along K: rows of the left one, columns (rows of the transpose) of the right one, called
//! lines here. Sixteen lines are a group: `K / 32` tiles, rounded up, one after another, so that a group is read
//! front to back. Row i of a left tile holds 32 values of line i; row p of a right tile holds the values 2 p and
//! 2 p + 1 of each of its sixteen lines. As words of 32 bits (pairs of values) the one is the transpose of the
//! other, so what has to be transposed depends on how lines lie in memory:
//!
//! | product | left lines | right lines | transposed |
//! |---|---|---|---|
//! | `X [m, k] * W [n, k]^T` | rows of X | rows of W | right |
//! | `dY [m, n] * W [n, k]` | rows of dY | columns of W | none |
//! | `dY [m, n]^T * X [m, k]` | columns of dY | columns of X | left |
//! | `A^T * B^T` | columns of A | rows of B | both |
//!
//! f32 values are rounded to the nearest bf16, ties to even; subnormal ones become zeros, as the tile unit takes
//! those that are bf16 already. Values and lines that are not there are zeros.

use super::unit::{ROW_BYTES, ROWS, Tile, VALUES};
use crate::{FloatSlice, MatrixView, Threads, avx512::transpose};
use half::bf16;
use rayon::prelude::*;
use std::arch::x86_64::*;

/// Which factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The left one.
    Left,
    /// The right one.
    Right,
}

/// Packed groups of lines in memory.
#[derive(Clone, Copy)]
pub struct Panels {
    start: *const Tile,
    /// Groups of sixteen lines.
    pub groups: usize,
    /// Tiles of a group that are used.
    pub tiles: usize,
    /// Tiles from a group to the next.
    stride: usize,
}

// SAFETY: they are only read, and whoever makes them keeps the tiles.
unsafe impl Send for Panels {}
// SAFETY: as above.
unsafe impl Sync for Panels {}

impl Panels {
    /// Those at the start of `room`, without gaps.
    ///
    /// # Panics
    /// If the room is too small.
    pub fn new(room: &[Tile], groups: usize, tiles: usize) -> Self {
        assert!(groups * tiles <= room.len());
        Self {
            start: room.as_ptr(),
            groups,
            tiles,
            stride: tiles,
        }
    }

    /// The first tile of a group.
    ///
    /// # Panics
    /// If there is no such group.
    #[inline(always)]
    pub fn group(&self, group: usize) -> *const Tile {
        assert!(group < self.groups);
        self.start.wrapping_add(group * self.stride)
    }

    /// Groups from `first` on, `count` of them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.groups);
        Self {
            start: self.start.wrapping_add(first * self.stride),
            groups: count,
            ..self
        }
    }

    /// The tiles from `first` on of each group, `count` of them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn between(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.tiles);
        Self {
            start: self.start.wrapping_add(first),
            tiles: count,
            ..self
        }
    }

    /// Bytes from the first group to the end of the last one.
    pub fn bytes(&self) -> (*const u8, usize) {
        (self.start.cast(), self.groups * self.stride * size_of::<Tile>())
    }
}

/// Groups of these lines, and tiles of each.
pub fn extent(lines: MatrixView<'_>) -> [usize; 2] {
    let [count, k] = lines.shape;
    [count.div_ceil(ROWS), k.div_ceil(VALUES)]
}

/// Packs all lines at the start of `room`.
///
/// # Panics
/// If the room is too small.
pub fn pack(lines: MatrixView<'_>, side: Side, room: &mut [Tile], threads: Threads) -> Panels {
    let [groups, tiles] = extent(lines);
    assert!(groups * tiles <= room.len());
    if tiles > 0 {
        let of_groups = &mut room[..groups * tiles];
        match threads {
            Threads::All => {
                let parts = of_groups.par_chunks_exact_mut(tiles).with_min_len(4).enumerate();
                parts.for_each(|(group, to)| pack_group(lines, group, side, to));
            }
            Threads::Calling => {
                let parts = of_groups.chunks_exact_mut(tiles).enumerate();
                parts.for_each(|(group, to)| pack_group(lines, group, side, to));
            }
        }
    }
    Panels::new(room, groups, tiles)
}

/// Packs one group to its tiles.
fn pack_group(lines: MatrixView<'_>, group: usize, side: Side, to: &mut [Tile]) {
    let in_vectors = lines.strides[1] == 1 || lines.strides[0] == 1;
    if in_vectors && crate::processor::has_avx512_bf16() {
        // SAFETY: the machine has AVX-512 F, BW, VL and BF16, and lines lie along memory or across it.
        return unsafe { pack_vectors(lines, group, side, to) };
    }
    pack_values(lines, group, side, to);
}

/// The nearest bf16, ties to even; subnormal values are zeros.
pub fn rounded(value: f32) -> bf16 {
    let value = if value.is_subnormal() {
        0.0_f32.copysign(value)
    } else {
        value
    };
    bf16::from_f32(value)
}

/// The definition of the layout, one value at a time.
fn pack_values(lines: MatrixView<'_>, group: usize, side: Side, to: &mut [Tile]) {
    let [count, k] = lines.shape;
    for (t, tile) in to.iter_mut().enumerate() {
        for (i, bytes) in tile.0.chunks_exact_mut(2).enumerate() {
            let (row, i) = (i / VALUES, i % VALUES);
            let [line, at] = match side {
                Side::Left => [group * ROWS + row, t * VALUES + i],
                Side::Right => [group * ROWS + i / 2, t * VALUES + 2 * row + i % 2],
            };
            let value = match lines.data {
                _ if line >= count || at >= k => bf16::ZERO,
                FloatSlice::F32(_) => rounded(lines.at(line, at)),
                FloatSlice::Bf16(data) => data[line * lines.strides[0] + at * lines.strides[1]],
            };
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// [`pack_values`] by vectors.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL and BF16; `lines.strides[1]` or `lines.strides[0]` is 1.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_vectors(lines: MatrixView<'_>, group: usize, side: Side, to: &mut [Tile]) {
    let (first, [line_stride, stride], k) = (group * ROWS, lines.strides, lines.shape[1]);
    let count = (lines.shape[0] - first).min(ROWS);
    let along = stride == 1;
    // Value i of the low half, then value i of the high half.
    let interleaving: [u16; VALUES] = std::array::from_fn(|i| (i / 2 + i % 2 * ROWS) as u16);
    // SAFETY: any 64 bytes are a vector.
    let interleaving = unsafe { _mm512_loadu_si512(interleaving.as_ptr().cast()) };
    for (t, tile) in to.iter_mut().enumerate() {
        let from = t * VALUES;
        let here = (k - from).min(VALUES);
        let mut rows = [_mm512_setzero_si512(); ROWS];
        if along {
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                let start = (first + i) * line_stride + from;
                // SAFETY: `here` values of an existing line.
                *row = unsafe { load_two(lines.data, [start, start + ROWS], [here, here.saturating_sub(ROWS)]) };
            }
        } else {
            for (p, row) in rows.iter_mut().enumerate().take(here.div_ceil(2)) {
                let start = first + (from + 2 * p) * stride;
                let counts = [count, if 2 * p + 1 < here { count } else { 0 }];
                // SAFETY: one value of each of `count` existing lines, and the next one where there is one.
                let both = unsafe { load_two(lines.data, [start, start + stride], counts) };
                *row = _mm512_permutexvar_epi16(interleaving, both);
            }
        }
        if along != (side == Side::Left) {
            rows = transpose(rows);
        }
        for (row, to) in rows.into_iter().zip(tile.0.chunks_exact_mut(ROW_BYTES)) {
            // SAFETY: a row of a tile is a cache line.
            unsafe { _mm512_store_si512(to.as_mut_ptr().cast(), row) };
        }
    }
}

/// As many values as `counts` says (16 at most) from each of `starts` on, as bf16: the second ones in the high half.
///
/// # Safety
/// The values exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
unsafe fn load_two(data: FloatSlice<'_>, starts: [usize; 2], counts: [usize; 2]) -> __m512i {
    let masks = counts.map(|count| ((1_u32 << count.min(ROWS)) - 1) as u16);
    // SAFETY: by the caller's promise; what is not there is masked out.
    unsafe {
        match data {
            FloatSlice::F32(data) => {
                let low = _mm512_maskz_loadu_ps(masks[0], data.as_ptr().wrapping_add(starts[0]));
                let high = _mm512_maskz_loadu_ps(masks[1], data.as_ptr().wrapping_add(starts[1]));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            FloatSlice::Bf16(data) => {
                let low = _mm256_maskz_loadu_epi16(masks[0], data.as_ptr().wrapping_add(starts[0]).cast());
                let high = _mm256_maskz_loadu_epi16(masks[1], data.as_ptr().wrapping_add(starts[1]).cast());
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_values::values;

    fn tiles(lines: MatrixView<'_>, side: Side) -> Vec<Tile> {
        let [groups, tiles] = extent(lines);
        let mut room = vec![Tile([7; 1024]); groups * tiles];
        pack(lines, side, &mut room, Threads::Calling);
        room
    }

    fn value(tile: &Tile, row: usize, i: usize) -> f32 {
        let at = row * ROW_BYTES + 2 * i;
        bf16::from_le_bytes([tile.0[at], tile.0[at + 1]]).to_f32()
    }

    /// Value 40 of line 17, of 20 lines of 50 values: tile 1 of group 1, as literal places.
    #[test]
    fn a_value_lies_where_the_unit_looks_for_it() {
        let mut data = vec![0.0; 20 * 50];
        data[17 * 50 + 40] = 1.5;
        let lines = MatrixView::row_major(&data, [20, 50]);
        let left = tiles(lines, Side::Left);
        let right = tiles(lines, Side::Right);
        assert_eq!((left.len(), right.len()), (4, 4));
        assert_eq!(value(&left[3], 1, 8), 1.5);
        assert_eq!(value(&right[3], 4, 2), 1.5);
        for all in [left, right] {
            let others = all.iter().flat_map(|tile| &tile.0).filter(|byte| **byte != 0);
            assert_eq!(others.count(), 2, "the two bytes of 1.5");
        }
    }

    #[test]
    fn vectors_pack_as_single_values_do() {
        if !crate::processor::has_avx512_bf16() {
            return eprintln!("NOT TESTED: this processor has no AVX-512");
        }
        for [count, k] in [[1, 1], [16, 32], [33, 65], [20, 47], [64, 31]] {
            let mut floats = values(count * k, 1);
            floats[0] = 1e-40;
            let short: Vec<bf16> = floats.iter().map(|value| bf16::from_f32(*value)).collect();
            for data in [FloatSlice::F32(&floats), FloatSlice::Bf16(&short)] {
                for strides in [[k, 1], [1, count]] {
                    let lines = MatrixView::strided(data, [count, k], strides);
                    let [groups, length] = extent(lines);
                    for (group, side) in (0..groups).flat_map(|g| [(g, Side::Left), (g, Side::Right)]) {
                        let mut found = [vec![Tile([1; 1024]); length], vec![Tile([2; 1024]); length]];
                        pack_group(lines, group, side, &mut found[0]);
                        pack_values(lines, group, side, &mut found[1]);
                        let same = found[0].iter().zip(&found[1]).all(|(a, b)| a.0 == b.0);
                        assert!(same, "{count} x {k}, {strides:?}, {side:?}");
                    }
                }
            }
        }
    }
}
