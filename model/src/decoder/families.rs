//! Model families: their names in `config.json`, the defaults of fields that a file leaves out, and what their
//! layers compute. The rules are those of transformers 5.24 (`configuration_*.py` of each family).
//!
//! | family | beyond Llama |
//! |---|---|
//! | `mistral` | a sliding window in all layers; 4096 where the file does not name it, none where it is null |
//! | `qwen2` | biases of queries, keys and values; a sliding window in some layers |
//! | `qwen3` | norms of the heads of queries and keys; a sliding window in some layers |
//! | `smollm3` | layers without rotation; a sliding window in some layers |

use serde_json::Value;
use wmtp_kernels::attention::flex::Heads;

use super::spec::{Biases, LayerKind, LayerSpec, Norm};
use crate::fields::Fields;

/// A model family.
pub(crate) struct Family {
    /// The value of `model_type`.
    pub model_type: &'static str,
    /// Names that `architectures` may hold; the first is the one that is written.
    pub architectures: &'static [&'static str],
    /// Values of fields that a file leaves out.
    pub defaults: Defaults,
    /// Reads what the layers compute; shapes come from the configuration.
    pub(super) layers: fn(&mut Fields<'_>, Norm, Heads, usize) -> LayerSpec,
}

/// Values of fields that a file leaves out.
pub(crate) struct Defaults {
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// None: as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// None: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    /// Whether the unembedding is the embedding.
    pub tie_word_embeddings: bool,
    /// Token that starts a text; none: there is none.
    pub bos_token_id: &'static [u32],
    /// Tokens that end a text.
    pub eos_token_id: &'static [u32],
}

/// The families that are read. The first is that of a configuration that was not read from a file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        architectures: &["LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaModel"],
        defaults: LLAMA,
        layers: llama,
    },
    Family {
        model_type: "mistral",
        architectures: &["MistralForCausalLM", "MistralForSequenceClassification", "MistralModel"],
        defaults: Defaults {
            max_position_embeddings: 131_072,
            num_key_value_heads: Some(8),
            ..LLAMA
        },
        layers: mistral,
    },
    Family {
        model_type: "qwen2",
        architectures: &["Qwen2ForCausalLM", "Qwen2ForSequenceClassification", "Qwen2Model"],
        defaults: QWEN,
        layers: qwen2,
    },
    Family {
        model_type: "qwen3",
        architectures: &["Qwen3ForCausalLM", "Qwen3ForSequenceClassification", "Qwen3Model"],
        defaults: Defaults {
            head_dim: Some(128),
            ..QWEN
        },
        layers: qwen3,
    },
    Family {
        model_type: "smollm3",
        architectures: &["SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification", "SmolLM3Model"],
        defaults: Defaults {
            max_position_embeddings: 32_768,
            num_key_value_heads: Some(4),
            rope_theta: 2_000_000.0,
            tie_word_embeddings: true,
            bos_token_id: &[128_000],
            eos_token_id: &[128_001],
            ..LLAMA
        },
        layers: smollm3,
    },
];

const LLAMA: Defaults = Defaults {
    max_position_embeddings: 2048,
    num_key_value_heads: None,
    head_dim: None,
    rope_theta: 10_000.0,
    tie_word_embeddings: false,
    bos_token_id: &[1],
    eos_token_id: &[2],
};

const QWEN: Defaults = Defaults {
    max_position_embeddings: 32_768,
    num_key_value_heads: Some(32),
    bos_token_id: &[],
    eos_token_id: &[],
    ..LLAMA
};

/// The window of Mistral and Qwen where a file does not name it.
const WINDOW: usize = 4096;

/// A layer that rotates and attends to all tokens before.
const PLAIN: LayerKind = LayerKind {
    window: None,
    rotary: true,
};

/// `attention_bias` adds a bias to queries, keys, values and output.
fn attention_bias(fields: &mut Fields<'_>) -> Biases {
    let attention = fields.flag("attention_bias", false);
    Biases {
        qkv: attention,
        o: attention,
        mlp: fields.flag("mlp_bias", false),
    }
}

fn llama(fields: &mut Fields<'_>, norm: Norm, heads: Heads, layers: usize) -> LayerSpec {
    let biases = attention_bias(fields);
    if fields.get("sliding_window").is_some() {
        fields.problem("`sliding_window` is set, which `model_type` \"llama\" does not have".to_owned());
    }
    LayerSpec::read(fields, norm, heads, biases, vec![PLAIN; layers])
}

fn mistral(fields: &mut Fields<'_>, norm: Norm, heads: Heads, layers: usize) -> LayerSpec {
    let window = window(fields, Some(WINDOW));
    if fields.get("layer_types").is_some() {
        fields.problem(
            "`layer_types` is set, which `model_type` \"mistral\" does not read: remove it, `sliding_window` holds for all layers"
                .to_owned(),
        );
    }
    let kinds = vec![LayerKind { window, ..PLAIN }; layers];
    LayerSpec::read(fields, norm, heads, Biases::default(), kinds)
}

