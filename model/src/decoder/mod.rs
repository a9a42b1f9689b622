//! One Llama decoder layer, which is also one prediction head: its weights, and how it is computed.
//!
//! | what | where |
//! |---|---|
//! | what a layer computes, as data | [`LayerSpec`], by model family ([`families`]) |
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
mod families;
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
use crate::raw;
pub(crate) use decode::{LayerWeights, SegmentId, Segments, decode, decode_last, extend_caches};
pub use execution::AttentionContext;
pub(crate) use families::{FAMILIES, Family};
pub(crate) use kv_cache::{NewTexts, TensorDecode, TensorKvCache};
use node::{DecoderOps, Inputs};
#[cfg(feature = "flex")]
pub(crate) use segment_cache::{Part, SegmentCaches};
pub use spec::{Activation, Biases, LayerKind, LayerSpec, Norm};

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
    /// Norm of each query's head, `[head_dim]`, in models that have it.
    pub q_norm: Option<RmsNorm>,
    /// Norm of each key's head, `[head_dim]`, in models that have it.
    pub k_norm: Option<RmsNorm>,
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
    #[module(skip)]
    kind: LayerKind,
}

/// A parameter by reference, whatever its rank.
pub(crate) enum Weight<'a> {
    Matrix(&'a Param<Tensor<2>>),
    Vector(&'a Param<Tensor<1>>),
}

impl Weight<'_> {
    /// Its dimensions.
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Matrix(param) => param.lazy_shape().to_vec(),
            Self::Vector(param) => param.lazy_shape().to_vec(),
        }
    }

    /// Its values in f32, those of adapters included.
    pub(crate) fn values(&self) -> Vec<f32> {
        raw::to_f32(match self {
            Self::Matrix(param) => param.val().into_data(),
            Self::Vector(param) => param.val().into_data(),
        })
    }
}

impl DecoderLayer {
    /// Builds layer `index` from a source of parameters by name within the layer.
    pub(crate) fn build<E>(
        config: &LlamaConfig,
        index: usize,
        matrix: &dyn Fn(&str) -> Result<Param<Tensor<2>>, E>,
        vector: &dyn Fn(&str) -> Result<Param<Tensor<1>>, E>,
    ) -> Result<Self, E> {
        let spec = config.layer_spec();
        let LayerSpec { norm, biases, .. } = spec;
        let norm = |module: &str| vector(&format!("{module}.weight")).map(|weight| RmsNorm::new(weight, norm.eps()));
        let linear = |module: &str, has_bias: bool| {
            let bias = has_bias.then(|| vector(&format!("{module}.bias"))).transpose();
            Ok(Linear {
                weight: matrix(&format!("{module}.weight"))?,
                bias: bias?,
            })
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention {
                q_proj: linear("self_attn.q_proj", biases.qkv)?,
                k_proj: linear("self_attn.k_proj", biases.qkv)?,
                v_proj: linear("self_attn.v_proj", biases.qkv)?,
                o_proj: linear("self_attn.o_proj", biases.o)?,
                q_norm: spec.head_norms.then(|| norm("self_attn.q_norm")).transpose()?,
                k_norm: spec.head_norms.then(|| norm("self_attn.k_norm")).transpose()?,
            },
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp {
                gate_proj: linear("mlp.gate_proj", biases.mlp)?,
                up_proj: linear("mlp.up_proj", biases.mlp)?,
                down_proj: linear("mlp.down_proj", biases.mlp)?,
            },
            kind: spec.kind(index),
        })
    }

    /// All parameters with their names within the layer, in the order of [`LlamaConfig::layer_tensors`].
    pub(crate) fn weights(&self) -> Vec<(String, Weight<'_>)> {
        fn norm<'a>(module: &str, norm: &'a RmsNorm) -> Vec<(String, Weight<'a>)> {
            vec![(format!("{module}.weight"), Weight::Vector(&norm.weight))]
        }
        fn linear<'a>(module: &str, map: &'a Linear) -> Vec<(String, Weight<'a>)> {
            let mut weights = vec![(format!("{module}.weight"), Weight::Matrix(&map.weight))];
            let bias = map.bias.as_ref().map(Weight::Vector);
            weights.extend(bias.map(|bias| (format!("{module}.bias"), bias)));
            weights
        }
        let weights = self.by_role();
        [
            norm("input_layernorm", weights.input_norm),
            linear("self_attn.q_proj", weights.q),
            linear("self_attn.k_proj", weights.k),
            linear("self_attn.v_proj", weights.v),
            linear("self_attn.o_proj", weights.o),
            weights.q_norm.map_or(Vec::new(), |of_q| norm("self_attn.q_norm", of_q)),
            weights.k_norm.map_or(Vec::new(), |of_k| norm("self_attn.k_norm", of_k)),
            norm("post_attention_layernorm", weights.post_attention_norm),
            linear("mlp.gate_proj", weights.gate),
            linear("mlp.up_proj", weights.up),
            linear("mlp.down_proj", weights.down),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What it computes that not every layer does.
    pub(crate) fn kind(&self) -> LayerKind {
        self.kind
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
            q_norm: attention.q_norm.as_ref(),
            k_norm: attention.k_norm.as_ref(),
            post_attention_norm: &self.post_attention_layernorm,
            gate: &mlp.gate_proj,
            up: &mlp.up_proj,
            down: &mlp.down_proj,
        }
    }

    /// The layer on `x` `[B * S, D]`, all rows of a batch. With `rows` the MLP sublayer is computed, and
    /// returned, for these rows only.
    pub(crate) fn forward(&self, x: Tensor<2>, ctx: &AttentionContext, rows: Option<Tensor<1, Int>>) -> Tensor<2> {
        let (weights, execution) = (self.by_role(), ctx.execution(self.kind));
        let maps = [weights.q, weights.k, weights.v, weights.o];
        let x = Dispatch::attention_sublayer(
            inputs(x, weights.input_norm, maps, [weights.q_norm, weights.k_norm]),
            execution.clone(),
        );
        let x = match rows {
            Some(rows) => Tensor::from_dispatch(x).select(0, rows),
            None => Tensor::from_dispatch(x),
        };
        let y = Dispatch::mlp_sublayer(
            inputs(
                x,
                weights.post_attention_norm,
                [weights.gate, weights.up, weights.down],
                [None, None],
            ),
            execution.clone(),
        );
        Tensor::from_dispatch(y)
    }
}

/// A sublayer's inputs.
fn inputs<const L: usize>(
    x: Tensor<2>,
    norm: &RmsNorm,
    maps: [&Linear; L],
    head_norms: [Option<&RmsNorm>; 2],
) -> Inputs<Dispatch, L> {
    Inputs {
        x: x.into_dispatch(),
        norm: norm.weight.val().into_dispatch(),
        matrices: maps.map(|map| map.weight.val().into_dispatch()),
        biases: maps.map(|map| map.bias.as_ref().map(|bias| bias.val().into_dispatch())),
        head_norms: head_norms.map(|norm| norm.map(|norm| norm.weight.val().into_dispatch())),
    }
}
