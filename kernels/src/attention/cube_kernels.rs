//! The three kernels of attention; the steps that they share are in `cube_steps`.
//!
//! A cube of `(block / 4)^2` units owns `block` rows (queries, or keys for dk and dv) and walks over
//! tiles of as many columns. Unit `(y, x)` owns rows `4 y .. 4 y + 4` and every `side`-th column from
//! `x`, `side = block / 4`. Tiles are in shared memory as f32, each row padded by one element, so that
//! units of a row read different banks. One buffer holds keys and values (or
//! queries and upstream gradients) one after the other: with heads 64 wide and blocks of 32 that
//! fits into 32 KiB in every kernel.
#![allow(missing_docs)] // the attribute generates items that can't carry comments
#![allow(clippy::too_many_arguments)]

use super::cube_steps::{accumulate, load, over_row, products, share, store_shares, write_rows, zeros};
use cubecl::prelude::*;

/// Rows, and columns of a tile, that a unit owns: its 4 x 4 results fit the registers.
pub const PER_UNIT: usize = 4;

/// Initial maximum, and score of a pair that is masked: below every score, and finite, so that the difference
/// of two is 0 and not NaN.
const LOWEST: f32 = -1e30;

/// `out` `[B, H, S, W]` and `statistics` `[B, H, S, 2]`, each row's largest score and the sum of
/// `exp(score - largest)`; cubes are `[query blocks, H, B]`.
#[cube(launch, create_dummy_kernel)]
pub fn attention_forward<F: Float>(
    q: &Tensor<F>,
    k: &Tensor<F>,
    v: &Tensor<F>,
    starts: &Tensor<i32>,
    out: &mut Tensor<F>,
    statistics: &mut Tensor<f32>,
    scale: f32,
    #[comptime] width: usize,
    #[comptime] block: usize,
    #[comptime] planes: bool,
    #[define(F)] _dtype: ElemType,
) {
    let side = comptime!(block / PER_UNIT);
    let per = comptime!(width.div_ceil(side));
    let heads = q.shape(1);
    let seq = q.shape(2);
    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_Y as usize;
    let x = UNIT_POS as usize % side;
    let y = UNIT_POS as usize / side;
    let first = CUBE_POS_X as usize * block;
    let q_base = (batch * heads + head) * seq * width;
    let group = head / (heads / k.shape(1));
    let k_base = (batch * k.shape(1) + group) * seq * width;

    let mut queries = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut tile = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(block * (block + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block * side));
    let mut total = zeros(comptime!(PER_UNIT * per));
    let mut scores = zeros(comptime!(PER_UNIT * PER_UNIT));
    let mut sums = zeros(PER_UNIT);
    let mut largest = Array::<f32>::new(PER_UNIT);
    let mut highest = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for i in 0..PER_UNIT {
        largest[i] = LOWEST;
    }
    load::<F>(q, &mut queries, q_base, first, seq, width, block);

    let mut at = starts[batch * seq + first] as usize / block * block;
    while at <= first {
        load::<F>(k, &mut tile, k_base, at, seq, width, block);
        sync_cube();
        products(&queries, &tile, &mut scores, x, y, width, block);
        #[unroll]
        for i in 0..PER_UNIT {
            highest[i] = largest[i];
            let row = first + y * PER_UNIT + i;
            // Read again for every tile, from the cache, because registers are scarce.
            let begin = starts[batch * seq + min(row, seq - 1)] as usize;
            #[unroll]
            for j in 0..PER_UNIT {
                let column = at + x + side * j;
                let seen = column <= row && column >= begin;
                let score = select(seen, scores[i * PER_UNIT + j] * scale, LOWEST);
                scores[i * PER_UNIT + j] = score;
                highest[i] = max(highest[i], score);
            }
        }
        over_row(&mut highest, &mut scratch, x, y, block, true, planes);
        #[unroll]
        for i in 0..PER_UNIT {
            let shrink = (largest[i] - highest[i]).exp();
            largest[i] = highest[i];
            sums[i] *= shrink;
            #[unroll]
            for n in 0..per {
                total[i * per + n] *= shrink;
            }
            #[unroll]
            for j in 0..PER_UNIT {
                let score = scores[i * PER_UNIT + j];
                let share = select(score > LOWEST, (score - largest[i]).exp(), 0.0f32);
                scores[i * PER_UNIT + j] = share;
                sums[i] += share;
            }
        }
        store_shares(&scores, &mut shares, x, y, block);
        load::<F>(v, &mut tile, k_base, at, seq, width, block);
        sync_cube();
        accumulate(&shares, &tile, &mut total, x, y, width, block);
        sync_cube();
        at += block;
    }
    over_row(&mut sums, &mut scratch, x, y, block, false, planes);
    #[unroll]
    for i in 0..PER_UNIT {
        let row = first + y * PER_UNIT + i;
        #[unroll]
        for n in 0..per {
            total[i * per + n] /= sums[i];
        }
        if x == 0 && row < seq {
            let at = 2 * ((batch * heads + head) * seq + row);
            statistics[at] = largest[i];
            statistics[at + 1] = sums[i];
        }
    }
    write_rows::<F>(&total, out, q_base, first, seq, x, y, width, block);
}

