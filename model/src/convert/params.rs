//! `params.json`, Meta's configuration, to and from transformers'.
//!
//! It holds less: neither token ids nor the longest sequence, and the width of the feed-forward block
//! only as a rule. What is missing comes from `hf_config.json` where the directory was converted here,
//! else from the weights, from `generation_config.json`, or is assumed and said.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::{LlamaConfig, RopeScaling};
use crate::decoder::{Biases, LayerKind};
use crate::error::{ModelError, Problems};
use crate::fields::Fields;

/// What the weights say about the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    /// Decoder layers up to and including head 1.
    pub(super) layers: usize,
    /// Heads 2..H.
    pub(super) extra_heads: usize,
    pub(super) tied: bool,
}

/// Llama 3.1's rotary stretching, as Meta's code has it built in.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_LENGTH: f64 = 8192.0;
const SCALING_FACTOR: f64 = 8.0;

/// The configuration of a model in Meta's layout, as far as it tells; [`assume`] adds the rest.
/// Sentences about contradictions go to `notes`.
pub(super) fn read(path: &Path, found: &Found, notes: &mut Vec<String>) -> Result<LlamaConfig, ModelError> {
    let map = super::read_object(path)?;
    let mut fields = Fields::new(&map);
    let dim = fields.size("dim", None);
    let n_heads = fields.size("n_heads", None);
    let mut config = LlamaConfig::new(found.vocab_size, found.hidden_size, found.layers, n_heads);
    config.num_key_value_heads = fields.size("n_kv_heads", Some(n_heads));
    config.intermediate_size = found.intermediate_size;
    config.rms_norm_eps = fields.number("norm_eps", Some(1e-5));
    config.rope.theta = fields.number("rope_theta", Some(10_000.0));
    config.rope.scaling = scaling(&mut fields);
    config.tie_word_embeddings = found.tied;
    config.n_heads = found.extra_heads + 1;

    compare(&mut fields, "dim", dim, found.hidden_size);
    // In the released code `n_layers` counts the extra heads too; files without them agree either way.
    let all = found.layers + found.extra_heads;
    let n_layers = fields.size("n_layers", None);
    if n_layers != all {
        fields.problem(format!(
            "`n_layers` is {n_layers}, the weights have {all} layers, {} extra heads among them",
            found.extra_heads
        ));
    }
    let future = fields.size("n_future_tokens", Some(config.n_heads));
    compare(&mut fields, "n_future_tokens", future, config.n_heads);
    // Llama 2 has -1 here: as many as the tokenizer has.
    let vocab = fields.get("vocab_size").and_then(Value::as_i64).unwrap_or(-1);
    if vocab > 0 {
        compare(&mut fields, "vocab_size", vocab as usize, found.vocab_size);
    }
    let multiple = fields.size("multiple_of", Some(256));
    let multiplier = fields.get("ffn_dim_multiplier").and_then(Value::as_f64);
    let width = feed_forward(dim, multiple, multiplier);
    if width != found.intermediate_size {
        notes.push(format!(
            "params.json describes a feed-forward width of {width}, the weights have {}, which was taken",
            found.intermediate_size
        ));
    }
    if !fields.problems.is_empty() {
        return Err(ModelError::Config {
            place: path.display().to_string(),
            problems: Problems(fields.problems),
        });
    }
    // The same checks as for any configuration, such as the divisibility of sizes.
    LlamaConfig::parse(&config.to_json("float32").to_string())?;
    Ok(config)
}

/// Adds what `params.json` does not hold: the longest sequence, and first and last token of a text.
/// Sentences about what was assumed go to `notes`.
pub(super) fn assume(path: &Path, config: &mut LlamaConfig, notes: &mut Vec<String>) -> Result<(), ModelError> {
    config.max_position_embeddings = match config.rope.scaling {
        RopeScaling::None => 4096,
        _ => 131_072,
    };
    notes.push(format!(
        "params.json does not name the longest sequence: `max_position_embeddings` was set to {}",
        config.max_position_embeddings
    ));
    token_ids(path, config, notes)
}

fn compare(fields: &mut Fields<'_>, name: &str, said: usize, found: usize) {
    if said != found {
        fields.problem(format!("`{name}` is {said}, the weights have {found}"));
    }
}

fn scaling(fields: &mut Fields<'_>) -> RopeScaling {
    if !fields.flag("use_scaled_rope", false) {
        return RopeScaling::None;
    }
    RopeScaling::Llama3 {
        factor: fields.number("rope_scaling_factor", Some(SCALING_FACTOR)),
        low_freq_factor: LOW_FREQ_FACTOR,
        high_freq_factor: fields.number("rope_high_freq_factor", Some(HIGH_FREQ_FACTOR)),
        original_max_position_embeddings: ORIGINAL_LENGTH,
    }
}

