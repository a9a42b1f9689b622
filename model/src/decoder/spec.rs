//! What a decoder layer computes, as data made from `config.json`, by model family.
//!
//! A value that no code in this crate computes is refused by name while the configuration is read: a model
//! is never computed as something else than it was trained as. A new model family is an entry of
//! [`FAMILIES`].

use serde_json::Value;
use wmtp_kernels::attention::flex::Heads;

use crate::config::LlamaConfig;
use crate::fields::Fields;

/// A model family: its names in `config.json`, and what its layers compute.
pub(crate) struct Family {
    /// The value of `model_type`.
    pub model_type: &'static str,
    /// Names that `architectures` may hold; the first is the one that is written.
    pub architectures: &'static [&'static str],
    /// Reads what the layers compute; norm and heads come from the configuration.
    layers: fn(&mut Fields<'_>, Norm, Heads) -> LayerSpec,
}

/// The families that are read. The first is that of a configuration that was not read from a file.
pub(crate) const FAMILIES: &[Family] = &[Family {
    model_type: "llama",
    architectures: &["LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaModel"],
    layers: llama,
}];

/// `attention_bias` adds a bias to queries, keys, values and output.
fn llama(fields: &mut Fields<'_>, norm: Norm, heads: Heads) -> LayerSpec {
    let attention = fields.flag("attention_bias", false);
    let biases = Biases {
        qkv: attention,
        o: attention,
        mlp: fields.flag("mlp_bias", false),
    };
    LayerSpec::read(fields, norm, heads, biases)
}

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
    /// Sliding window: the number of tokens that a token attends to. None: all before it.
    pub window: Option<usize>,
    /// Factor of the embedded tokens.
    pub embedding_scale: Option<f64>,
    /// Soft cap c of attention scores s, `c * tanh(s / c)`.
    pub soft_cap: Option<f64>,
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
    fn read(fields: &mut Fields<'_>, norm: Norm, heads: Heads, biases: Biases) -> Self {
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
            window: fields
                .get("sliding_window")
                .is_some()
                .then(|| fields.size("sliding_window", None)),
            embedding_scale: number(fields, "embedding_multiplier"),
            soft_cap: number(fields, "attn_logit_softcapping"),
        }
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
            set("sliding_window", self.window.is_some()),
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
        (self.family().layers)(fields, norm, heads)
    }

    /// Adds a problem for each feature of its layers that is not supported.
    pub(crate) fn check_layer_spec(&self, fields: &mut Fields<'_>) {
        let spec = self.read_layer_spec(fields);
        spec.unsupported()
            .into_iter()
            .for_each(|problem| fields.problem(problem));
    }
}
