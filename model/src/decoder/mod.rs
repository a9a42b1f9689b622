//! One Llama decoder layer, which is also one prediction head: its weights, and how it is computed.
//!
//! | what | where |
//! |---|---|
//! | what a layer computes, as data | [`LayerSpec`] |
//! | mathematics of both sublayers for training | [`sublayer`], on slices ([`slices`]) or in a backend's operations ([`operations`]), a graph node each ([`node`]) |
//! | how a batch is computed, and what its layers share | [`execution`] |
//! | mathematics of a layer for decoding with a KV cache | [`decode`](decode()), on slices ([`decode_slices`], [`segment_cache`]) or in burn's tensors ([`kv_cache`]) |
//!
//! Matrices are `[out, in]`, transformers' layout, so that files are loaded and saved without
//! rearranging. Keys and values are not repeated for the query heads that share them: the queries of a
//! group are stacked, so that one product serves the whole group.

mod decode;
#[cfg(feature = "flex")]
pub(crate) mod decode_slices;
mod execution;
mod kv_cache;
mod node;
mod operations;
#[cfg(feature = "flex")]
mod segment_cache;
#[cfg(feature = "flex")]
mod slices;
mod spec;
mod sublayer;
#[cfg(test)]
mod tests;

use burn::backend::Dispatch;
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::config::LlamaConfig;
use crate::linear::{Linear, RmsNorm};
use crate::names;
pub(crate) use decode::{LayerWeights, SegmentId, decode, decode_last, extend_caches};
pub use execution::AttentionContext;
pub(crate) use execution::Execution;
pub(crate) use kv_cache::{NewTexts, TensorDecode, TensorKvCache};
use node::DecoderOps;
#[cfg(feature = "flex")]
pub(crate) use segment_cache::{Part, SegmentCaches};
pub use spec::{Activation, Biases, LayerSpec, Norm};

/// Grouped-query self-attention with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[heads * head_dim, D]`.
    pub q_proj: Linear,
    /// `[kv heads * head_dim, D]`.
    pub k_proj: Linear,
    /// `[kv heads * head_dim, D]`.
    pub v_proj: Linear,
    /// `[D, heads * head_dim]`.
    pub o_proj: Linear,
}

/// The SwiGLU MLP.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// One pre-norm decoder layer, and as such also one prediction head.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Norm of the attention sublayer.
    pub input_layernorm: RmsNorm,
    /// Weights of the attention sublayer.
    pub self_attn: Attention,
    /// Norm of the MLP sublayer.
    pub post_attention_layernorm: RmsNorm,
    /// Weights of the MLP sublayer.
    pub mlp: Mlp,
}

/// A parameter by reference, whatever its rank.
pub(crate) enum Weight<'a> {
    Matrix(&'a Param<Tensor<2>>),
    Vector(&'a Param<Tensor<1>>),
}

impl DecoderLayer {
    /// Builds a layer from a source of parameters by name within the layer.
    pub(crate) fn build<E>(
        config: &LlamaConfig,
        matrix: &mut dyn FnMut(&str) -> Result<Param<Tensor<2>>, E>,
        vector: &mut dyn FnMut(&str) -> Result<Param<Tensor<1>>, E>,
    ) -> Result<Self, E> {
        let mut linear = |name: &str| matrix(name).map(|weight| Linear { weight });
        let mut norm = |name: &str| vector(name).map(|weight| RmsNorm::new(weight, config.layer_spec().norm.eps()));
        Ok(Self {
            input_layernorm: norm("input_layernorm.weight")?,
            self_attn: Attention {
                q_proj: linear("self_attn.q_proj.weight")?,
                k_proj: linear("self_attn.k_proj.weight")?,
                v_proj: linear("self_attn.v_proj.weight")?,
                o_proj: linear("self_attn.o_proj.weight")?,
            },
            post_attention_layernorm: norm("post_attention_layernorm.weight")?,
            mlp: Mlp {
                gate_proj: linear("mlp.gate_proj.weight")?,
                up_proj: linear("mlp.up_proj.weight")?,
                down_proj: linear("mlp.down_proj.weight")?,
            },
        })
    }

    /// All parameters with their names within the layer, in the order of [`names::LAYER`].
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&'static str, Weight<'_>)> {
        let values = [
            Weight::Vector(&self.input_layernorm.weight),
            Weight::Matrix(&self.self_attn.q_proj.weight),
            Weight::Matrix(&self.self_attn.k_proj.weight),
            Weight::Matrix(&self.self_attn.v_proj.weight),
            Weight::Matrix(&self.self_attn.o_proj.weight),
            Weight::Vector(&self.post_attention_layernorm.weight),
            Weight::Matrix(&self.mlp.gate_proj.weight),
            Weight::Matrix(&self.mlp.up_proj.weight),
            Weight::Matrix(&self.mlp.down_proj.weight),
        ];
        names::LAYER.into_iter().zip(values)
    }

    /// The weights by their role, for decoding.
    pub(crate) fn by_role(&self) -> LayerWeights<&RmsNorm, &Linear> {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        LayerWeights {
            input_norm: &self.input_layernorm,
            q: &attention.q_proj,
            k: &attention.k_proj,
            v: &attention.v_proj,
            o: &attention.o_proj,
            post_attention_norm: &self.post_attention_layernorm,
            gate: &mlp.gate_proj,
            up: &mlp.up_proj,
            down: &mlp.down_proj,
        }
    }

    /// The layer on `x` `[B * S, D]`, all rows of a batch. With `rows` the MLP sublayer is computed, and
    /// returned, for these rows only.
    pub(crate) fn forward(&self, x: Tensor<2>, ctx: &AttentionContext, rows: Option<Tensor<1, Int>>) -> Tensor<2> {
        let weights = self.by_role();
        let of_rows = |x: Tensor<2>| match rows {
            Some(rows) => x.select(0, rows),
            None => x,
        };
        let execution = || ctx.execution.clone();
        let norm = |norm: &RmsNorm| norm.weight.val().into_dispatch();
        let matrix = |linear: &Linear| linear.weight.val().into_dispatch();
        let input_norm = norm(weights.input_norm);
        let [q, k, v, o] = [weights.q, weights.k, weights.v, weights.o].map(matrix);
        let x = Dispatch::attention_sublayer(x.into_dispatch(), input_norm, q, k, v, o, execution());
        let x = of_rows(Tensor::from_dispatch(x));
        let mlp_norm = norm(weights.post_attention_norm);
        let [gate, up, down] = [weights.gate, weights.up, weights.down].map(matrix);
        let y = Dispatch::mlp_sublayer(x.into_dispatch(), mlp_norm, gate, up, down, execution());
        Tensor::from_dispatch(y)
    }
}
