//! From records of any source to a training and a validation set.

use super::{
    DataConfig, DataError, Dataset, EvaluationProblem, Example, OverlapReport, PromptStyle, Record, Rendered,
    Rendering, Splits, TokenReport, Tokenized, Tokenizer, TooLong, decontaminate, example::spelled, text,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Records rendered at once, on all cores.
const CHUNK: usize = 1024;

/// Which samples are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What a model learns to write: samples without a label, and those that are right (a reward above 0.5).
    Right,
    /// What a critic learns from: samples with a label or reward.
    Labelled,
}

/// Records of one source, and whether they are held out whatever their problem is.
pub struct Rows<'a> {
    /// The source as messages name it.
    pub name: String,
    /// Its records, read once.
    pub records: Box<dyn Iterator<Item = Result<Record, DataError>> + 'a>,
    /// Its own validation split.
    pub held_out: bool,
    /// How much of it an epoch holds, relative to all of it.
    pub weight: f64,
}

/// What was read of a set of sources.
#[derive(Default)]
struct Read {
    /// Rendered samples of each source, with their problem's number.
    samples: Vec<Vec<(u32, Rendered)>>,
    /// Problems' numbers by their hashes.
    problems: HashMap<[u8; 16], u32>,
    /// Hash of each problem, by number.
    hashes: Vec<[u8; 16]>,
    /// Samples left out because of their label, or because they have none.
    unwanted: usize,
}

/// Training and validation set of these sources and of `texts` (training only).
///
/// Where no source has a validation split, `data.valid_share` of the problems are held out, at least one. Which
/// ones depends on the problems alone, so that a row stays on its side when others are added.
///
/// # Errors
/// A row that can't be read or rendered, a reward outside 0 to 1, evaluation problems in the training set, a
/// document too long if that is refused, or nothing left to train on or to hold out.
pub fn splits(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    evaluation: &[EvaluationProblem],
    texts: &[Example],
    sources: Vec<Rows<'_>>,
    wanted: Wanted,
) -> Result<Splits, DataError> {
    let rendering = Rendering::new(config, tokenizer);
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let names = names.join("`, `");
    let own_split = sources.iter().any(|source| source.held_out);
    let kinds: Vec<(bool, f64)> = sources.iter().map(|source| (source.held_out, source.weight)).collect();
    let mut read = Read::default();
    for source in sources {
        read.add(source, &rendering, wanted)?;
    }
    if read.hashes.is_empty() {
        return Err(nothing(&names, read.unwanted, wanted));
    }
    let held_out = read.held_out(config.valid_share, own_split);
    let (mut train, mut valid) = (Side::default(), Side::default());
    // Where each source's training documents end.
    let mut parts: Vec<(f64, usize)> = Vec::new();
    for ((apart, weight), samples) in kinds.into_iter().zip(read.samples) {
        for (problem, sample) in samples {
            let is_held_out = apart || held_out.get(problem as usize).copied().unwrap_or_default();
            if is_held_out { &mut valid } else { &mut train }.push(problem, sample);
        }
        if !apart {
            parts.push((weight, train.documents.len()));
        }
    }
    if train.documents.is_empty() || valid.documents.is_empty() {
        let what = if train.documents.is_empty() {
            "training data"
        } else {
            "validation data"
        };
        return Err(DataError::Empty {
            what: what.into(),
            why: format!(
                "`{names}` has {} problem(s); at least one is trained on and one held out, so give rows with two different prompts",
                read.hashes.len()
            ),
        });
    }
    let allowed = config.i_know_this_trains_on_evaluation_data;
    let index = decontaminate::Index::of(evaluation);
    let mut overlap = index.compare_texts(&train.examples);
    overlap += index.compare_texts(texts);
    let overlap: OverlapReport = decontaminate::refuse_copies(overlap, allowed)?;
    let mut tokens = train.tokens(tokenizer)?;
    let more = text::tokenized(texts, tokenizer, config.seq_len, train.documents.len())?;
    train.documents.extend(more.documents);
    parts.push((1.0, train.documents.len()));
    for (token, count) in spelled(texts, tokenizer)? {
        *tokens.spelled_special_tokens.entry(token).or_default() += count;
    }
    let mut train = fitted(train.documents, config)?.into_iter();
    let valid = fitted(valid.documents, config)?;
    let mut begun = 0;
    let mut mix = Vec::with_capacity(parts.len());
    for (weight, end) in parts {
        mix.push((weight, train.by_ref().take(end - begun).collect()));
        begun = end;
    }
    Ok(Splits {
        train: Dataset::mixed(mix, config.seq_len, config.pack)?,
        valid: Dataset::from_tokenized(valid, config.seq_len, config.pack)?,
        overlap,
        tokens,
    })
}

impl Rendering {
    /// As the recipe's section `data` says.
    pub fn new(config: &DataConfig, tokenizer: &Tokenizer) -> Self {
        Self {
            plain: tokenizer.clone(),
            chat: tokenizer.clone().for_chat(),
            instructions_as_chat: config.prompt == PromptStyle::Chat,
            train_on: config.train_on,
            seq_len: config.seq_len,
        }
    }
}

