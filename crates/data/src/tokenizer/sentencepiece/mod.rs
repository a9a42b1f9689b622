//! A SentencePiece `tokenizer.model` as a tokenizer of the `tokenizers` library.
//!
//! Where a directory has no `tokenizer.json`, transformers 5 converts the model file, and so does this module:
//!
//! * `LlamaTokenizer`, `CodeLlamaTokenizer` and `GemmaTokenizer` take pieces and merges from the file and
//!   everything else from the class ([`Class`], which `legacy` and `add_prefix_space` decide).
//! * Other models follow the file's own settings, as SentencePiece does: its table of replacements, whitespace
//!   that is removed, the space added at the start, pieces that the user defined. So do Unigram files of the
//!   Llama classes, which transformers 5 would read as a BPE.
//!
//! `add_bos_token` and `add_eos_token` of `tokenizer_config.json` decide what begins and ends a text. A saved
//! tokenizer keeps the file as it came.
//!
//! Source: `convert_slow_tokenizer.py` and `tokenization_utils_tokenizers.py` of transformers 5.24.

mod charsmap;
mod configuration;
mod error;
mod merges;
mod model;
mod pipeline;
mod wire;

pub(super) use error::PiecesError;

use super::{
    added::{added_tokens, check_lengths, text},
    class::Class,
    library,
};
use model::{ModelFile, ModelKind, PieceKind};
use serde_json::{Value, json};
use std::{io::Read, path::Path};
use tokenizers::{
    AddedToken, ModelWrapper, Tokenizer,
    models::{
        bpe::{BPE, Vocab},
        unigram::Unigram,
    },
};

/// MiB of a model file. The largest known have 5.
const MAX_MIB: u64 = 32;

/// Reads a model file of bounded size. The outer error is the system's.
pub(super) fn read(path: &Path) -> std::io::Result<Result<Vec<u8>, PiecesError>> {
    let limit = MAX_MIB << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > limit {
        Err(PiecesError::TooLarge(MAX_MIB))
    } else {
        Ok(bytes)
    })
}

/// The JSON files next to a model file; null where there is none.
pub(super) struct Companions<'a> {
    /// `tokenizer_config.json`.
    pub config: &'a Value,
    /// `config.json`.
    pub model: &'a Value,
    /// `special_tokens_map.json`.
    pub map: &'a Value,
    /// `added_tokens.json`.
    pub added: &'a Value,
}

/// A converted model file.
pub(super) struct Converted {
    pub inner: Tokenizer,
    /// The class whose rules it follows.
    pub class: Option<Class>,
    /// `tokenizer_config.json` with what the class and the model file add.
    pub config: Value,
}

/// Whose rules decide everything but the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Class(Class),
    Gemma,
    /// The model file's own.
    File,
}

impl Layout {
    fn of(kind: ModelKind, files: &Companions<'_>) -> Result<Self, PiecesError> {
        let model_type = files.model["model_type"].as_str().unwrap_or_default();
        let named = files.config["tokenizer_class"]
            .as_str()
            .or_else(|| files.model["tokenizer_class"].as_str())
            .map(|name| name.strip_suffix("Fast").unwrap_or(name));
        let gemma = model_type.starts_with("gemma");
        let bpe = kind == ModelKind::Bpe;
        match named {
            Some("LlamaTokenizer" | "CodeLlamaTokenizer") if bpe => {
                let class = Class::of(&json!({"model": {"type": "BPE"}}), files.config, files.model);
                Ok(class.map_or(Self::File, Self::Class))
            }
            Some("GemmaTokenizer") if bpe && (gemma || Class::rebuilds(model_type)) => Ok(Self::Gemma),
            None if bpe && gemma => Ok(Self::Gemma),
            None
            | Some(
                "LlamaTokenizer"
                | "CodeLlamaTokenizer"
                | "GemmaTokenizer"
                | "PreTrainedTokenizer"
                | "TokenizersBackend",
            ) => Ok(Self::File),
            Some(other) => Err(PiecesError::Class(other.to_owned())),
        }
    }
}