/// `dq` `[B, H, S, W]`, and `deltas` `[B, H, S]`, the products of `out` and `upstream`, for
/// [`attention_backward_kv()`]; cubes are `[query blocks, H, B]`.
#[cube(launch, create_dummy_kernel)]
pub fn attention_backward_q<F: Float>(
    q: &Tensor<F>,
    k: &Tensor<F>,
    v: &Tensor<F>,
    starts: &Tensor<i32>,
    out: &Tensor<F>,
    upstream: &Tensor<F>,
    statistics: &Tensor<f32>,
    dq: &mut Tensor<F>,
    deltas: &mut Tensor<f32>,
    scale: f32,
    #[comptime] width: usize,
    #[comptime] block: usize,
    #[comptime] planes: bool,
    #[define(F)] _dtype: ElemType,
) {
    let side = comptime!(block / PER_UNIT);
    let per = comptime!(width.div_ceil(side));
    let heads = q.shape(1);
    let seq = q.shape(2);
    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_Y as usize;
    let x = UNIT_POS as usize % side;
    let y = UNIT_POS as usize / side;
    let first = CUBE_POS_X as usize * block;
    let q_base = (batch * heads + head) * seq * width;
    let row_base = (batch * heads + head) * seq;
    let group = head / (heads / k.shape(1));
    let k_base = (batch * k.shape(1) + group) * seq * width;

    let mut queries = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut above = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut tile = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(block * (block + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block * side));
    let mut total = zeros(comptime!(PER_UNIT * per));
    let mut scores = zeros(comptime!(PER_UNIT * PER_UNIT));
    let mut d_shares = zeros(comptime!(PER_UNIT * PER_UNIT));
    let mut delta = zeros(PER_UNIT);
    let mut largest = Array::<f32>::new(PER_UNIT);
    let mut sums = Array::<f32>::new(PER_UNIT);
    let mut begin = Array::<u32>::new(PER_UNIT);
    load::<F>(q, &mut queries, q_base, first, seq, width, block);
    load::<F>(upstream, &mut above, q_base, first, seq, width, block);
    sync_cube();
    #[unroll]
    for i in 0..PER_UNIT {
        let local = y * PER_UNIT + i;
        let row = min(first + local, seq - 1);
        begin[i] = u32::cast_from(starts[batch * seq + row]);
        largest[i] = statistics[2 * (row_base + row)];
        sums[i] = statistics[2 * (row_base + row) + 1];
        let mut column = x;
        while column < width {
            delta[i] += above[local * (width + 1) + column] * f32::cast_from(out[q_base + row * width + column]);
            column += side;
        }
    }
    over_row(&mut delta, &mut scratch, x, y, block, false, planes);
    #[unroll]
    for i in 0..PER_UNIT {
        let row = first + y * PER_UNIT + i;
        if x == 0 && row < seq {
            deltas[row_base + row] = delta[i];
        }
    }

    let mut at = starts[batch * seq + first] as usize / block * block;
    while at <= first {
        load::<F>(k, &mut tile, k_base, at, seq, width, block);
        sync_cube();
        products(&queries, &tile, &mut scores, x, y, width, block);
        sync_cube();
        load::<F>(v, &mut tile, k_base, at, seq, width, block);
        sync_cube();
        products(&above, &tile, &mut d_shares, x, y, width, block);
        #[unroll]
        for i in 0..PER_UNIT {
            let row = first + y * PER_UNIT + i;
            #[unroll]
            for j in 0..PER_UNIT {
                let column = at + x + side * j;
                let seen = column <= row && column >= begin[i] as usize;
                let share = share(scores[i * PER_UNIT + j] * scale, largest[i], sums[i], seen);
                scores[i * PER_UNIT + j] = share * (d_shares[i * PER_UNIT + j] - delta[i]) * scale;
            }
        }
        store_shares(&scores, &mut shares, x, y, block);
        sync_cube();
        load::<F>(k, &mut tile, k_base, at, seq, width, block);
        sync_cube();
        accumulate(&shares, &tile, &mut total, x, y, width, block);
        sync_cube();
        at += block;
    }
    write_rows::<F>(&total, dq, q_base, first, seq, x, y, width, block);
}

