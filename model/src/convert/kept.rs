//! `hf_config.json`: the `config.json` of a model whose directory was converted to Meta's layout.
//!
//! `params.json` has no field for the longest sequence, token ids, the initialiser or anything that other
//! tools keep in `config.json`. The whole document is kept next to it, so that converting back loses nothing.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::raw::SaveDtype;

/// Name of the file in Meta's layout. Meta's code does not read it.
pub(super) const KEPT: &str = "hf_config.json";

/// The kept document in `src`, as text and as read; none if there is no such file.
pub(super) fn read(src: &Path) -> Result<Option<(Value, LlamaConfig)>, ModelError> {
    let path = src.join(KEPT);
    if !path.exists() {
        return Ok(None);
    }
    let mut document = super::read_object(&path)?;
    // The weights were converted as what they stand for.
    document.shift_remove("quantization_config");
    let document = Value::Object(document);
    // The directory is read as one of Hugging Face's, whose configuration has another name here.
    let config = LlamaConfig::parse(&document.to_string())?;
    Ok(Some((document, config)))
}

/// The `config.json` for the converted model: the kept document, with what weights and `params.json` say
/// now written over it. Each such field is named in `notes`.
pub(super) fn document(
    (document, kept): (Value, LlamaConfig),
    now: &LlamaConfig,
    dtype: SaveDtype,
    notes: &mut Vec<String>,
) -> Value {
    let same = [
        ("vocab_size", kept.vocab_size == now.vocab_size),
        ("hidden_size", kept.hidden_size == now.hidden_size),
        ("intermediate_size", kept.intermediate_size == now.intermediate_size),
        ("num_hidden_layers", kept.num_hidden_layers == now.num_hidden_layers),
        (
            "num_attention_heads",
            kept.num_attention_heads == now.num_attention_heads,
        ),
        (
            "num_key_value_heads",
            kept.num_key_value_heads == now.num_key_value_heads,
        ),
        ("head_dim", kept.head_dim == now.head_dim),
        ("rms_norm_eps", kept.rms_norm_eps == now.rms_norm_eps),
        ("rope_theta and rope_scaling", kept.rope == now.rope),
        (
            "tie_word_embeddings",
            kept.tie_word_embeddings == now.tie_word_embeddings,
        ),
        ("wmtp.n_heads", kept.n_heads == now.n_heads),
    ];
    let changed = same.iter().filter(|(_, same)| !same);
    let changed: Vec<String> = changed.map(|(name, _)| format!("`{name}`")).collect();
    if changed.is_empty() {
        return with_true_dtype(document, dtype, notes);
    }
    let merged = LlamaConfig {
        max_position_embeddings: kept.max_position_embeddings,
        bos_token_id: kept.bos_token_id,
        eos_token_ids: kept.eos_token_ids,
        initializer_range: kept.initializer_range,
        other: kept.other,
        ..now.clone()
    };
    notes.push(format!(
        "{KEPT} differs from params.json or the weights in {}: these were taken from the latter",
        changed.join(", ")
    ));
    merged.to_json(dtype.torch_name())
}

/// The document, with the stored type in its `dtype` or `torch_dtype` where these name another.
fn with_true_dtype(mut document: Value, dtype: SaveDtype, notes: &mut Vec<String>) -> Value {
    for name in ["dtype", "torch_dtype"] {
        let said = document.get(name).and_then(Value::as_str);
        if said.is_some_and(|said| said != dtype.torch_name()) {
            notes.push(format!(
                "`{name}` was corrected to {}, the type of the weights",
                dtype.torch_name()
            ));
            document[name] = json!(dtype.torch_name());
        }
    }
    document
}
