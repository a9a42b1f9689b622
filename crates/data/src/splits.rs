//! From the recipe's section `data` to a training and a validation set.

use super::{
    Choice, DataConfig, DataError, Dataset, DatasetReport, EvaluationProblem, Example, OverlapReport, PromptStyle,
    Tokenized, Tokenizer, decontaminate, example::spelled, text,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wmtp_base::validate::Check;

/// One of this many documents of text without problems is held out: 5%, enough to follow the loss, and little
/// lost for training.
const HELD_OUT: usize = 20;

/// What is trained on and what is held out.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Training documents.
    pub train: Dataset,
    /// Held-out documents.
    pub valid: Dataset,
    /// What the training documents share with evaluation problems.
    pub overlap: OverlapReport,
    /// What became of special tokens and of text files.
    pub tokens: TokenReport,
}

/// Special tokens and text files of a training set, for the plan and `run.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenReport {
    /// The choice that is in force.
    #[serde(flatten)]
    pub choice: Choice,
    /// Ids that begin a document.
    pub begin_ids: Vec<u32>,
    /// Ids that end a document, EOS included.
    pub end_ids: Vec<u32>,
    /// How often each special token is spelt in training texts, parsed or plain.
    pub spelled_special_tokens: BTreeMap<String, usize>,
    /// Texts too short for a document, left out.
    #[serde(default)]
    pub texts_too_short: usize,
    /// The first of those, at most [`DatasetReport::NAMED`].
    pub text_files_too_short: Vec<ShortFile>,
    /// Tokens of ends of text files too short for a document, left out.
    pub text_tail_tokens_left_out: usize,
}

impl TokenReport {
    pub(super) fn new(
        tokenizer: &Tokenizer,
        spelled_special_tokens: BTreeMap<String, usize>,
        short: Vec<(String, usize)>,
        text_tail_tokens_left_out: usize,
    ) -> Self {
        let mut end_ids = Vec::new();
        tokenizer.end(&mut end_ids);
        let short = short.into_iter().map(|(name, tokens)| ShortFile { name, tokens });
        Self {
            choice: tokenizer.choice(),
            begin_ids: tokenizer.begin_ids().to_vec(),
            end_ids,
            spelled_special_tokens,
            texts_too_short: short.len(),
            text_files_too_short: short.take(DatasetReport::NAMED).collect(),
            text_tail_tokens_left_out,
        }
    }
}

/// A text file that is too short to train on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortFile {
    /// The file's name.
    pub name: String,
    /// Its tokens, special ones at its start and end not counted.
    pub tokens: usize,
}

impl Splits {
    /// `data.text` without any problems: every 20th document is held out, or the last of fewer.
    ///
    /// # Errors
    /// Unreadable text, evaluation problems in it, or nothing left to train on.
    pub fn text_alone(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        evaluation: &[EvaluationProblem],
    ) -> Result<Self, DataError> {
        let texts = text::load(&config.text)?;
        let overlap = overlap(evaluation, &[], &texts);
        let overlap = decontaminate::refuse_copies(overlap, config.i_know_this_trains_on_evaluation_data)?;
        let read = text::tokenized(&texts, tokenizer, config.seq_len, 0)?;
        let tokens = TokenReport::new(tokenizer, spelled(&texts, tokenizer)?, read.short, read.tail_tokens);
        let documents = read.documents;
        let count = documents.len();
        let is_held_out = |index: usize| (index + 1).is_multiple_of(HELD_OUT.min(count));
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (index, document) in documents.into_iter().enumerate() {
            if is_held_out(index) { &mut valid } else { &mut train }.push(document);
        }
        if train.is_empty() {
            return Err(DataError::Empty {
                what: "training data".into(),
                why: format!(
                    "`data.source` is none and `data.text` gives {count} documents of at most {} tokens, of which one is held out; give more text",
                    config.seq_len
                ),
            });
        }
        Ok(Self {
            train: Dataset::from_tokenized(train, config.seq_len, config.pack)?,
            valid: Dataset::from_tokenized(valid, config.seq_len, config.pack)?,
            overlap,
            tokens,
        })
    }

    /// Training and validation set of the examples that `examples` makes of the task ids that it is asked
    /// for. `evaluation`: what training data must not have.
    ///
    /// # Errors
    /// Task ranges that overlap each other or the test split, evaluation problems in the training set, or
    /// nothing left to train on.
    pub fn build(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        evaluation: &[EvaluationProblem],
        texts: &[Example],
        examples: impl Fn(&dyn Fn(u32) -> bool) -> Result<Vec<Example>, DataError>,
    ) -> Result<Self, DataError> {
        let problems = Check::of("data", |check| config.check_tasks(check));
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.into());
        }
        let set = |what: &str, range: (u32, u32), excluded: &[u32]| {
            let wanted = |id: u32| (range.0..=range.1).contains(&id) && !excluded.contains(&id);
            let examples = examples(&wanted)?;
            if examples.is_empty() {
                return Err(DataError::Empty {
                    what: what.into(),
                    why: format!(
                        "`{}` has no document for the tasks {}-{}",
                        config.source, range.0, range.1
                    ),
                });
            }
            Ok(examples)
        };
        let train = set("training data", config.train_tasks, &config.exclude_tasks)?;
        let valid = set("validation data", config.valid_tasks, &[])?;
        let overlap = overlap(evaluation, &train, texts);
        let allowed = config.i_know_this_trains_on_evaluation_data;
        let overlap = decontaminate::refuse_copies(overlap, allowed)?;
        // Prompts are the chat template's or plain; text files are plain in any case.
        let prompts = match config.prompt {
            PromptStyle::Chat => tokenizer.clone().for_chat(),
            PromptStyle::ZeroShot | PromptStyle::FewShot => tokenizer.clone(),
        };
        let mut documents = Tokenized::all(&train, &prompts)?;
        let texts_read = text::tokenized(texts, tokenizer, config.seq_len, documents.len())?;
        documents.extend(texts_read.documents);
        let mut counts = spelled(&train, &prompts)?;
        for (token, count) in spelled(texts, tokenizer)? {
            *counts.entry(token).or_default() += count;
        }
        Ok(Self {
            train: Dataset::from_tokenized(documents, config.seq_len, config.pack)?,
            valid: Dataset::new(&valid, &prompts, config.seq_len, config.pack)?,
            overlap,
            tokens: TokenReport::new(&prompts, counts, texts_read.short, texts_read.tail_tokens),
        })
    }
}

/// What examples and texts share with evaluation problems.
fn overlap(evaluation: &[EvaluationProblem], examples: &[Example], texts: &[Example]) -> OverlapReport {
    let index = decontaminate::Index::of(evaluation);
    let mut report = index.compare(examples, 1);
    report += index.compare_texts(texts);
    report
}
