//! `data.source` by name: MBPP's files, the other built-in sets, or the user's own rows.

use super::{DataStore, PipelineError, builtin_labels::InMemory, world::WorldTasks};
use crate::{
    data::{
        self, Copies, DataConfig, DataError, Example, Record, Rows, Sources, Splits, TokenCache, Tokenizer, Wanted,
        decontaminate::Index,
        source::{Dataset, Source, SourceOptions},
        text,
    },
    eval::bench::{self, mbpp},
};
use std::path::Path;

/// Built-in sets that can be trained on.
pub const TRAINING_SETS: &[&str] = &["mbpp", "contest", "condefects", "world"];
/// The split that is held out, where the data have it.
const VALIDATION: &str = "validation";

/// What the token loss trains on: MBPP's problems with their reference solutions, or the rows of the user's
/// own data that are right or have no label; and `data.text`.
///
/// # Errors
/// Data that can't be read, evaluation problems in the training set, or nothing left to train on.
pub fn problems(config: &DataConfig, tokenizer: &Tokenizer, store: &DataStore) -> Result<Splits, DataError> {
    match is_mbpp(config) {
        true => mbpp::training::problems(config, tokenizer),
        false => own(config, tokenizer, Wanted::Right, store),
    }
}

/// Labelled solutions, right and wrong: what the critic's value head learns from.
///
/// # Errors
/// As [`problems`].
pub fn solutions(config: &DataConfig, tokenizer: &Tokenizer, store: &DataStore) -> Result<Splits, DataError> {
    match is_mbpp(config) {
        true => mbpp::training::solutions(config, tokenizer),
        false => own(config, tokenizer, Wanted::Labelled, store),
    }
}

/// MBPP's files, built in or in a directory, or no problems at all.
pub fn is_mbpp(config: &DataConfig) -> bool {
    config.source.one().is_some_and(|name| {
        name == DataConfig::NO_PROBLEMS || name == "builtin:mbpp" || Path::new(name).join(mbpp::PROBLEMS_FILE).is_file()
    })
}

/// Rows of one source.
struct Opened {
    /// How much of it an epoch holds.
    weight: f64,
    /// It is the data's own validation split.
    held_out: bool,
    /// It is shipped with the program.
    built_in: bool,
    rows: Box<dyn Dataset>,
}

/// Rows of the user's own data, or of a built-in set.
fn own(config: &DataConfig, tokenizer: &Tokenizer, wanted: Wanted, store: &DataStore) -> Result<Splits, DataError> {
    let opened = open(config)?;
    store.with(|cache| split(config, tokenizer, wanted, &opened, Some(cache)))
}

/// The same with the rewards that `label` gives. These records are in memory.
///
/// # Errors
/// As [`problems`]; rows without tests; a sandbox that fails.
pub(super) fn rewarded(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    wanted: Wanted,
    label: impl Fn(&mut [Record]) -> Result<(), PipelineError>,
) -> Result<Splits, PipelineError> {
    let opened = open(config)?;
    let mut records: Vec<Record> = Vec::new();
    // Where the records of each source end.
    let mut ends = Vec::with_capacity(opened.len());
    for source in &opened {
        for record in source.rows.records() {
            let record = record?;
            if config.reads(&record) {
                records.push(record);
            }
        }
        ends.push(records.len());
    }
    label(&mut records)?;
    let mut records = records.into_iter();
    let mut begun = 0;
    let mut labelled = Vec::with_capacity(opened.len());
    for (source, end) in opened.into_iter().zip(ends) {
        let own: Vec<Record> = records.by_ref().take(end - begun).collect();
        begun = end;
        labelled.push(Opened {
            rows: Box::new(InMemory::new(source.rows.name(), own, String::new())),
            ..source
        });
    }
    Ok(split(config, tokenizer, wanted, &labelled, None)?)
}

fn split(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    wanted: Wanted,
    opened: &[Opened],
    cache: Option<&TokenCache<'_>>,
) -> Result<Splits, DataError> {
    let rows: Vec<Rows<'_>> = opened
        .iter()
        .map(|source| Rows {
            source: source.rows.as_ref(),
            held_out: source.held_out,
            weight: source.weight,
            without_copies: source.built_in,
        })
        .collect();
    // Plain text is trained on, and has no labels to learn from.
    let texts = match wanted {
        Wanted::Right => text::load(&config.text)?,
        Wanted::Labelled => Vec::new(),
    };
    let evaluation = bench::evaluation_problems()?;
    data::splits(config, tokenizer, &evaluation, &texts, &rows, wanted, cache)
}

/// The training rows of the user's own data as texts, without the copies that are left out, for the comparison
/// with benchmarks.
///
/// # Errors
/// A row that can't be read.
pub fn texts(config: &DataConfig) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::new();
    let evaluation = Index::of(&bench::evaluation_problems()?);
    for source in open(config)?.into_iter().filter(|source| !source.held_out) {
        let without_copies = source.built_in || config.copies == Copies::Drop;
        for record in source.rows.records() {
            let own = record?.examples();
            let kept = |example: &Example| !without_copies || !evaluation.compare_text(example).is_copy();
            examples.extend(own.into_iter().filter(kept));
        }
    }
    Ok(examples)
}

/// The sources with their weights; a validation split is a source of its own, which is held out.
fn open(config: &DataConfig) -> Result<Vec<Opened>, DataError> {
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
        let builtin = name.strip_prefix("builtin:");
        let mut add = |held_out: bool, rows: Box<dyn Dataset>| {
            opened.push(Opened {
                weight: if held_out { 1.0 } else { weight },
                held_out,
                built_in: builtin.is_some(),
                rows,
            });
        };
        if let Some(builtin) = builtin {
            for (held_out, rows) in built_in(builtin)? {
                add(held_out, rows);
            }
            continue;
        }
        let options = SourceOptions {
            split,
            columns: columns.clone(),
            max_rows: config.max_rows,
        };
        let source = Source::open(Path::new(name), &options)?;
        let has_own = source.split() != VALIDATION && source.splits().iter().any(|split| split == VALIDATION);
        add(false, Box::new(source));
        if has_own {
            let options = SourceOptions {
                split: Some(VALIDATION.into()),
                ..options
            };
            add(true, Box::new(Source::open(Path::new(name), &options)?));
        }
    }
    Ok(opened)
}

/// Whether a side of a set is held out, and its rows.
type Part = (bool, Box<dyn Dataset>);

/// The sides of a built-in set.
fn built_in(name: &str) -> Result<Vec<Part>, DataError> {
    Ok(match name {
        "condefects" => vec![(false, Box::new(InMemory::condefects()?))],
        "contest" => vec![(false, Box::new(InMemory::contest()?))],
        "world" => {
            let [training, held_out] = WorldTasks::both();
            vec![(false, Box::new(training)), (true, Box::new(held_out))]
        }
        other => {
            return Err(DataError::UnknownBuiltin {
                name: other.to_owned(),
                known: TRAINING_SETS.join(", builtin:"),
            });
        }
    })
}