/// `dk` and `dv` `[B, K, S, W]`, summed over the query heads of each group; cubes are
/// `[key blocks, K, B]`. Rows are keys here and columns queries.
#[cube(launch, create_dummy_kernel)]
pub fn attention_backward_kv<F: Float>(
    q: &Tensor<F>,
    k: &Tensor<F>,
    v: &Tensor<F>,
    starts: &Tensor<i32>,
    upstream: &Tensor<F>,
    statistics: &Tensor<f32>,
    deltas: &Tensor<f32>,
    dk: &mut Tensor<F>,
    dv: &mut Tensor<F>,
    scale: f32,
    #[comptime] width: usize,
    #[comptime] block: usize,
    #[define(F)] _dtype: ElemType,
) {
    let side = comptime!(block / PER_UNIT);
    let per = comptime!(width.div_ceil(side));
    let heads = q.shape(1);
    let groups = k.shape(1);
    let seq = q.shape(2);
    let batch = CUBE_POS_Z as usize;
    let group = CUBE_POS_Y as usize;
    let x = UNIT_POS as usize % side;
    let y = UNIT_POS as usize / side;
    let first = CUBE_POS_X as usize * block;
    let k_base = (batch * groups + group) * seq * width;

    let mut keys = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut values = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut tile = Shared::<[f32]>::new_slice(comptime!(block * (width + 1)));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(block * (block + 1)));
    let mut k_total = zeros(comptime!(PER_UNIT * per));
    let mut v_total = zeros(comptime!(PER_UNIT * per));
    let mut scores = zeros(comptime!(PER_UNIT * PER_UNIT));
    let mut d_shares = zeros(comptime!(PER_UNIT * PER_UNIT));
    load::<F>(k, &mut keys, k_base, first, seq, width, block);
    load::<F>(v, &mut values, k_base, first, seq, width, block);

    // Later queries start no earlier: from the first tile that begins past these keys on, none sees them.
    let last = min(first + block, seq) - 1;
    let mut end = first + block;
    while end < seq && (starts[batch * seq + min(end, seq - 1)] as usize) <= last {
        end += block;
    }
    for member in 0..heads / groups {
        let head = group * (heads / groups) + member;
        let q_base = (batch * heads + head) * seq * width;
        let row_base = (batch * heads + head) * seq;
        let mut at = first;
        while at < end {
            load::<F>(q, &mut tile, q_base, at, seq, width, block);
            sync_cube();
            products(&keys, &tile, &mut scores, x, y, width, block);
            sync_cube();
            load::<F>(upstream, &mut tile, q_base, at, seq, width, block);
            sync_cube();
            products(&values, &tile, &mut d_shares, x, y, width, block);
            #[unroll]
            for j in 0..PER_UNIT {
                let query = at + x + side * j;
                let known = min(query, seq - 1);
                let begin = starts[batch * seq + known] as usize;
                let largest = statistics[2 * (row_base + known)];
                let sum = statistics[2 * (row_base + known) + 1];
                let delta = deltas[row_base + known];
                #[unroll]
                for i in 0..PER_UNIT {
                    let key = first + y * PER_UNIT + i;
                    let seen = query < seq && key <= query && key >= begin;
                    let share = share(scores[i * PER_UNIT + j] * scale, largest, sum, seen);
                    scores[i * PER_UNIT + j] = share;
                    d_shares[i * PER_UNIT + j] = share * (d_shares[i * PER_UNIT + j] - delta) * scale;
                }
            }
            store_shares(&scores, &mut shares, x, y, block);
            sync_cube();
            accumulate(&shares, &tile, &mut v_total, x, y, width, block);
            sync_cube();
            store_shares(&d_shares, &mut shares, x, y, block);
            load::<F>(q, &mut tile, q_base, at, seq, width, block);
            sync_cube();
            accumulate(&shares, &tile, &mut k_total, x, y, width, block);
            sync_cube();
            at += block;
        }
    }
    write_rows::<F>(&k_total, dk, k_base, first, seq, x, y, width, block);
    write_rows::<F>(&v_total, dv, k_base, first, seq, x, y, width, block);
}
