//! What surrounds the vocabulary: normaliser, pre-tokenizer, decoder and post-processor.
//!
//! As [`serde_json::Value`], in the layout of `tokenizer.json`: one description serves the classes that
//! transformers builds anew, where [`Class`] gives it, and the settings of the model file.

use super::{
    super::class::Class,
    error::PiecesError,
    model::{ModelFile, Normalization},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    normalizers::{Precompiled, Sequence},
};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Gives `inner` the class's own parts. What the model file says of normalisation has no effect, as in
/// transformers.
pub(super) fn of_class(inner: &mut Tokenizer, class: Class, config: &Value) -> Result<(), PiecesError> {
    let mut parts = json!({});
    class.apply(&mut parts, config);
    set(inner, None, &parts)
}

/// Gives `inner` the parts of `GemmaTokenizer`.
pub(super) fn of_gemma(inner: &mut Tokenizer) -> Result<(), PiecesError> {
    let normalizer = part(&replace(json!({"String": " "}), SPACE))?;
    let parts = json!({
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false,
        },
        "decoder": decoder(true, false),
    });
    set(inner, Some(normalizer), &parts)
}

/// Gives `inner` the parts that the model file's own settings ask for, in SentencePiece's order. With
/// `legacy`, text after a special token begins with a space, too, and a space at the start of the text does not
/// take the place of the added one. `user_defined` pieces are never merged with what surrounds them.
pub(super) fn of_file(
    inner: &mut Tokenizer,
    file: &ModelFile,
    legacy: bool,
    user_defined: &[&str],
) -> Result<(), PiecesError> {
    let Normalization {
        charsmap,
        add_dummy_prefix,
        remove_extra_whitespaces,
        escape_whitespaces,
    } = &file.normalization;
    let mut normalizers = Vec::new();
    if !charsmap.is_empty() {
        let table = Precompiled::from(charsmap).map_err(|e| PiecesError::Library(e.to_string()))?;
        normalizers.push(NormalizerWrapper::Precompiled(table));
    }
    if *remove_extra_whitespaces {
        normalizers.push(part(&replace(json!({"Regex": r"\A +| +\z"}), ""))?);
        normalizers.push(part(&replace(json!({"Regex": " {2,}"}), " "))?);
    }
    if *escape_whitespaces {
        normalizers.push(part(&replace(json!({"String": " "}), SPACE))?);
    }
    if *add_dummy_prefix && legacy {
        // `Metaspace` adds no space before one.
        let twice = SPACE.repeat(2);
        normalizers.push(part(&replace(json!({"Regex": format!(r"\A{SPACE}")}), &twice))?);
    }
    let mut pre_tokenizers = Vec::new();
    if *add_dummy_prefix {
        let scheme = if legacy { "always" } else { "first" };
        pre_tokenizers.push(json!({
            "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false,
        }));
    }
    if !user_defined.is_empty() {
        let pattern = any_of(user_defined);
        pre_tokenizers.push(json!({
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
        }));
    }
    let mut parts = json!({"decoder": decoder(file.byte_fallback, *add_dummy_prefix)});
    if !pre_tokenizers.is_empty() {
        parts["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": pre_tokenizers});
    }
    let normalizer = NormalizerWrapper::Sequence(Sequence::new(normalizers));
    set(inner, Some(normalizer), &parts)
}

/// Gives `inner` a post-processor that begins and ends a text with these tokens, each with its id.
pub(super) fn surround(
    inner: &mut Tokenizer,
    bos: Option<(&str, u32)>,
    eos: Option<(&str, u32)>,
) -> Result<(), PiecesError> {
    let token = |(name, _): (&str, u32)| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let around = |id: &str| -> Vec<Value> {
        let parts = [bos.map(token), Some(text(id)), eos.map(token)];
        parts.into_iter().flatten().collect()
    };
    let special: serde_json::Map<String, Value> = bos
        .into_iter()
        .chain(eos)
        .map(|(name, id)| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    let pair = [around("A"), around("B")].concat();
    let template = json!({
        "type": "TemplateProcessing",
        "single": around("A"),
        "pair": pair,
        "special_tokens": special,
    });
    inner.with_post_processor(Some(part::<PostProcessorWrapper>(&template)?));
    Ok(())
}

fn set(inner: &mut Tokenizer, normalizer: Option<NormalizerWrapper>, parts: &Value) -> Result<(), PiecesError> {
    let pre_tokenizer = parts
        .get("pre_tokenizer")
        .map(part::<PreTokenizerWrapper>)
        .transpose()?;
    inner.with_normalizer(normalizer);
    inner.with_pre_tokenizer(pre_tokenizer);
    inner.with_decoder(Some(part::<DecoderWrapper>(&parts["decoder"])?));
    Ok(())
}

fn part<T: DeserializeOwned>(part: &Value) -> Result<T, PiecesError> {
    T::deserialize(part).map_err(|e| PiecesError::Library(e.to_string()))
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

/// Pieces to text. A space at the start is one that was added, if any was.
fn decoder(byte_fallback: bool, prefix: bool) -> Value {
    let mut decoders = vec![replace(json!({"String": SPACE}), " ")];
    if byte_fallback {
        decoders.push(json!({"type": "ByteFallback"}));
    }
    if byte_fallback || prefix {
        decoders.push(json!({"type": "Fuse"}));
    }
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// A regular expression for any of these texts, the longest first.
fn any_of(texts: &[&str]) -> String {
    let mut texts = texts.to_vec();
    texts.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
    let escaped = texts.iter().map(|text| {
        text.chars().fold(String::new(), |mut pattern, c| {
            if c.is_ascii() && !c.is_ascii_alphanumeric() {
                pattern.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
            } else {
                pattern.push(c);
            }
            pattern
        })
    });
    escaped.collect::<Vec<_>>().join("|")
}
