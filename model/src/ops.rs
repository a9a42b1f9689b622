//! The operations of a decoder layer as functions of tensors, without parameters or state.

use burn::backend::Dispatch;
use burn::tensor::{Tensor, activation};

use crate::fused::LayerOps;

/// `x` `[N, in]` times the transpose of `weight` `[out, in]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::layer_linear(x.into_dispatch(), weight.into_dispatch()))
}

/// RMSNorm (Zhang and Sennrich 2019) of the rows of `x` `[N, D]`, statistics in at least f32.
pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::layer_rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// `silu(gate) * up` `[N, F]`, SwiGLU (Shazeer 2020), times the transpose of `weight` `[D, F]`.
pub(crate) fn swiglu_linear(gate: Tensor<2>, up: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::layer_swiglu_linear(
        gate.into_dispatch(),
        up.into_dispatch(),
        weight.into_dispatch(),
    ))
}

/// Softmax attention of scaled queries; softmax in at least f32.
///
/// `q` `[B, K, G * S, W]` holds for each of the K key heads the S queries of its G query heads, one
/// head after another; `k`, `v` `[B, K, T, W]`; `bias` `[B or 1, 1, 1, S, T]`. Returns the shape of `q`.
pub(crate) fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<5>>, seq: usize) -> Tensor<4> {
    let Some(bias) = bias else {
        // Decoding without padding: every query sees every key, and there is nothing to keep.
        return activation::softmax(q.matmul(k.swap_dims(2, 3)), 3).matmul(v);
    };
    Tensor::from_dispatch(Dispatch::layer_attend(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        bias.into_dispatch(),
        seq,
    ))
}
