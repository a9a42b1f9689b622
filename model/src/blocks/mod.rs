//! The two halves of a decoder layer as one operation each, on flex.
//!
//! `x + o(attention(rotary(q, k, v of rms_norm(x))))` and `x + down(silu(gate) * up of rms_norm(x))`,
//! with a backward pass of their own on slices in host memory: no graph inside, no sums of gradients
//! where a tensor is used twice, and only what the backward pass needs is kept, in the type in which
//! its products take it. Other backends, f64 and decoding with a cache take the layer in single
//! operations ([`crate::ops`]); both compute the same.

mod half;
mod operation;
mod plan;

pub use operation::BlockOps;
#[cfg(feature = "flex")]
pub(crate) use operation::flex;
pub(crate) use plan::Plan;

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use std::sync::Arc;

/// The attention half on the rows of `x` `[N, D]`; `weights` are the matrices of queries, keys,
/// values and output.
pub(crate) fn attention(x: Tensor<2>, norm: Tensor<1>, weights: [Tensor<2>; 4], plan: &Arc<Plan>) -> Tensor<2> {
    let [q, k, v, o] = weights.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::attention_block(
        x.into_dispatch(),
        norm.into_dispatch(),
        q,
        k,
        v,
        o,
        plan.clone(),
    ))
}

/// The feed-forward half on the rows of `x` `[N, D]`; `weights` are the matrices of gate, up and down.
pub(crate) fn feed_forward(x: Tensor<2>, norm: Tensor<1>, weights: [Tensor<2>; 3], plan: &Arc<Plan>) -> Tensor<2> {
    let [gate, up, down] = weights.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::feed_forward_block(
        x.into_dispatch(),
        norm.into_dispatch(),
        gate,
        up,
        down,
        plan.clone(),
    ))
}
