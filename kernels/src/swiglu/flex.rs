//! SwiGLU on slices, in place.

use crate::simd::exp_not_positive;
use rayon::prelude::*;
use wmtp_gemm::simd::vectorized;

/// Values that are computed in one task: 32 KiB of f32 for each of up to three operands.
const BLOCK: usize = 1 << 13;

/// `gate` becomes `silu(gate) * up`.
pub fn forward(gate: &mut [f32], up: &[f32]) {
    gate.par_chunks_mut(BLOCK)
        .zip(up.par_chunks(BLOCK))
        .for_each(|(gate, up)| {
            vectorized(
                #[inline(always)]
                || {
                    for (gate, up) in gate.iter_mut().zip(up) {
                        *gate = *gate * sigmoid(*gate) * up;
                    }
                },
            );
        });
}

/// `gate` and `up` become their gradients, and `upstream` (the gradient of the result) becomes the result
/// itself, which the caller needs for the gradient of the next weight.
pub fn backward(gate: &mut [f32], up: &mut [f32], upstream: &mut [f32]) {
    gate.par_chunks_mut(BLOCK)
        .zip(up.par_chunks_mut(BLOCK))
        .zip(upstream.par_chunks_mut(BLOCK))
        .for_each(|((gate, up), upstream)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((gate, up), upstream) in gate.iter_mut().zip(up).zip(upstream) {
                        let (g, u, d) = (*gate, *up, *upstream);
                        let s = sigmoid(g);
                        let silu = g * s;
                        *gate = d * u * (s + silu * (1.0 - s));
                        *up = d * silu;
                        *upstream = silu * u;
                    }
                },
            );
        });
}

/// 1 / (1 + e^-x) without overflow on either side.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_not_positive(-x.abs());
    let over = 1.0 / (1.0 + e);
    if x >= 0.0 { over } else { e * over }
}
