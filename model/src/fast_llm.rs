//! Models of Fast-LLM (ServiceNow) with several prediction heads: `model_type` "mtp_llama".
//!
//! Their graph is that of [`crate::MtpLlama`] (`fast_llm_external_models/mtp_llama/modeling_mtp_llama.py` in
//! Fast-LLM's repository): the trunk is all layers but the last, head 1 is the last layer, heads 2..H are
//! decoder layers on the same trunk output, and the unembedding is shared. But each head has a final norm of
//! its own. They are read as a Llama whose `wmtp` block has `head_norms`, and saved as one.
//!
//! | Fast-LLM | here |
//! |---|---|
//! | `prediction_heads` | `wmtp.n_heads` |
//! | `model.mtp_heads.{i}.…` | `mtp.heads.{i + 2}.…` |
//! | `model.mtp_norms.0.weight` | `model.norm.weight` |
//! | `model.mtp_norms.{i}.weight` | `mtp.heads.{i + 1}.norm.weight` |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::decoder::FAMILIES;
use crate::names;
use crate::tensor_file::TensorFiles;

/// Turns Fast-LLM's `config.json` into that of a Llama with heads; leaves others as they are.
pub(crate) fn to_llama(config: &mut Map<String, Value>) {
    if config.get("model_type").and_then(Value::as_str) != Some("mtp_llama") {
        return;
    }
    let heads = config.shift_remove("prediction_heads").unwrap_or(json!(1));
    config.shift_remove("auto_map");
    config.insert("model_type".to_owned(), json!(FAMILIES[0].model_type));
    config.insert("architectures".to_owned(), json!([FAMILIES[0].architectures[0]]));
    config.insert(
        "wmtp".to_owned(),
        json!({"n_heads": heads, "format": 1, "head_norms": true}),
    );
}

/// Gives Fast-LLM's tensors their names here, and takes those of heads 2..H out; none where there are none.
pub(crate) fn take_heads(files: &mut TensorFiles) -> Option<TensorFiles> {
    let renamed: BTreeMap<String, String> = files
        .names()
        .filter_map(|name| Some((name.to_owned(), renamed(name)?)))
        .collect();
    if renamed.is_empty() {
        return None;
    }
    files.rename(&renamed);
    Some(files.split_off("mtp.heads."))
}

fn renamed(name: &str) -> Option<String> {
    let inner = name.strip_prefix("model.").unwrap_or(name);
    let numbered = |rest: &str| -> Option<(usize, String)> {
        let (index, rest) = rest.split_once('.')?;
        Some((index.parse().ok()?, rest.to_owned()))
    };
    if let Some((index, rest)) = inner.strip_prefix("mtp_heads.").and_then(numbered) {
        return Some(format!("{}{rest}", names::head_prefix(index + 2)));
    }
    let (index, rest) = inner.strip_prefix("mtp_norms.").and_then(numbered)?;
    Some(match index {
        0 => names::NORM.to_owned(),
        _ => format!("{}norm.{rest}", names::head_prefix(index + 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_heads() {
        for (theirs, ours) in [
            ("model.mtp_heads.0.mlp.up_proj.weight", "mtp.heads.2.mlp.up_proj.weight"),
            (
                "model.mtp_heads.2.input_layernorm.weight",
                "mtp.heads.4.input_layernorm.weight",
            ),
            ("model.mtp_norms.0.weight", "model.norm.weight"),
            ("model.mtp_norms.1.weight", "mtp.heads.2.norm.weight"),
            ("mtp_norms.3.weight", "mtp.heads.4.norm.weight"),
        ] {
            assert_eq!(renamed(theirs).as_deref(), Some(ours));
        }
        for other in [
            "model.layers.0.mlp.up_proj.weight",
            "lm_head.weight",
            "model.norm.weight",
        ] {
            assert_eq!(renamed(other), None);
        }
    }
}
