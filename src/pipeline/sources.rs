//! `data.source` by name: MBPP's files, the other built-in sets, or the user's own rows.

use crate::{
    data::{
        self, DataConfig, DataError, Example, Rows, Sources, Splits, Tokenizer, Wanted,
        source::{Source, SourceOptions},
        text,
    },
    eval::bench::{self, mbpp},
};
use std::path::Path;

/// Built-in sets that can be trained on.
pub const TRAINING_SETS: &[&str] = &["mbpp"];
/// The split that is held out, where the data have it.
const VALIDATION: &str = "validation";

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
pub fn is_mbpp(config: &DataConfig) -> bool {
    config.source.one().is_some_and(|name| {
        name == DataConfig::NO_PROBLEMS || name == "builtin:mbpp" || Path::new(name).join(mbpp::PROBLEMS_FILE).is_file()
    })
}

/// The training rows of the user's own data as texts, for the comparison with benchmarks.
///
/// # Errors
/// A row that can't be read.
pub fn texts(config: &DataConfig) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::new();
    for (_, _, source) in open(config)?.into_iter().filter(|(_, held_out, _)| !held_out) {
        for record in source.records() {
            examples.extend(record?.examples());
        }
    }
    Ok(examples)
}

/// Rows of the user's own data.
fn own(config: &DataConfig, tokenizer: &Tokenizer, wanted: Wanted) -> Result<Splits, DataError> {
    let opened = open(config)?;
    let rows = opened.iter().map(|(weight, held_out, source)| Rows {
        name: data::source::Dataset::name(source).to_owned(),
        records: Box::new(source.records()),
        held_out: *held_out,
        weight: *weight,
    });
    // Plain text is trained on, and has no labels to learn from.
    let texts = match wanted {
        Wanted::Right => text::load(&config.text)?,
        Wanted::Labelled => Vec::new(),
    };
    data::splits(
        config,
        tokenizer,
        &bench::evaluation_problems()?,
        &texts,
        rows.collect(),
        wanted,
    )
}

/// The sources with their weights; a validation split is a source of its own, which is held out.
pub fn open(config: &DataConfig) -> Result<Vec<(f64, bool, Source)>, DataError> {
    let parts = match &config.source {
        Sources::One(name) => vec![(1.0, name, config.split.clone(), &config.columns)],
        Sources::Mixed(parts) => parts
            .iter()
            .map(|part| {
                let split = part.split.clone().or_else(|| config.split.clone());
                let columns = part.columns.as_ref().unwrap_or(&config.columns);
                (part.weight, &part.source, split, columns)
            })
            .collect(),
    };
    let mut opened = Vec::new();
    for (weight, name, split, columns) in parts {
        let options = SourceOptions {
            split,
            columns: columns.clone(),
            max_rows: config.max_rows,
        };
        let source = Source::open(Path::new(name), &options)?;
        let has_own = source.split() != VALIDATION && source.splits().iter().any(|split| split == VALIDATION);
        opened.push((weight, false, source));
        if has_own {
            let options = SourceOptions {
                split: Some(VALIDATION.into()),
                ..options
            };
            opened.push((1.0, true, Source::open(Path::new(name), &options)?));
        }
    }
    Ok(opened)
}
