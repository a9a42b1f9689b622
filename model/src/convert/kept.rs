//! `hf_config.json`: the `config.json` of a model whose directory was converted to Meta's layout.
//!
//! `params.json` has no field for the longest sequence, token ids, the initialiser or anything that other
//! tools keep in `config.json`. The whole document lies next to it, so that converting back loses nothing.

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
    let document = Value::Object(super::read_object(&path)?);
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
    let mut merged = kept.clone();
    let mut changed = Vec::new();
    let mut take = |name: &str, same: bool| {
        if !same {
            changed.push(format!("`{name}`"));
        }
    };
    take("vocab_size", kept.vocab_size == now.vocab_size);
    take("hidden_size", kept.hidden_size == now.hidden_size);
    take("intermediate_size", kept.intermediate_size == now.intermediate_size);
    take("num_hidden_layers", kept.num_hidden_layers == now.num_hidden_layers);
    take(
        "num_attention_heads",
        kept.num_attention_heads == now.num_attention_heads,
    );
    take(
        "num_key_value_heads",
        kept.num_key_value_heads == now.num_key_value_heads,
    );
    take("head_dim", kept.head_dim == now.head_dim);
    take("rms_norm_eps", kept.rms_norm_eps == now.rms_norm_eps);
    take("rope_theta and rope_scaling", kept.rope == now.rope);
    take(
        "tie_word_embeddings",
        kept.tie_word_embeddings == now.tie_word_embeddings,
    );
    take("wmtp.n_heads", kept.n_heads == now.n_heads);
    if changed.is_empty() {
        return with_true_dtype(document, dtype, notes);
    }
    merged.vocab_size = now.vocab_size;
    merged.hidden_size = now.hidden_size;
    merged.intermediate_size = now.intermediate_size;
    merged.num_hidden_layers = now.num_hidden_layers;
    merged.num_attention_heads = now.num_attention_heads;
    merged.num_key_value_heads = now.num_key_value_heads;
    merged.head_dim = now.head_dim;
    merged.rms_norm_eps = now.rms_norm_eps;
    merged.rope = now.rope;
    merged.tie_word_embeddings = now.tie_word_embeddings;
    merged.n_heads = now.n_heads;
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
