//! Operations on tensors that decoding and the unembedding share, without parameters or state.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, activation};

use crate::fused::LayerOps;

/// `x` `[N, in]` times the transpose of `weight` `[out, in]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::layer_linear(x.into_dispatch(), weight.into_dispatch()))
}

/// Softmax attention of scaled queries over a cache; softmax in at least f32.
///
/// `q` `[B, K, G * S, W]` holds for each of the K key heads the S queries of its G query heads, one
/// head after another; `k`, `v` `[B, K, T, W]`; `bias` `[B or 1, 1, 1, S, T]`. Returns the shape of `q`.
pub(crate) fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<5>>, seq: usize) -> Tensor<4> {
    let Some(bias) = bias else {
        // Decoding without padding: every query sees every key, and there is nothing to keep.
        return activation::softmax(q.matmul(k.swap_dims(2, 3)), 3).matmul(v);
    };
    let scores = q.matmul(k.swap_dims(2, 3));
    let flat = scores.dims();
    let [batch, heads, rows, columns] = flat;
    let scores = scores.reshape([batch, heads, rows / seq, seq, columns]) + bias;
    let dtype = scores.dtype();
    let shares = if matches!(dtype, DType::F16 | DType::BF16) {
        activation::softmax(scores.cast(DType::F32), 4).cast(dtype)
    } else {
        activation::softmax(scores, 4)
    };
    shares.reshape(flat).matmul(v)
}
