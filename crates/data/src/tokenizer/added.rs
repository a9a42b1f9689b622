//! Tokens outside the vocabulary's own pieces: those that `tokenizer_config.json` lists or names.
//!
//! transformers adds the ones that a tokenizer lacks, with the next free ids: first `added_tokens_decoder` with
//! its flags, then the named special tokens, then the lists of further ones.
//!
//! Source: `TokenizersBackend.__init__` of transformers 5.24.

use super::{bounds::check_length, class::Class, library};
use serde_json::Value;
use tokenizers::AddedToken;

/// Special tokens with a name of their own, in the order in which they are added.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The text of a token: a string, or an object with `content`.
pub(super) fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// `bos_token`, `eos_token` and so on: a string, or an object with `content`. What the configuration
/// does not name, `special_tokens_map.json` may.
pub(super) fn special_tokens(config: &Value, map: &Value) -> Vec<(String, String)> {
    NAMED
        .into_iter()
        .filter_map(|name| {
            let value = if config[name].is_null() {
                &map[name]
            } else {
                &config[name]
            };
            Some((name.to_owned(), text(value)?.to_owned()))
        })
        .collect()
}

/// The tokens of `added_tokens_decoder`, in the order of their ids.
pub(super) fn added_tokens(config: &Value) -> Vec<AddedToken> {
    let added = config["added_tokens_decoder"].as_object();
    let mut numbered: Vec<(u64, &Value)> = added
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token)))
        .collect();
    numbered.sort_by_key(|(id, _)| *id);
    let tokens = numbered.into_iter().filter_map(|(_, token)| {
        let content = text(token)?;
        let flag = |name: &str| token[name].as_bool();
        let special = flag("special").unwrap_or(false);
        let named = NAMED.iter().any(|name| text(&config[*name]) == Some(content));
        Some(AddedToken {
            content: content.to_owned(),
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized").unwrap_or(!special),
            special: special || named,
        })
    });
    tokens.collect()
}

/// That no token which the configuration adds or names is too long.
pub(super) fn check_lengths(config: &Value) -> Result<(), String> {
    // The class that names the most.
    let named = named_tokens(config, Some(Class::CodeLlama));
    let tokens = added_tokens(config).into_iter().chain(named);
    tokens.map(|token| token.content.len()).try_for_each(check_length)
}

/// Special tokens that the configuration or the class names.
pub(super) fn named_tokens(config: &Value, class: Option<Class>) -> Vec<AddedToken> {
    let mut tokens: Vec<&str> = NAMED.iter().filter_map(|name| text(&config[*name])).collect();
    for list in ["additional_special_tokens", "extra_special_tokens"] {
        let listed: Vec<&Value> = match &config[list] {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        };
        tokens.extend(listed.into_iter().filter_map(text));
    }
    if class == Some(Class::CodeLlama) {
        let defaults = [
            ("prefix_token", "\u{2581}<PRE>"),
            ("middle_token", "\u{2581}<MID>"),
            ("suffix_token", "\u{2581}<SUF>"),
            ("eot_token", "\u{2581}<EOT>"),
            ("fill_token", "<FILL_ME>"),
        ];
        tokens.extend(defaults.iter().filter_map(|(name, default)| match config.get(*name) {
            None => Some(*default),
            Some(value) => text(value),
        }));
    }
    let special = |token: &str| AddedToken::from(token, true).normalized(false);
    tokens.into_iter().map(special).collect()
}

/// Adds all of them. A named token that is an added token already keeps its flags.
pub(super) fn add(inner: &mut tokenizers::Tokenizer, config: &Value, class: Option<Class>) -> tokenizers::Result<()> {
    library::call(|| Ok(inner.add_tokens(&added_tokens(config))))?;
    let known = inner.get_added_tokens_decoder();
    let missing: Vec<AddedToken> = named_tokens(config, class)
        .into_iter()
        .filter(|token| known.values().all(|known| known.content != token.content))
        .collect();
    library::call(|| Ok(inner.add_tokens(&missing))).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_special_token_of_thousands_of_bytes_is_refused() {
        let long = "x".repeat(4097);
        for config in [
            json!({"bos_token": long}),
            json!({"eos_token": {"content": long}}),
            json!({"middle_token": long}),
            json!({"additional_special_tokens": ["a", long]}),
            json!({"added_tokens_decoder": {"7": {"content": long}}}),
        ] {
            let error = check_lengths(&config).unwrap_err();
            assert!(error.starts_with("a special token has 4097 bytes"), "{error}");
        }
        check_lengths(&json!({"bos_token": "x".repeat(4096), "chat_template": long})).unwrap();
    }
}
