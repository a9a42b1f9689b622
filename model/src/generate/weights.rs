//! A model's weights as generation on flex reads them, and their forms that are made once and shared by many calls.
//!
//! A step's time is that of reading the weights. So prepared weights are as small as they can be without a change of
//! the text: an f32 matrix all of whose values are bf16 numbers, as in most published checkpoints, is kept in bf16,
//! and what only drafts depend on (heads 2..H and their part of the unembedding) is rounded to 8 bits, since head 1
//! verifies every draft.

use super::engine::DraftSpan;
use crate::causal_lm::CausalLm;
use crate::compute::is_flex;
use crate::config::LlamaConfig;
use crate::decoder::decode_slices::{Matrix, SliceWeights, normed, slice_weights, vector};
use crate::decoder::{DecoderLayer, LayerKind};
use crate::llama::MtpLlama;
use crate::quantization::{Quantization, Storage};
use burn::tensor::Tensor;
use wmtp_kernels::attention::flex::Heads;

/// Tokens that heads may draft at least; of a vocabulary with more than four times as many, a quarter.
const DRAFTED_TOKENS: usize = 8192;

/// A model's weights on slices.
pub struct Weights {
    pub(super) config: LlamaConfig,
    pub(super) heads: Heads,
    pub(super) eps: f32,
    embedding: Matrix,
    /// None where it is the embedding.
    unembedding: Option<Matrix>,
    /// The first rows of the unembedding, where drafts have some of their own.
    of_drafts: Option<Matrix>,
    /// Final norms of head 1, and of the others if they draft.
    norms: Vec<Vec<f32>>,
    /// Number of the trunk's layers; the next one is head 1.
    pub(super) trunk: usize,
    /// The trunk's layers, then head 1, then the others if they draft.
    pub(super) layers: Vec<SliceWeights>,
    /// Of each of `layers`.
    pub(super) kinds: Vec<LayerKind>,
}

impl Weights {
    /// None where the model's device or type is another one. `drafts`: with heads 2..H.
    pub fn new(model: &MtpLlama, drafts: bool, storage: Storage) -> Option<Self> {
        if !is_flex(&model.device()) {
            return None;
        }
        let of_embeddings = match storage {
            Storage::Prepared(Some(quantization)) => Storage::Prepared(Some(quantization.of_embeddings())),
            other => other,
        };
        let matrix = |tensor: Tensor<2>| Some(Matrix::new(tensor)?.stored(of_embeddings));
        let spec = model.config().layer_spec();
        let parts = model.parts();
        let heads = if drafts { parts.heads.len() } else { 1 };
        let layers = || parts.trunk.iter().chain(parts.heads.iter().take(heads));
        let own = parts.trunk.len() + 1;
        // Quantized embeddings have 8 bits already.
        let separate = drafts && storage == Storage::Prepared(None);
        let of_drafts = match storage {
            Storage::Prepared(None) => Storage::Prepared(Some(Quantization::Int8)),
            other => other,
        };
        let drafted = drafted_tokens(model.config());
        Some(Self {
            config: model.config().clone(),
            heads: spec.heads,
            eps: spec.norm.eps() as f32,
            of_drafts: match separate {
                true => {
                    let tensor = parts.unembedding.clone().unwrap_or_else(|| parts.embedding.clone());
                    Some(Matrix::new(tensor.narrow(0, 0, drafted))?.stored(of_drafts))
                }
                false => None,
            },
            embedding: matrix(parts.embedding)?,
            unembedding: match parts.unembedding {
                Some(tensor) => Some(matrix(tensor)?),
                None => None,
            },
            norms: (1..=heads).map(|k| vector(&model.norm_of(k).weight)).collect(),
            trunk: parts.trunk.len(),
            layers: layers()
                .enumerate()
                .map(|(i, layer)| slice_weights(layer, if i < own { storage } else { of_drafts }))
                .collect::<Option<_>>()?,
            kinds: layers().map(DecoderLayer::kind).collect(),
        })
    }

    /// Whether heads 2..H are among them.
    pub fn has_drafts(&self) -> bool {
        self.layers.len() > self.trunk + 1
    }

    /// Heads 2..H that draft, by their index among the layers.
    pub(super) fn drafting(&self) -> std::ops::Range<usize> {
        self.trunk + 1..self.layers.len()
    }

    pub(super) fn embedded(&self, spans: &[DraftSpan<'_>]) -> Vec<f32> {
        let mut x = Vec::new();
        for token in spans.iter().flat_map(|span| span.tokens) {
            self.embedding.push_row(*token as usize, &mut x);
        }
        x
    }

    /// Values of a row `[D]`.
    pub(super) fn width(&self) -> usize {
        self.norms[0].len()
    }

    /// Rows of head `k` in its final norm.
    pub(super) fn normed(&self, k: usize, x: &[f32]) -> Vec<f32> {
        normed(x, &self.norms[k - 1], self.eps)
    }

    fn unembedding(&self) -> &Matrix {
        self.unembedding.as_ref().unwrap_or(&self.embedding)
    }

    /// Logits of normed rows.
    pub(super) fn logits(&self, normed: &[f32]) -> Vec<f32> {
        self.unembedding().times(normed)
    }

    /// Logits of normed rows for drafts: of the first tokens of a large vocabulary alone. Vocabularies of merges and
    /// of pieces have the frequent tokens first; a draft that is missed costs nothing but its chance.
    pub(super) fn draft_logits(&self, normed: &[f32]) -> Vec<f32> {
        match &self.of_drafts {
            Some(matrix) => matrix.times(normed),
            None => self.unembedding().times_first(normed, drafted_tokens(&self.config)),
        }
    }
}

/// Tokens that may be drafted: the first ones of the vocabulary.
fn drafted_tokens(config: &LlamaConfig) -> usize {
    config.vocab_size.min(DRAFTED_TOKENS.max(config.vocab_size / 4))
}