/// First and last token of a text: from `generation_config.json` next to `path`, or Llama 2's.
fn token_ids(path: &Path, config: &mut LlamaConfig, notes: &mut Vec<String>) -> Result<(), ModelError> {
    let settings = path.with_file_name("generation_config.json");
    if settings.exists() {
        let map = super::read_object(&settings)?;
        let mut fields = Fields::new(&map);
        config.bos_token_id = fields.tokens("bos_token_id", &[]).first().copied();
        config.eos_token_ids = fields.tokens("eos_token_id", &[]);
        if fields.problems.is_empty() {
            return Ok(());
        }
        return Err(ModelError::Config {
            place: settings.display().to_string(),
            problems: Problems(fields.problems),
        });
    }
    config.bos_token_id = Some(1);
    config.eos_token_ids = vec![2];
    notes.push(
        "params.json does not name the first and last token of a text: Llama 2's, 1 and 2, were taken; correct `bos_token_id` and `eos_token_id` in config.json for another tokenizer"
            .to_owned(),
    );
    Ok(())
}

/// The `params.json` of a model, as Meta's code reads it.
pub(super) fn write(config: &LlamaConfig) -> Result<Value, ModelError> {
    if config.head_dim * config.num_attention_heads != config.hidden_size {
        return Err(ModelError::Request(format!(
            "Meta's layout has no field for attention heads of width {}: it needs hidden_size / num_attention_heads = {}",
            config.head_dim,
            config.hidden_size / config.num_attention_heads.max(1)
        )));
    }
    let spec = config.layer_spec();
    if spec.biases != Biases::default() {
        return Err(ModelError::Request(
            "Meta's layout has no biases: a model with `attention_bias` cannot be converted to it".to_owned(),
        ));
    }
    if config.head_norms && config.n_heads > 1 {
        return Err(ModelError::Request(
            "Meta's layout has one final norm for all heads: a model whose heads have norms of their own cannot be converted to it"
                .to_owned(),
        ));
    }
    let plain = |kind: &LayerKind| kind.rotary && kind.window.is_none();
    if spec.head_norms || !spec.kinds.iter().all(plain) {
        return Err(ModelError::Request(format!(
            "Meta's layout has no head norms, sliding windows or layers without rotation: a model of `model_type` \"{}\" cannot be converted to it",
            config.family().model_type
        )));
    }
    let (multiple, multiplier) = feed_forward_rule(config.hidden_size, config.intermediate_size);
    let mut map = Map::new();
    let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
    set("dim", json!(config.hidden_size));
    set("n_layers", json!(config.num_hidden_layers + config.n_heads - 1));
    set("n_heads", json!(config.num_attention_heads));
    set("n_kv_heads", json!(config.num_key_value_heads));
    set("vocab_size", json!(config.vocab_size));
    set("multiple_of", json!(multiple));
    if let Some(multiplier) = multiplier {
        set("ffn_dim_multiplier", json!(multiplier));
    }
    set("norm_eps", json!(config.rms_norm_eps));
    // Older code refuses fields that it does not know, so these are there only where they matter.
    if config.rope.theta != 10_000.0 {
        set("rope_theta", json!(config.rope.theta));
    }
    if config.n_heads > 1 {
        set("n_future_tokens", json!(config.n_heads));
    }
    match config.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } if low_freq_factor == LOW_FREQ_FACTOR && original_max_position_embeddings == ORIGINAL_LENGTH => {
            set("use_scaled_rope", json!(true));
            if factor != SCALING_FACTOR {
                set("rope_scaling_factor", json!(factor));
            }
            if high_freq_factor != HIGH_FREQ_FACTOR {
                set("rope_high_freq_factor", json!(high_freq_factor));
            }
        }
        _ => {
            return Err(ModelError::Request(
                "Meta's layout cannot describe this model's rotary scaling: it knows only Llama 3.1's rule with low_freq_factor 1 and original_max_position_embeddings 8192".to_owned(),
            ));
        }
    }
    Ok(Value::Object(map))
}

/// The width of the feed-forward block by Meta's rule.
fn feed_forward(dim: usize, multiple: usize, multiplier: Option<f64>) -> usize {
    let base = (2 * 4 * dim) / 3;
    let width = multiplier.map_or(base, |multiplier| (multiplier * base as f64) as usize);
    width.next_multiple_of(multiple.max(1))
}

/// `multiple_of` and `ffn_dim_multiplier` that give this width.
fn feed_forward_rule(dim: usize, width: usize) -> (usize, Option<f64>) {
    let powers = || (0..=12).rev().map(|power| 1usize << power);
    if let Some(multiple) = std::iter::once(256)
        .chain(powers())
        .find(|m| feed_forward(dim, *m, None) == width)
    {
        return (multiple, None);
    }
    // Half a unit more, so that cutting off the fraction cannot lose one.
    let multiplier = (width as f64 + 0.5) / ((2 * 4 * dim) / 3).max(1) as f64;
    (1, Some(multiplier))
}
