//! `data.source` by name: MBPP's files, the other built-in sets, or the user's own rows.

use crate::{
    data::{self, DataConfig, DataError, Rows, Splits, Tokenizer, Wanted, text},
    eval::bench::{self, mbpp},
};
use std::path::Path;

/// Built-in sets that can be trained on.
pub const TRAINING_SETS: &[&str] = &["mbpp"];

/// What the token loss trains on: MBPP's problems with their reference solutions, or the rows of the user's
/// own data that are right or have no label; and `data.text`.
///
/// # Errors
/// Data that can't be read, evaluation problems in the training set, or nothing left to train on.
pub fn problems(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Splits, DataError> {
    match is_mbpp(config) {
        true => mbpp::training::problems(config, tokenizer),
        false => own(config, tokenizer, Wanted::Right),
    }
}

/// Labelled solutions, right and wrong: what the critic's value head learns from.
///
/// # Errors
/// As [`problems`].
pub fn solutions(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Splits, DataError> {
    match is_mbpp(config) {
        true => mbpp::training::solutions(config, tokenizer),
        false => own(config, tokenizer, Wanted::Labelled),
    }
}

/// MBPP's files, built in or in a directory, or no problems at all.
fn is_mbpp(config: &DataConfig) -> bool {
    let files = [mbpp::PROBLEMS_FILE];
    config.source.one().is_some_and(|name| {
        name == DataConfig::NO_PROBLEMS
            || name == "builtin:mbpp"
            || files.iter().any(|file| Path::new(name).join(file).is_file())
    })
}

/// Rows of the user's own data.
fn own(config: &DataConfig, tokenizer: &Tokenizer, wanted: Wanted) -> Result<Splits, DataError> {
    let rows: Vec<Rows<'_>> = Vec::new();
    let texts = text::load(&config.text)?;
    data::splits(config, tokenizer, &bench::evaluation_problems()?, &texts, rows, wanted)
}
