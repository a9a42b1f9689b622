//! The parts of a decoder layer that hold weights: linear maps, norms, the feed-forward block.
//!
//! Matrices lie as `[out, in]`, transformers' layout, so that files are loaded and saved without
//! rearranging. A matrix product reads the transposed view at the same speed.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::attention::{Attention, AttentionContext, Cached, LayerCache, Rows, Way};
use crate::blocks;
use crate::config::LlamaConfig;
use crate::names;
use crate::ops;
use wmtp_kernels::{rms_norm::rms_norm, swiglu::swiglu};

/// A linear map without bias.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
}

impl Linear {
    /// Maps the rows of `x` `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear(x, self.weight.val())
    }
}

/// Root-mean-square norm.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(weight: Param<Tensor<1>>, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// Normalises the rows of `x` `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().cast(x.dtype());
        rms_norm(x, weight, self.eps)
    }
}

/// The SwiGLU feed-forward block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

impl Mlp {
    /// The block on the rows of `x` `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj.forward(swiglu(gate, self.up_proj.forward(x)))
    }
}

/// One pre-norm decoder layer, and as such also one prediction head.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Norm before the attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: Attention,
    /// Norm before the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
    /// Feed-forward block.
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
        let mut norm = |name: &str| vector(name).map(|weight| RmsNorm::new(weight, config.rms_norm_eps));
        Ok(Self {
            input_layernorm: norm("input_layernorm.weight")?,
            self_attn: Attention::new(
                config,
                [
                    linear("self_attn.q_proj.weight")?,
                    linear("self_attn.k_proj.weight")?,
                    linear("self_attn.v_proj.weight")?,
                    linear("self_attn.o_proj.weight")?,
                ],
            ),
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

    /// The layer on the rows of `x` `[B * S, D]`, whole rows of a batch: all of them, or those of
    /// `rows`, for which alone what follows attention is computed.
    pub(crate) fn forward(&self, x: Tensor<2>, ctx: &AttentionContext, rows: Option<Tensor<1, Int>>) -> Tensor<2> {
        let Attention {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            ..
        } = &self.self_attn;
        let Mlp {
            gate_proj,
            up_proj,
            down_proj,
        } = &self.mlp;
        let norms = [&self.input_layernorm, &self.post_attention_layernorm].map(|norm| norm.weight.val());
        let [before, between] = norms;
        let attention = [q_proj, k_proj, v_proj, o_proj].map(|linear| linear.weight.val());
        let feed_forward = [gate_proj, up_proj, down_proj].map(|linear| linear.weight.val());
        let select_rows = |x: Tensor<2>| match rows {
            Some(rows) => x.select(0, rows),
            None => x,
        };
        match &ctx.way {
            Way::Host(plan) => {
                let x = select_rows(blocks::attention(x, before, attention, plan));
                blocks::feed_forward(x, between, feed_forward, plan)
            }
            Way::Device(batch) => {
                let x = select_rows(batch.attention(x, before, attention));
                batch.feed_forward(x, between, feed_forward)
            }
        }
    }

    /// The layer on the rows of `x` `[N, D]`, the next tokens of texts with a cache each; for all
    /// rows, or the last of each text alone.
    pub(crate) fn decode(&self, x: Tensor<2>, new: &Cached, caches: &mut [&mut LayerCache], rows: Rows) -> Tensor<2> {
        let h = self.input_layernorm.forward(x.clone());
        let mixed = self.self_attn.decode(h, new, caches, rows);
        let x = match rows {
            Rows::All => x,
            Rows::LastOfEach => new.last_of_each(x),
        };
        let x = x + mixed;
        let fed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        x + fed
    }

    /// Puts the keys and values of `x` `[N, D]` into the caches, and nothing else.
    pub(crate) fn keep(&self, x: Tensor<2>, new: &Cached, caches: &mut [&mut LayerCache]) {
        self.self_attn.keep(self.input_layernorm.forward(x), new, caches);
    }
}
