//! Names and shapes of all tensors, in the layouts that this crate reads and writes.
//!
//! The one list that loading, saving, converting, hashing and adapting agree on.

use crate::config::LlamaConfig;
use crate::decoder::LayerSpec;

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name in the file.
    pub name: String,
    /// Dimensions; matrices are `[out, in]` as transformers stores them.
    pub shape: Vec<usize>,
}

/// The embedding `[V, D]`.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The final norm `[D]`.
pub(crate) const NORM: &str = "model.norm.weight";
/// The unembedding `[V, D]`, absent where it is tied.
pub(crate) const UNEMBEDDING: &str = "lm_head.weight";

/// The final norm of a prediction head within its prefix, in models that have it; else heads share [`NORM`].
pub(crate) const HEAD_NORM: &str = "norm.weight";

/// Prefix of decoder layer `i`, from 0.
pub(crate) fn layer_prefix(i: usize) -> String {
    format!("model.layers.{i}.")
}

/// Prefix of prediction head `k`, from 2.
pub(crate) fn head_prefix(k: usize) -> String {
    format!("mtp.heads.{k}.")
}

impl LlamaConfig {
    /// The tensors of a decoder layer whose names start with `prefix`, in the order in which layers are
    /// built.
    pub(crate) fn layer_tensors(&self, prefix: &str) -> Vec<TensorSpec> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.query_size(), self.key_value_size());
        let LayerSpec { biases, head_norms, .. } = self.layer_spec();
        let tensor = |module: &str, part: &str, shape: Vec<usize>| TensorSpec {
            name: format!("{prefix}{module}.{part}"),
            shape,
        };
        let norm = |module: &str| vec![tensor(module, "weight", vec![d])];
        let head_norm = |module: &str| {
            let norm = head_norms.then(|| tensor(module, "weight", vec![self.head_dim]));
            norm.into_iter().collect()
        };
        let linear = |module: &str, [out, inner]: [usize; 2], has_bias: bool| {
            let bias = has_bias.then(|| tensor(module, "bias", vec![out]));
            std::iter::once(tensor(module, "weight", vec![out, inner]))
                .chain(bias)
                .collect()
        };
        [
            norm("input_layernorm"),
            linear("self_attn.q_proj", [q, d], biases.qkv),
            linear("self_attn.k_proj", [kv, d], biases.qkv),
            linear("self_attn.v_proj", [kv, d], biases.qkv),
            linear("self_attn.o_proj", [d, q], biases.o),
            head_norm("self_attn.q_norm"),
            head_norm("self_attn.k_norm"),
            norm("post_attention_layernorm"),
            linear("mlp.gate_proj", [f, d], biases.mlp),
            linear("mlp.up_proj", [f, d], biases.mlp),
            linear("mlp.down_proj", [d, f], biases.mlp),
        ]
        .concat()
    }

    /// Tensors of `model.safetensors`: embedding, L layers, final norm and, if not tied, unembedding.
    pub fn model_tensors(&self) -> Vec<TensorSpec> {
        let matrix = vec![self.vocab_size, self.hidden_size];
        let mut specs = vec![TensorSpec {
            name: EMBEDDING.to_owned(),
            shape: matrix.clone(),
        }];
        for i in 0..self.num_hidden_layers {
            specs.extend(self.layer_tensors(&layer_prefix(i)));
        }
        specs.push(TensorSpec {
            name: NORM.to_owned(),
            shape: vec![self.hidden_size],
        });
        if !self.tie_word_embeddings {
            specs.push(TensorSpec {
                name: UNEMBEDDING.to_owned(),
                shape: matrix,
            });
        }
        specs
    }

    /// Tensors of prediction head `k` (2..=H) in `mtp_heads.safetensors`.
    pub fn head_tensors(&self, k: usize) -> Vec<TensorSpec> {
        let mut specs = self.layer_tensors(&head_prefix(k));
        specs.extend(self.head_norms.then(|| TensorSpec {
            name: format!("{}{HEAD_NORM}", head_prefix(k)),
            shape: vec![self.hidden_size],
        }));
        specs
    }

    /// Tensors of `mtp_heads.safetensors`: those of heads 2..H.
    pub(crate) fn all_head_tensors(&self) -> Vec<TensorSpec> {
        (2..=self.n_heads).flat_map(|k| self.head_tensors(k)).collect()
    }

    /// Tensors of the model and of all its heads.
    pub(crate) fn all_tensors(&self) -> Vec<TensorSpec> {
        [self.model_tensors(), self.all_head_tensors()].concat()
    }
}
