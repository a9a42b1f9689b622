//! What decides the documents that a data set holds, as one hash.

use super::{FileHashes, format::FORMAT};
use crate::{DataConfig, DataError, EvaluationProblem, Example, Rows, Tokenizer, Wanted};
use sha2::{Digest, Sha256};

/// SHA-256 (hex) of everything that decides what a token cache holds. Equal keys mean equal caches.
///
/// # Errors
/// A source that can't be read.
pub(crate) fn key(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    evaluation: &[EvaluationProblem],
    texts: &[Example],
    sources: &[Rows<'_>],
    wanted: Wanted,
    files: &FileHashes,
) -> Result<String, DataError> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, value: &str| {
        for text in [name, value] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    };
    add("format", &FORMAT.to_string());
    // Another version may render rows in another way.
    add("version", env!("CARGO_PKG_VERSION"));
    add("tokenizer", &tokenizer.fingerprint());
    add("settings", &settings(config));
    add("wanted", &format!("{wanted:?}"));
    for problem in evaluation {
        add("evaluation", &format!("{problem:?}"));
    }
    for text in texts {
        add("text", &format!("{text:?}"));
    }
    for source in sources {
        add("source", source.source.name());
        add("held out", &format!("{} {}", source.held_out, source.weight));
        add("content", &source.source.content_hash(files)?);
    }
    Ok(hex::encode(hash.finalize()))
}

/// The settings that decide the documents. A new setting has to be put on one side.
fn settings(config: &DataConfig) -> String {
    let DataConfig {
        source: _, // by content
        columns,
        split,
        valid_share,
        max_rows,
        languages,
        train_on,
        too_long,
        copies,
        text: _, // by content
        train_tasks: _,
        valid_tasks: _,
        exclude_tasks: _,
        prompt,
        special_tokens: _,  // of the tokenizer
        special_in_text: _, // of the tokenizer
        chat_date: _,       // of the tokenizer
        seq_len,
        pack: _,
        i_know_this_trains_on_evaluation_data,
    } = config;
    format!(
        "{columns:?} {split:?} {valid_share} {max_rows:?} {languages:?} {train_on:?} {too_long:?} {copies:?} {prompt:?} {seq_len} {i_know_this_trains_on_evaluation_data}"
    )
}