impl Read {
    fn add(&mut self, source: Rows<'_>, rendering: &Rendering, wanted: Wanted) -> Result<(), DataError> {
        let mut records = source.records;
        let mut samples = Vec::new();
        loop {
            let chunk: Vec<Record> = records.by_ref().take(CHUNK).collect::<Result<_, _>>()?;
            if chunk.is_empty() {
                self.samples.push(samples);
                return Ok(());
            }
            let chunk: Vec<Record> = chunk
                .into_iter()
                .map(|record| self.wanted(record, wanted))
                .collect::<Result<_, _>>()?;
            let rendered: Vec<Result<_, _>> = chunk.par_iter().map(|record| rendering.record(record)).collect();
            for (record, rendered) in chunk.iter().zip(rendered) {
                for sample in rendered? {
                    let problem = self.problem(record, &sample.example);
                    samples.push((problem, sample));
                }
            }
        }
    }

    /// The record with the samples that are wanted.
    fn wanted(&mut self, mut record: Record, wanted: Wanted) -> Result<Record, DataError> {
        let before = record.samples.len();
        if let Some(reward) = record
            .samples
            .iter()
            .filter_map(|s| s.reward)
            .find(|r| !(0.0..=1.0).contains(r))
        {
            return Err(DataError::Row {
                file: record.place.file.to_string(),
                line: record.place.row,
                problem: format!("has the reward `{reward}`; scale rewards to 0 (wrong) to 1 (right)"),
            });
        }
        record.samples.retain(|sample| match wanted {
            Wanted::Right => sample.reward.is_none_or(|reward| reward > 0.5),
            Wanted::Labelled => sample.reward.is_some(),
        });
        self.unwanted += before - record.samples.len();
        Ok(record)
    }

    /// The number of a sample's problem: rows with one `task_id`, or else with one prompt, are one problem.
    fn problem(&mut self, record: &Record, example: &Example) -> u32 {
        let (kind, text) = match &record.task_id {
            Some(task) => ("task", task),
            None if example.prompt.is_empty() => ("text", &example.response),
            None => ("prompt", &example.prompt),
        };
        let mut hasher = Sha256::new();
        hasher.update(kind);
        hasher.update([0]);
        hasher.update(text);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        let next = self.hashes.len() as u32;
        let number = *self.problems.entry(hash).or_insert(next);
        if number == next {
            self.hashes.push(hash);
        }
        number
    }

    /// For each problem whether it is held out: none if a source has a split for that.
    fn held_out(&self, share: f64, own_split: bool) -> Vec<bool> {
        if own_split {
            return Vec::new();
        }
        // A uniform number below 1 for each problem, from its hash.
        let unit = |hash: &[u8; 16]| {
            let first = hash.first_chunk::<8>().copied().unwrap_or_default();
            u64::from_be_bytes(first) as f64 / 2f64.powi(64)
        };
        let drawn: Vec<f64> = self.hashes.iter().map(unit).collect();
        let least = drawn.iter().copied().fold(f64::INFINITY, f64::min);
        drawn.iter().map(|&at| at < share || at == least).collect()
    }
}

/// One side of the split.
#[derive(Default)]
struct Side {
    documents: Vec<Tokenized>,
    examples: Vec<Example>,
    short: Vec<(String, usize)>,
    tail_tokens: usize,
}

impl Side {
    fn push(&mut self, problem: u32, rendered: Rendered) {
        for document in rendered.documents {
            self.documents.push(Tokenized {
                sample: self.documents.len(),
                problem,
                ..document
            });
        }
        if let Some(tokens) = rendered.short {
            self.short.push((rendered.example.name.clone(), tokens));
        }
        self.tail_tokens += rendered.tail_tokens;
        self.examples.push(rendered.example);
    }

    fn tokens(&mut self, tokenizer: &Tokenizer) -> Result<TokenReport, DataError> {
        let counts = spelled(&self.examples, tokenizer)?;
        Ok(TokenReport::new(
            tokenizer,
            counts,
            std::mem::take(&mut self.short),
            self.tail_tokens,
        ))
    }
}

/// Documents that fit into a row, by `data.too_long`; those that are left as they are are dropped by the data set.
fn fitted(mut documents: Vec<Tokenized>, config: &DataConfig) -> Result<Vec<Tokenized>, DataError> {
    let too_long = |document: &Tokenized| document.tokens.len() > config.seq_len;
    match config.too_long {
        TooLong::Drop => {}
        TooLong::Refuse => {
            if let Some(long) = documents.iter().find(|document| too_long(document)) {
                return Err(DataError::Setting {
                    key: "data.seq_len",
                    problem: format!(
                        "is {}, and `{}` has {} tokens; raise it, or set data.too_long to `cut` or `drop`",
                        config.seq_len,
                        long.name,
                        long.tokens.len()
                    ),
                });
            }
        }
        TooLong::Cut => {
            // One whose prompt fills the row stays too long, so that it is dropped and named.
            let fits = |document: &Tokenized| {
                let mut cut = document.clone();
                cut.cut(config.seq_len);
                cut.trained_tokens() > 0
            };
            for document in documents.iter_mut().filter(|d| too_long(d) && fits(d)) {
                document.cut(config.seq_len);
            }
        }
    }
    Ok(documents)
}

/// Why nothing is left.
fn nothing(names: &str, unwanted: usize, wanted: Wanted) -> DataError {
    let why = match (wanted, unwanted) {
        (_, 0) => format!("`{names}` has no rows; check `data.source` and `data.split`"),
        (Wanted::Labelled, _) => format!(
            "no row of `{names}` has a label, and the critic learns from labels: give `label`, `reward`, `chosen` and `rejected`, or train the baseline"
        ),
        (Wanted::Right, n) => format!("all {n} samples of `{names}` are labelled as wrong; give right ones"),
    };
    DataError::Empty {
        what: "training data".into(),
        why,
    }
}
