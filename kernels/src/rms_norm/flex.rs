//! RMSNorm of rows on slices.
//!
//! `y = w * x / r` with `r = sqrt(mean(x^2) + eps)`. With `n = x / r` and `u = w * dy`,
//! `dx = (u - n * mean(u * n)) / r` and `dw = sum over rows of dy * n`.

use crate::simd::ROWS_PER_BLOCK;
use rayon::prelude::*;
use wmtp_gemm::simd::vectorized;

/// Partial sums of a row: the lanes of the widest vectors.
const LANES: usize = 16;

/// `to` = the norm of the rows of `x`, both `[N, D]`; `weight` `[D]`.
pub fn forward(x: &[f32], weight: &[f32], eps: f32, to: &mut [f32]) {
    let d = weight.len();
    to.par_chunks_mut(ROWS_PER_BLOCK * d)
        .zip(x.par_chunks(ROWS_PER_BLOCK * d))
        .for_each(|(to, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (to, x) in to.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                        let scale = scale(x, eps);
                        for ((to, x), w) in to.iter_mut().zip(x).zip(weight) {
                            *to = x * scale * w;
                        }
                    }
                },
            );
        });
}

/// Adds the gradient of `x` to `d_x` and returns that of the weight, `[D]`.
pub fn backward(x: &[f32], weight: &[f32], eps: f32, upstream: &[f32], d_x: &mut [f32]) -> Vec<f32> {
    let d = weight.len();
    let block = ROWS_PER_BLOCK * d;
    let partial: Vec<Vec<f32>> = d_x
        .par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .zip(upstream.par_chunks(block))
        .map(|((d_x, x), upstream)| {
            let mut d_weight = vec![0.0; d];
            vectorized(
                #[inline(always)]
                || {
                    let rows = d_x
                        .chunks_exact_mut(d)
                        .zip(x.chunks_exact(d))
                        .zip(upstream.chunks_exact(d));
                    for ((d_x, x), upstream) in rows {
                        let scale = scale(x, eps);
                        let along = dot3(x, upstream, weight) * scale / d as f32;
                        for ((((d_x, x), u), w), d_w) in
                            d_x.iter_mut().zip(x).zip(upstream).zip(weight).zip(&mut d_weight)
                        {
                            let normed = x * scale;
                            *d_w += u * normed;
                            *d_x += (u * w - normed * along) * scale;
                        }
                    }
                },
            );
            d_weight
        })
        .collect();
    let mut d_weight = vec![0.0; d];
    for partial in partial {
        d_weight.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
    }
    d_weight
}

/// One over the root mean square of a row.
#[inline(always)]
fn scale(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += x * x;
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    1.0 / (lanes.iter().sum::<f32>() / x.len() as f32 + eps).sqrt()
}

/// The sum of the products of three rows.
#[inline(always)]
fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for ((lane, a), (b, c)) in lanes
        .iter_mut()
        .zip(&a[whole..])
        .zip(b[whole..].iter().zip(&c[whole..]))
    {
        *lane += a * b * c;
    }
    let chunks = a
        .chunks_exact(LANES)
        .zip(b.chunks_exact(LANES))
        .zip(c.chunks_exact(LANES));
    for ((a, b), c) in chunks {
        for (((lane, a), b), c) in lanes.iter_mut().zip(a).zip(b).zip(c) {
            *lane += a * b * c;
        }
    }
    lanes.iter().sum()
}
