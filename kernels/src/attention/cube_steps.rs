//! The steps of the attention kernels; layout as in [`super::cube_kernels`].
#![allow(clippy::too_many_arguments)]

use super::cube_kernels::PER_UNIT;
use cubecl::prelude::*;

/// Copies `block` rows of `from`, each `width` wide, the first being row `first` of those that begin at
/// `base`, as f32; zeros from row `rows` on.
#[cube]
pub(super) fn load<F: Float>(
    from: &Tensor<F>,
    to: &mut Shared<[f32]>,
    base: usize,
    first: usize,
    rows: usize,
    #[comptime] width: usize,
    #[comptime] block: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < block * width {
        let row = at / width;
        let column = at % width;
        let mut value = 0.0f32;
        if first + row < rows {
            value = f32::cast_from(from[base + (first + row) * width + column]);
        }
        to[row * (width + 1) + column] = value;
        at += CUBE_DIM as usize;
    }
}

/// `out[4 i + j]` = product of the unit's row `i` of `rows` and its column `j`, a row of `columns`.
#[cube]
pub(super) fn products(
    rows: &Shared<[f32]>,
    columns: &Shared<[f32]>,
    out: &mut Array<f32>,
    x: usize,
    y: usize,
    #[comptime] width: usize,
    #[comptime] block: usize,
) {
    let side = comptime!(block / PER_UNIT);
    #[unroll]
    for i in 0..PER_UNIT * PER_UNIT {
        out[i] = 0.0f32;
    }
    for d in 0..width {
        let mut left = Array::<f32>::new(PER_UNIT);
        #[unroll]
        for i in 0..PER_UNIT {
            left[i] = rows[(y * PER_UNIT + i) * (width + 1) + d];
        }
        #[unroll]
        for j in 0..PER_UNIT {
            let right = columns[(x + side * j) * (width + 1) + d];
            #[unroll]
            for i in 0..PER_UNIT {
                out[i * PER_UNIT + j] += left[i] * right;
            }
        }
    }
}

/// `total[per i + n]` += sum over the tile's rows `c` of `shares[row i, c] * tile[c, x + side n]`, where
/// `per` is the number of output columns of a unit.
#[cube]
pub(super) fn accumulate(
    shares: &Shared<[f32]>,
    tile: &Shared<[f32]>,
    total: &mut Array<f32>,
    x: usize,
    y: usize,
    #[comptime] width: usize,
    #[comptime] block: usize,
) {
    let side = comptime!(block / PER_UNIT);
    let per = comptime!(width.div_ceil(side));
    for c in 0..block {
        let mut left = Array::<f32>::new(PER_UNIT);
        #[unroll]
        for i in 0..PER_UNIT {
            left[i] = shares[(y * PER_UNIT + i) * (block + 1) + c];
        }
        #[unroll]
        for n in 0..per {
            // Past the last column the row's padding is read, and the result is never written.
            let right = tile[c * (width + 1) + min(x + side * n, width)];
            #[unroll]
            for i in 0..PER_UNIT {
                total[i * per + n] += left[i] * right;
            }
        }
    }
}

/// Writes the unit's values where `accumulate` reads them.
#[cube]
pub(super) fn store_shares(values: &Array<f32>, to: &mut Shared<[f32]>, x: usize, y: usize, #[comptime] block: usize) {
    let side = comptime!(block / PER_UNIT);
    #[unroll]
    for i in 0..PER_UNIT {
        #[unroll]
        for j in 0..PER_UNIT {
            to[(y * PER_UNIT + i) * (block + 1) + x + side * j] = values[i * PER_UNIT + j];
        }
    }
}

/// Each row's maximum (or sum) over the `side` units that share it, in all of them. With planes the
/// units of a row, neighbours in one plane, exchange values; without, through shared memory. Holds
/// a barrier in both cases: other shared buffers may be overwritten afterwards.
#[cube]
pub(super) fn over_row(
    values: &mut Array<f32>,
    scratch: &mut Shared<[f32]>,
    x: usize,
    y: usize,
    #[comptime] block: usize,
    #[comptime] largest: bool,
    #[comptime] planes: bool,
) {
    let side = comptime!(block / PER_UNIT);
    if planes {
        #[unroll]
        for i in 0..PER_UNIT {
            let mut value = values[i];
            #[unroll]
            for level in 0..comptime!(side.ilog2()) {
                let other = plane_shuffle_xor(value, comptime!(1u32 << level));
                if largest {
                    value = max(value, other);
                } else {
                    value += other;
                }
            }
            values[i] = value;
        }
        sync_cube();
    } else {
        #[unroll]
        for i in 0..PER_UNIT {
            scratch[(y * PER_UNIT + i) * side + x] = values[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..PER_UNIT {
            let mut value = scratch[(y * PER_UNIT + i) * side];
            for other in 1..side {
                if largest {
                    value = max(value, scratch[(y * PER_UNIT + i) * side + other]);
                } else {
                    value += scratch[(y * PER_UNIT + i) * side + other];
                }
            }
            values[i] = value;
        }
    }
}

/// Writes the unit's part of `block` output rows.
#[cube]
pub(super) fn write_rows<F: Float>(
    values: &Array<f32>,
    to: &mut Tensor<F>,
    base: usize,
    first: usize,
    rows: usize,
    x: usize,
    y: usize,
    #[comptime] width: usize,
    #[comptime] block: usize,
) {
    let side = comptime!(block / PER_UNIT);
    let per = comptime!(width.div_ceil(side));
    #[unroll]
    for i in 0..PER_UNIT {
        let row = first + y * PER_UNIT + i;
        #[unroll]
        for n in 0..per {
            let column = x + side * n;
            if row < rows && column < width {
                to[base + row * width + column] = F::cast_from(values[i * per + n]);
            }
        }
    }
}

/// The attention probability of a key with this score, from its row's statistics.
#[cube]
pub(super) fn share(score: f32, largest: f32, sum: f32, seen: bool) -> f32 {
    select(seen, (score - largest).exp() / sum, 0.0f32)
}

#[cube]
pub(super) fn zeros(#[comptime] length: usize) -> Array<f32> {
    let mut values = Array::<f32>::new(length);
    #[unroll]
    for i in 0..length {
        values[i] = 0.0f32;
    }
    values
}