/// Converts a model file.
pub(super) fn convert(bytes: &[u8], files: &Companions<'_>) -> Result<Converted, PiecesError> {
    let file = ModelFile::read(bytes)?;
    let layout = Layout::of(file.kind, files)?;
    let config = configuration::complete(files.config, files.map, files.added, &file, layout);
    check_lengths(&config).map_err(PiecesError::Long)?;
    let names = match layout {
        Layout::File if file.kind == ModelKind::Bpe => configuration::names(&file, &config),
        _ => file.pieces.iter().map(|piece| piece.text.clone()).collect(),
    };
    let user_defined: Vec<&str> = file
        .pieces
        .iter()
        .zip(&names)
        .filter(|(piece, _)| piece.kind == PieceKind::UserDefined)
        .map(|(_, name)| name.as_str())
        .collect();
    let mut inner = Tokenizer::new(vocabulary(&file, &names, layout, &config, !user_defined.is_empty())?);
    match layout {
        Layout::Class(class) => pipeline::of_class(&mut inner, class, &config)?,
        Layout::Gemma => pipeline::of_gemma(&mut inner)?,
        Layout::File => {
            let legacy = config.get("legacy").is_none_or(|legacy| legacy == true);
            pipeline::of_file(&mut inner, &file, legacy, &user_defined)?;
        }
    }
    for tokens in [added_tokens(&config), tokens_of_pieces(&file, layout, &config)] {
        library::call(|| Ok(inner.add_tokens(&tokens))).map_err(|e| PiecesError::Library(e.to_string()))?;
    }
    let adds_bos = layout == Layout::Class(Class::CodeLlama);
    let bos = surrounding(&inner, &config, "add_bos_token", "bos_token", adds_bos)?;
    let eos = surrounding(&inner, &config, "add_eos_token", "eos_token", false)?;
    pipeline::surround(&mut inner, bos, eos)?;
    let class = match layout {
        Layout::Class(class) => Some(class),
        _ => None,
    };
    Ok(Converted { inner, class, config })
}

/// Pieces and, for a BPE, merges.
fn vocabulary(
    file: &ModelFile,
    names: &[String],
    layout: Layout,
    config: &Value,
    user_defined: bool,
) -> Result<ModelWrapper, PiecesError> {
    let wrong = |e: tokenizers::Error| PiecesError::Library(e.to_string());
    if file.kind == ModelKind::Unigram {
        let scored = file
            .pieces
            .iter()
            .map(|piece| (piece.text.clone(), f64::from(piece.score)));
        let scored = scored.collect();
        let unigram = library::call(|| Unigram::from(scored, Some(file.unk), file.byte_fallback)).map_err(wrong)?;
        return Ok(unigram.into());
    }
    let merges = match layout {
        Layout::File => merges::by_score(&file.pieces, names)?,
        _ => merges::by_id(names)?,
    };
    let vocabulary: Vocab = names.iter().cloned().zip(0..).collect();
    let own_bytes = layout != Layout::File || file.byte_fallback;
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .fuse_unk(true)
        .byte_fallback(own_bytes)
        .ignore_merges(layout == Layout::File && user_defined);
    let unk = match layout {
        Layout::Class(Class::Llama) => None,
        Layout::File => names.get(file.unk).map(String::as_str),
        _ => text(&config["unk_token"]),
    };
    if let Some(unk) = unk {
        bpe = bpe.unk_token(unk.to_owned());
    }
    Ok(library::call(|| bpe.build()).map_err(wrong)?.into())
}

/// Control pieces as special tokens, user-defined ones as tokens, unless the configuration lists special tokens
/// of its own: transformers then adds those instead. A user-defined piece that the normaliser or
/// pre-tokenizer finds is no added token.
fn tokens_of_pieces(file: &ModelFile, layout: Layout, config: &Value) -> Vec<AddedToken> {
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    if lists
        .iter()
        .any(|list| config[*list].is_array() || config.get(*list).is_some_and(Value::is_null))
    {
        return Vec::new();
    }
    let taken = |content: &str| {
        let decoder = config["added_tokens_decoder"].as_object();
        decoder.is_some_and(|tokens| tokens.values().any(|token| text(token) == Some(content)))
    };
    let pieces = file.pieces.iter().filter(|piece| match piece.kind {
        PieceKind::Control => true,
        PieceKind::UserDefined => layout != Layout::File,
        _ => false,
    });
    pieces
        .filter(|piece| !taken(&piece.text))
        .map(|piece| AddedToken::from(piece.text.clone(), piece.kind == PieceKind::Control).normalized(false))
        .collect()
}

/// The token with this name and its id, if the configuration adds it to texts.
fn surrounding<'a>(
    inner: &Tokenizer,
    config: &'a Value,
    switch: &str,
    name: &'static str,
    default: bool,
) -> Result<Option<(&'a str, u32)>, PiecesError> {
    if !config[switch].as_bool().unwrap_or(default) {
        return Ok(None);
    }
    let Some(token) = text(&config[name]) else {
        return Ok(None);
    };
    match inner.token_to_id(token) {
        Some(id) => Ok(Some((token, id))),
        None => Err(PiecesError::NotInVocabulary(name, token.to_owned())),
    }
}
