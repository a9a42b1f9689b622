//! What training and evaluation need of a model.

use burn::module::ParamId;
use burn::tensor::{DType, Device, Int, Tensor};

use crate::compute::{Compute, Packed};
use crate::config::LlamaConfig;
use crate::decoder::AttentionContext;

/// A causal language model with H prediction heads over one trunk.
///
/// Shapes: B rows of S tokens, D values of a hidden state, V token ids.
pub trait CausalLm {
    /// The configuration, with `n_heads` as built.
    fn config(&self) -> &LlamaConfig;

    /// The device of the weights (an autodiff device while training).
    fn device(&self) -> Device;

    /// The float type of the weights and, but on flex, of all activations.
    fn dtype(&self) -> DType;

    /// How its layers are computed.
    fn compute(&self) -> Compute;

    /// H, the number of prediction heads.
    fn n_heads(&self) -> usize;

    /// Whether attention on this model's device goes document by document, so that a batch without
    /// padding and in a single row costs no more than its tokens.
    fn attends_by_document(&self) -> bool;

    /// Documents and rotary tables of a batch: make them once and pass them to trunk and heads.
    fn context(&self, input: &Packed) -> AttentionContext;

    /// The identity of the embedding among the parameters.
    fn embedding_id(&self) -> ParamId;

    /// Detached embedding rows of a batch's tokens, `[B * S, D]`, for [`CausalLm::trunk_of`]. Their gradient
    /// must be scatter-added into the embedding's afterwards.
    fn embedded(&self, input: &Packed) -> Tensor<2>;

    /// Hidden states `[B, S, D]` before the heads.
    fn trunk(&self, input: &Packed, ctx: &AttentionContext) -> Tensor<3>;

    /// [`CausalLm::trunk`] on embedded tokens `[B * S, D]`.
    fn trunk_of(&self, embedded: Tensor<2>, ctx: &AttentionContext) -> Tensor<3>;

    /// Head `k` (1..=H) on the trunk's output: `[B, S, D]` after the final norm, ready for the
    /// unembedding. At position `t` it predicts token `t + k`.
    ///
    /// # Panics
    /// If `k` is 0 or above [`CausalLm::n_heads`].
    fn head(&self, k: usize, trunk: Tensor<3>, ctx: &AttentionContext) -> Tensor<3>;

    /// [`CausalLm::head`] at some positions: `positions` `[R]` are flat indices `b * S + t`, in order; the
    /// result is `[R, D]`. All positions are attended to, but the MLP sublayer and the norm are computed for
    /// these only.
    ///
    /// # Panics
    /// As [`CausalLm::head`].
    fn head_at(&self, k: usize, trunk: Tensor<3>, ctx: &AttentionContext, positions: Tensor<1, Int>) -> Tensor<2>;

    /// The unembedding `[V, D]`; the embedding itself where they are tied.
    fn unembedding(&self) -> Tensor<2>;

    /// Logits `[B, S, V]` of hidden states `[B, S, D]`. Meant for few positions: the training loss never
    /// holds all logits.
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3>;
}
