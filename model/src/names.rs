//! Names and shapes of all tensors, in the layouts that this crate reads and writes.
//!
//! The one list that loading, saving, converting, hashing and adapting agree on.

use crate::config::LlamaConfig;

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name in the file.
    pub name: String,
    /// Dimensions; matrices are `[out, in]` as transformers stores them.
    pub shape: Vec<usize>,
}

/// Tensors of one decoder layer, in the order in which layers are built.
pub(crate) const LAYER: [&str; 9] = [
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
];

/// The embedding `[V, D]`.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The final norm `[D]`.
pub(crate) const NORM: &str = "model.norm.weight";
/// The unembedding `[V, D]`, absent where it is tied.
pub(crate) const UNEMBEDDING: &str = "lm_head.weight";

/// Prefix of decoder layer `i`, from 0.
pub(crate) fn layer_prefix(i: usize) -> String {
    format!("model.layers.{i}.")
}

/// Prefix of prediction head `k`, from 2.
pub(crate) fn head_prefix(k: usize) -> String {
    format!("mtp.heads.{k}.")
}

impl LlamaConfig {
    /// Shape of a decoder layer's tensor by its name within the layer.
    fn layer_shape(&self, name: &str) -> Vec<usize> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        match name {
            "self_attn.q_proj.weight" => vec![self.query_size(), d],
            "self_attn.k_proj.weight" | "self_attn.v_proj.weight" => vec![self.key_value_size(), d],
            "self_attn.o_proj.weight" => vec![d, self.query_size()],
            "mlp.gate_proj.weight" | "mlp.up_proj.weight" => vec![f, d],
            "mlp.down_proj.weight" => vec![d, f],
            _ => vec![d],
        }
    }

    /// The tensors of a decoder layer whose names start with `prefix`.
    pub(crate) fn layer_tensors(&self, prefix: &str) -> Vec<TensorSpec> {
        LAYER
            .iter()
            .map(|name| TensorSpec {
                name: format!("{prefix}{name}"),
                shape: self.layer_shape(name),
            })
            .collect()
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
        self.layer_tensors(&head_prefix(k))
    }
}
