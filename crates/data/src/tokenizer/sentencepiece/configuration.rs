//! What a class adds to `tokenizer_config.json` where a directory has no `tokenizer.json`.
//!
//! transformers then reads `special_tokens_map.json` and `added_tokens.json`, which older versions wrote, and
//! takes special tokens that nothing names from the class or from the model file.

use super::{
    super::added::{NAMED, text},
    Layout,
    model::ModelFile,
};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// `config` with all that transformers would take from these files: the two older ones count only if it has no
/// `added_tokens_decoder`.
pub(super) fn complete(config: &Value, map: &Value, added: &Value, file: &ModelFile, layout: Layout) -> Value {
    let mut config: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    if !config.contains_key("added_tokens_decoder") {
        // Its `additional_special_tokens` has no effect.
        let named = map.as_object().into_iter().flatten();
        let named = named.filter(|(key, _)| NAMED.contains(&key.as_str()));
        config.extend(named.map(|(key, value)| (key.clone(), value.clone())));
        if let Some(added) = added.as_object().filter(|added| !added.is_empty()) {
            let decoder = added_tokens(added, &config);
            config.insert("added_tokens_decoder".into(), Value::Object(decoder));
        }
    }
    if layout == Layout::File && file.normalization.add_dummy_prefix {
        // Found in the text as it is, so that each part between two of them begins with a space.
        let tokens = config.get_mut("added_tokens_decoder").and_then(Value::as_object_mut);
        for token in tokens
            .into_iter()
            .flat_map(Map::values_mut)
            .filter(|token| token.is_object())
        {
            token["normalized"] = false.into();
        }
    }
    let piece = |id: Option<usize>| file.pieces.get(id?).map(|piece| piece.text.clone());
    let defaults = match layout {
        Layout::Class(_) => vec![("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
        Layout::Gemma => vec![
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
        Layout::File => Vec::new(),
    };
    let of_class = defaults.into_iter().map(|(name, token)| (name, token.to_owned()));
    let of_file = [
        ("bos_token", file.bos),
        ("eos_token", file.eos),
        ("unk_token", Some(file.unk)),
    ]
    .into_iter()
    .filter_map(|(name, id)| Some((name, piece(id)?)))
    .filter(|_| layout == Layout::File);
    for (name, token) in of_class.chain(of_file) {
        config.entry(name).or_insert_with(|| token.into());
    }
    Value::Object(config)
}

/// `added_tokens.json`, which has ids by token, as `added_tokens_decoder`.
fn added_tokens(added: &Map<String, Value>, config: &Map<String, Value>) -> Map<String, Value> {
    let listed = config
        .get("additional_special_tokens")
        .or(config.get("extra_special_tokens"));
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    let named = NAMED.iter().filter_map(|name| config.get(*name));
    let special: Vec<&str> = named.chain(listed).filter_map(text).collect();
    added
        .iter()
        .map(|(token, id)| {
            let special = special.contains(&token.as_str());
            let token = json!({"content": token, "normalized": !special, "special": special});
            (id.to_string(), token)
        })
        .collect()
}

/// The names of all pieces. `added_tokens_decoder` may give placeholders of the file their names.
pub(super) fn names(file: &ModelFile, config: &Value) -> Vec<String> {
    let mut names: Vec<String> = file.pieces.iter().map(|piece| piece.text.clone()).collect();
    let tokens = config["added_tokens_decoder"].as_object();
    let renamed: Vec<(usize, &str)> = tokens
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, text(token)?)))
        .collect();
    let ids: HashSet<usize> = renamed.iter().map(|(id, _)| *id).collect();
    // A name that another piece has and keeps is not given twice.
    let kept: HashSet<&str> = file
        .pieces
        .iter()
        .enumerate()
        .filter(|(id, _)| !ids.contains(id))
        .map(|(_, piece)| piece.text.as_str())
        .collect();
    for (id, name) in renamed {
        if let Some(own) = names.get_mut(id).filter(|_| !kept.contains(name)) {
            name.clone_into(own);
        }
    }
    names
}
