//! The two halves of a decoder layer in a backend's own operations, one node of the graph each.
//!
//! The same mathematics as [`crate::blocks`] has on slices for f32 on flex, for every backend and
//! float type: `x + o(attention(rotary(q, k, v of rms_norm(x))))` and
//! `x + down(silu(gate) * up of rms_norm(x))`. Norm, rotation, attention and SwiGLU are those of
//! `wmtp_kernels`, so that CubeCL devices run their kernels and hold no S x S scores. The backward
//! pass is written out: no graph inside, and what waits for it is the input with the rotated queries,
//! keys, values and mixed values, or gate and up; with [`crate::Compute::recompute`] the input alone.

mod attention;
mod feed_forward;
mod operation;

pub use attention::Sizes;
pub use operation::HalfOps;

use crate::attention::Compute;
use crate::config::LlamaConfig;
use crate::rope::RopeTables;
use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wmtp_kernels::attention::{AttentionBackend, document_starts};
use wmtp_kernels::{rms_norm::RmsNormBackend, rotary::RotaryBackend, swiglu::SwigluBackend};

/// A backend with the operations of a layer.
pub trait LayerBackend: RmsNormBackend + RotaryBackend + AttentionBackend + SwigluBackend {}

impl<B: RmsNormBackend + RotaryBackend + AttentionBackend + SwigluBackend> LayerBackend for B {}

/// What all layers share about a batch of whole rows.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    rope: RopeTables,
    /// `[B, S]`: the first position that each position sees.
    starts: Tensor<2, Int>,
    sizes: Sizes,
    recompute: bool,
}

impl Batch {
    /// `positions` and `docs` row by row, `[B, S]`; a negative document is padding, which sees itself.
    pub fn new(
        config: &LlamaConfig,
        [positions, docs]: [&[i64]; 2],
        shape: [usize; 2],
        compute: Compute,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let starts = docs.chunks(shape[1].max(1)).flat_map(document_starts).collect();
        Self {
            rope: RopeTables::new(config, positions, shape, dtype, device),
            starts: Tensor::from_data(TensorData::new::<i64, _>(starts, shape), device),
            sizes: Sizes {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                width: config.head_dim,
                eps: config.rms_norm_eps,
            },
            recompute: compute.recompute,
        }
    }

    /// The attention half on the rows of `x` `[N, D]`; `weights` are the matrices of queries, keys,
    /// values and output.
    pub fn attention(&self, x: Tensor<2>, norm: Tensor<1>, weights: [Tensor<2>; 4]) -> Tensor<2> {
        let [q, k, v, o] = weights.map(Tensor::into_dispatch);
        let [cos, sin] = self.rope.tables().map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::attention_half(
            x.into_dispatch(),
            norm.into_dispatch(),
            q,
            k,
            v,
            o,
            cos,
            sin,
            self.starts.clone().into_dispatch(),
            self.sizes,
            self.recompute,
        ))
    }

    /// The feed-forward half on the rows of `x` `[N, D]`; `weights` are the matrices of gate, up and
    /// down.
    pub fn feed_forward(&self, x: Tensor<2>, norm: Tensor<1>, weights: [Tensor<2>; 3]) -> Tensor<2> {
        let [gate, up, down] = weights.map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::feed_forward_half(
            x.into_dispatch(),
            norm.into_dispatch(),
            gate,
            up,
            down,
            self.sizes.eps,
            self.recompute,
        ))
    }
}