fn qwen2(fields: &mut Fields<'_>, norm: Norm, heads: Heads, layers: usize) -> LayerSpec {
    let biases = Biases {
        qkv: true,
        ..Biases::default()
    };
    let kinds = qwen_kinds(fields, layers);
    LayerSpec::read(fields, norm, heads, biases, kinds)
}

fn qwen3(fields: &mut Fields<'_>, norm: Norm, heads: Heads, layers: usize) -> LayerSpec {
    let biases = attention_bias(fields);
    let kinds = qwen_kinds(fields, layers);
    LayerSpec {
        head_norms: true,
        ..LayerSpec::read(fields, norm, heads, biases, kinds)
    }
}

/// With `use_sliding_window` the layers from `max_window_layers` on have a window, or those that `layer_types`
/// names.
fn qwen_kinds(fields: &mut Fields<'_>, layers: usize) -> Vec<LayerKind> {
    let window = window(fields, Some(WINDOW));
    let window = window.filter(|_| fields.flag("use_sliding_window", false));
    let first = fields.size("max_window_layers", Some(28));
    let windowed = layer_types(fields, layers, window).unwrap_or_else(|| (0..layers).map(|i| i >= first).collect());
    let kind = |windowed: bool| LayerKind {
        window: window.filter(|_| windowed),
        ..PLAIN
    };
    windowed.into_iter().map(kind).collect()
}

/// `no_rope_layers` has a 1 for each layer that rotates; without it every `no_rope_layer_interval`-th layer
/// does not. With `use_sliding_window` the layers that do not rotate have the window, or those that
/// `layer_types` names.
fn smollm3(fields: &mut Fields<'_>, norm: Norm, heads: Heads, layers: usize) -> LayerSpec {
    let biases = attention_bias(fields);
    let window = window(fields, None).filter(|_| fields.flag("use_sliding_window", false));
    let interval = fields.size("no_rope_layer_interval", Some(4));
    if interval == 0 {
        fields.problem("`no_rope_layer_interval` is 0, it must be at least 1".to_owned());
    }
    let rotary = match fields.get("no_rope_layers") {
        None => (1..=layers).map(|i| !i.is_multiple_of(interval.max(1))).collect(),
        Some(list) => flags(fields, list, layers),
    };
    let windowed = layer_types(fields, layers, window).unwrap_or_else(|| rotary.iter().map(|rotary| !rotary).collect());
    let kinds = rotary.into_iter().zip(windowed);
    let kinds = kinds.map(|(rotary, windowed)| LayerKind {
        window: window.filter(|_| windowed),
        rotary,
    });
    LayerSpec::read(fields, norm, heads, biases, kinds.collect())
}

/// `sliding_window`: absent means `default`, null means none.
fn window(fields: &mut Fields<'_>, default: Option<usize>) -> Option<usize> {
    if fields.is_null("sliding_window") {
        return None;
    }
    let window = match (fields.get("sliding_window"), default) {
        (None, None) => return None,
        (_, default) => fields.size("sliding_window", default),
    };
    if fields
        .get("sliding_window")
        .is_some_and(|value| value.as_u64() == Some(0))
    {
        fields.problem("`sliding_window` is 0, it must be at least 1, or null for none".to_owned());
    }
    Some(window.max(1))
}

/// `layer_types`: whether each layer has the window. None where the file does not name them.
fn layer_types(fields: &mut Fields<'_>, layers: usize, window: Option<usize>) -> Option<Vec<bool>> {
    let value = fields.get("layer_types")?;
    let names: Vec<&str> = value.as_array().map_or(Vec::new(), |names| {
        names.iter().map(|name| name.as_str().unwrap_or_default()).collect()
    });
    if names.len() != layers {
        fields.problem(format!(
            "`layer_types` has {} entries and the model {layers} layers: give one for each",
            names.len()
        ));
    }
    let mut windowed = Vec::with_capacity(layers);
    for (i, name) in names.iter().enumerate().take(layers) {
        if !["full_attention", "sliding_attention"].contains(name) {
            fields.problem(format!(
                "`layer_types[{i}]` is \"{name}\", supported are \"full_attention\" and \"sliding_attention\""
            ));
        }
        windowed.push(*name == "sliding_attention");
    }
    if window.is_none() && windowed.contains(&true) {
        fields.problem(
            "`layer_types` names \"sliding_attention\" and no window is in force: set `use_sliding_window` and `sliding_window`"
                .to_owned(),
        );
    }
    windowed.resize(layers, false);
    Some(windowed)
}

/// A list with a 0 or 1 for each layer; transformers allows more entries than layers.
fn flags(fields: &mut Fields<'_>, list: &Value, layers: usize) -> Vec<bool> {
    let values: Option<Vec<bool>> = list
        .as_array()
        .and_then(|list| list.iter().map(|value| value.as_u64().map(|flag| flag != 0)).collect());
    let mut values = values.unwrap_or_default();
    if values.len() < layers {
        fields.problem(format!(
            "`no_rope_layers` must be a list with a 0 or 1 for each of the {layers} layers"
        ));
    }
    values.resize(layers, true);
    values
}
