//! What a decoder layer computes, as data made from `config.json`, by model family.
//!
//! A value that no code in this crate computes is refused by name while the configuration is read: a model
//! is never computed as something else than it was trained as. A new model family is an entry of
//! [`FAMILIES`](super::families::FAMILIES).

use serde_json::Value;
use wmtp_kernels::attention::flex::Heads;

use super::families::{FAMILIES, Family};
use crate::config::LlamaConfig;
use crate::fields::Fields;

/// A decoder layer as data.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The norm before each sublayer, and before the unembedding.
    pub norm: Norm,
    /// Query heads, key and value heads, and the width of a head.
    pub heads: Heads,
    /// The activation of the MLP's gate.
    pub activation: Activation,
    /// The linear maps that add a bias.
    pub biases: Biases,
    /// RMSNorm of each query's and each key's head, before rotation (Henry et al. 2020, arXiv 2010.04245).
    pub head_norms: bool,
    /// What differs from layer to layer, for each of the L layers. Prediction heads 2..H are as the last one.
    pub kinds: Vec<LayerKind>,
    /// Factor of the embedded tokens.
    pub embedding_scale: Option<f64>,
    /// Soft cap c of attention scores s, `c * tanh(s / c)`.
    pub soft_cap: Option<f64>,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerKind {
    /// Sliding window (Beltagy et al. 2020, arXiv 2004.05150): the number of tokens that a token attends to,
    /// itself among them. None: all before it.
    pub window: Option<usize>,
    /// Whether queries and keys are rotated by their positions.
    pub rotary: bool,
}

/// A norm over the `D` values of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

impl Norm {
    /// What is added under the square root.
    pub fn eps(&self) -> f64 {
        match self {
            Self::Rms { eps } => *eps,
        }
    }
}

/// The activation of a gated MLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`: the MLP is a SwiGLU (Shazeer 2020, arXiv 2002.05202).
    Silu,
    /// Another one, by its name in `config.json`; not supported.
    Other(String),
}

/// Which linear maps of a layer add a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The attention sublayer's output.
    pub o: bool,
    /// Gate, up and down; not supported.
    pub mlp: bool,
}

impl LayerSpec {
    /// Reads the features that families share, under transformers' field names.
    pub(super) fn read(
        fields: &mut Fields<'_>,
        norm: Norm,
        heads: Heads,
        biases: Biases,
        kinds: Vec<LayerKind>,
    ) -> Self {
        let number =
            |fields: &mut Fields<'_>, name: &str| fields.get(name).is_some().then(|| fields.number(name, None));
        Self {
            norm,
            heads,
            activation: match fields.get("hidden_act") {
                None => Activation::Silu,
                Some(Value::String(name)) if name == "silu" => Activation::Silu,
                Some(other) => Activation::Other(other.to_string()),
            },
            biases,
            head_norms: false,
            kinds,
            embedding_scale: number(fields, "embedding_multiplier"),
            soft_cap: number(fields, "attn_logit_softcapping"),
        }
    }

    /// That of layer `index`; of the last layer where there are fewer.
    pub fn kind(&self, index: usize) -> LayerKind {
        let kind = self.kinds.get(index).or(self.kinds.last());
        kind.copied().unwrap_or(LayerKind {
            window: None,
            rotary: true,
        })
    }

    /// One sentence for each feature that no code in this crate computes.
    fn unsupported(&self) -> Vec<String> {
        let set = |name: &str, is_set: bool| is_set.then(|| format!("`{name}` is set, which is not supported"));
        let mlp_bias = || "`mlp_bias` is true, MLPs with biases are not supported".to_owned();
        let activation = match &self.activation {
            Activation::Silu => None,
            Activation::Other(name) => Some(format!("`hidden_act` is {name}, only \"silu\" is supported")),
        };
        [
            activation,
            self.biases.mlp.then(mlp_bias),
            set(
                "embedding_multiplier",
                self.embedding_scale.is_some_and(|scale| scale != 1.0),
            ),
            set("attn_logit_softcapping", self.soft_cap.is_some()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl LlamaConfig {
    /// The family that its `model_type` names; the first one where it names none.
    pub(crate) fn family(&self) -> &'static Family {
        let model_type = self.other.get("model_type").and_then(Value::as_str);
        let named = FAMILIES.iter().find(|family| Some(family.model_type) == model_type);
        named.unwrap_or(&FAMILIES[0])
    }

    /// What its decoder layers compute.
    pub fn layer_spec(&self) -> LayerSpec {
        self.read_layer_spec(&mut Fields::new(&self.other))
    }

    fn read_layer_spec(&self, fields: &mut Fields<'_>) -> LayerSpec {
        let norm = Norm::Rms { eps: self.rms_norm_eps };
        let heads = Heads {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            width: self.head_dim,
        };
        (self.family().layers)(fields, norm, heads, self.num_hidden_layers)
    }

    /// Adds a problem for each feature of its layers that is not supported.
    pub(crate) fn check_layer_spec(&self, fields: &mut Fields<'_>) {
        let spec = self.read_layer_spec(fields);
        spec.unsupported()
            .into_iter()
            .for_each(|problem| fields.problem(problem));
    }
}
