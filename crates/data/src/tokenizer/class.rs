//! What transformers 5 makes of `tokenizer.json` by the class that `tokenizer_config.json` names.
//!
//! `AutoTokenizer` builds some classes anew from the file's vocabulary and merges, with a normaliser
//! and pre-tokenizer of the class's own: a Llama tokenizer's file that prepends a space in its
//! normaliser is read with the `Metaspace` pre-tokenizer instead. Ids that agree with transformers, and
//! with the servers that use it, need the same. Every other class is read as the file says
//! (`PreTrainedTokenizerFast`, `TokenizersBackend` and byte-level files of a Llama class among them).
//!
//! Source: `models/{llama,code_llama,gpt2}/tokenization_*.py` and `models/auto/tokenization_auto.py` of
//! transformers 5.24. Only for models of the Llama type; others are read as the file says.

use super::{bounds, library};
use serde_json::{Value, json};

/// A class that is built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The space before a text by [`Value`] `legacy` of the configuration.
    Llama,
    /// Likewise, with BOS whatever the post-processor says if that is missing.
    CodeLlama,
    /// Byte-level, nothing else.
    Gpt2,
}

impl Class {
    /// Whether the class, and not the files alone, decides for a model of this type. Without a model's
    /// configuration it does.
    pub fn rebuilds(model_type: &str) -> bool {
        ["", "llama", "smollm3"].contains(&model_type)
    }

    /// The class of these files, if transformers builds it anew.
    pub fn of(tokenizer: &Value, config: &Value, model: &Value) -> Option<Self> {
        let model_type = model["model_type"].as_str().unwrap_or_default();
        if !Self::rebuilds(model_type) || tokenizer["model"]["type"] != "BPE" {
            return None;
        }
        let named = config["tokenizer_class"]
            .as_str()
            .or_else(|| model["tokenizer_class"].as_str())?;
        let byte_level = ["pre_tokenizer", "decoder", "post_processor"]
            .iter()
            .any(|part| mentions(&tokenizer[*part], "ByteLevel"));
        match named.strip_suffix("Fast").unwrap_or(named) {
            "LlamaTokenizer" if !byte_level => Some(Self::Llama),
            "CodeLlamaTokenizer" => Some(Self::CodeLlama),
            "GPT2Tokenizer" => Some(Self::Gpt2),
            _ => None,
        }
    }

    /// Gives `tokenizer` the class's own normaliser, pre-tokenizer and decoder.
    pub fn apply(self, tokenizer: &mut Value, config: &Value) {
        let prefix = config["add_prefix_space"].as_bool();
        tokenizer["normalizer"] = Value::Null;
        if self == Self::Gpt2 {
            tokenizer["pre_tokenizer"] = json!({
                "type": "ByteLevel", "add_prefix_space": prefix.unwrap_or(false), "trim_offsets": true, "use_regex": true,
            });
            tokenizer["decoder"] = json!({
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
            });
            return;
        }
        let prefix = prefix.unwrap_or(true);
        let legacy = self == Self::Llama && config["legacy"].as_bool().unwrap_or(false);
        let scheme = match (prefix, legacy) {
            (false, _) => "never",
            (true, true) => "always",
            (true, false) => "first",
        };
        tokenizer["pre_tokenizer"] = json!({
            "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false,
        });
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix || self == Self::CodeLlama {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        tokenizer["decoder"] = json!({"type": "Sequence", "decoders": decoders});
        if self == Self::CodeLlama {
            // Its constructor passes `add_bos_token=True` on, which replaces the post-processor.
            let bos = config["bos_token"].as_str().unwrap_or("<s>");
            let bos = config["bos_token"]["content"].as_str().unwrap_or(bos).to_owned();
            let id = tokenizer["model"]["vocab"][&bos].clone();
            if id.is_u64() {
                tokenizer["post_processor"] = json!({
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [
                        {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {&bos: {"id": bos, "ids": [id], "tokens": [bos]}},
                });
            }
        }
    }
}

/// The tokenizer of a `tokenizer.json`, as the class has it that transformers builds anew.
pub(super) fn read(
    text: &str,
    config: &Value,
    model: &Value,
) -> Result<(tokenizers::Tokenizer, Option<Class>), String> {
    let foreign = |e: String| format!("`tokenizer.json` is not a tokenizer of the `tokenizers` library: {e}");
    let mut tree: Value = serde_json::from_str(text).map_err(|e| foreign(e.to_string()))?;
    bounds::check(&tree)?;
    let class = Class::of(&tree, config, model);
    let inner = match class {
        None => library::call(|| tokenizers::Tokenizer::from_bytes(text)),
        Some(class) => {
            class.apply(&mut tree, config);
            library::call(|| tokenizers::Tokenizer::from_bytes(tree.to_string()))
        }
    };
    Ok((inner.map_err(|e| foreign(e.to_string()))?, class))
}

/// Whether `part` or a part of it has this type.
fn mentions(part: &Value, name: &str) -> bool {
    match part {
        Value::Object(fields) => {
            fields.get("type").is_some_and(|kind| kind == name) || fields.values().any(|value| mentions(value, name))
        }
        Value::Array(items) => items.iter().any(|value| mentions(value, name)),
        _ => false,
    }
}
