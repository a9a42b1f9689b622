//! From the recipe's section `data` to a training and a validation set.

use super::{
    Choice, DataConfig, DataError, Dataset, Example, OverlapReport, PromptStyle, Tokenized, Tokenizer, decontaminate,
    evaluation, mbpp, pairs, special, text,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    io::ErrorKind::NotFound,
};

/// Of so many documents of text without problems, one is held out.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    /// Text files too short for a document, left out.
    pub text_files_too_short: Vec<ShortFile>,
    /// Tokens of ends of text files too short for a document, left out.
    pub text_tail_tokens_left_out: usize,
}

impl TokenReport {
    fn new(
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
            text_files_too_short: short.collect(),
            text_tail_tokens_left_out,
        }
    }
}

/// A text file that is too short to train on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShortFile {
    /// The file's name.
    pub name: String,
    /// Its tokens, special ones at its start and end not counted.
    pub tokens: usize,
}

impl Splits {
    /// MBPP's problems with their reference solutions, and `data.text`: what the token loss trains on. A
    /// reference has reward 1 where the labelled solutions (if they are there) say that it passed.
    ///
    /// # Errors
    /// Unreadable or incomplete files, task ranges that overlap each other or the test split,
    /// evaluation problems in the training set, or nothing left to train on.
    pub fn problems(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        if config.source == DataConfig::NO_PROBLEMS {
            return Self::text_alone(config, tokenizer);
        }
        let problems = mbpp::load(&config.source)?;
        let solutions = match pairs::load(&config.source) {
            Err(DataError::Read { source, .. }) if source.kind() == NotFound => Vec::new(),
            solutions => solutions?,
        };
        let passed: HashSet<(u32, &str)> = solutions
            .iter()
            .filter(|s| s.is_correct)
            .map(|s| (s.task_id, s.code.as_str()))
            .collect();
        Self::build(config, tokenizer, &problems, &text::load(&config.text)?, |wanted| {
            let mut examples = mbpp::examples(&problems, wanted, config.prompt, tokenizer)?;
            for example in &mut examples {
                let known = passed.contains(&(example.problem, example.code.as_str()));
                example.reward = known.then_some(1.0);
            }
            Ok(examples)
        })
    }

    /// Labelled solutions, correct and incorrect: what the critic's value head learns from.
    ///
    /// # Errors
    /// As [`Splits::problems`].
    pub fn solutions(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        if config.source == DataConfig::NO_PROBLEMS {
            return Err(DataError::Setting {
                key: "data.source",
                problem: "is `none`, and the critic learns from labelled solutions; take builtin:mbpp, or train another pipeline".into(),
            });
        }
        let problems = mbpp::load(&config.source)?;
        let solutions = pairs::load(&config.source)?;
        Self::build(config, tokenizer, &problems, &[], |wanted| {
            pairs::examples(&solutions, &problems, wanted, config.prompt, tokenizer)
        })
    }

    /// `data.text` without any problems: every [`HELD_OUT`]th document is held out, or the last of fewer.
    fn text_alone(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let texts = text::load(&config.text)?;
        let overlap = overlap(&[], &[], &texts)?;
        let overlap = decontaminate::refuse_copies(overlap, config.i_know_this_trains_on_evaluation_data)?;
        let read = text::tokenized(&texts, tokenizer, config.seq_len, 0)?;
        let tokens = TokenReport::new(
            tokenizer,
            special::spelled(&texts, tokenizer)?,
            read.short,
            read.tail_tokens,
        );
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

    fn build(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        problems: &[mbpp::Problem],
        texts: &[Example],
        examples: impl Fn(&dyn Fn(u32) -> bool) -> Result<Vec<Example>, DataError>,
    ) -> Result<Self, DataError> {
        check_ranges(config)?;
        let set = |what: &str, range, excluded: &[u32]| {
            let wanted = |id: u32| mbpp::within(id, range) && !excluded.contains(&id);
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
        let overlap = overlap(problems, &train, texts)?;
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
        let mut spelled = special::spelled(&train, &prompts)?;
        for (token, count) in special::spelled(texts, tokenizer)? {
            *spelled.entry(token).or_default() += count;
        }
        Ok(Self {
            train: Dataset::from_tokenized(documents, config.seq_len, config.pack)?,
            valid: Dataset::new(&valid, &prompts, config.seq_len, config.pack)?,
            overlap,
            tokens: TokenReport::new(&prompts, spelled, texts_read.short, texts_read.tail_tokens),
        })
    }
}

/// What examples and texts share with every benchmark's evaluation problems, and with the test tasks
/// of the data's own `problems`.
fn overlap(problems: &[mbpp::Problem], examples: &[Example], texts: &[Example]) -> Result<OverlapReport, DataError> {
    let mut all = evaluation::mbpp_test("mbpp", problems);
    for benchmark in evaluation::BENCHMARKS {
        all.extend(evaluation::problems(benchmark)?);
    }
    let index = decontaminate::Index::of(&all);
    let mut report = index.compare(examples, 1);
    report += index.compare_texts(texts);
    Ok(report)
}

fn check_ranges(config: &DataConfig) -> Result<(), DataError> {
    let meet = |a: (u32, u32), b: (u32, u32)| a.0 <= b.1 && b.0 <= a.1;
    let ranges = [
        ("data.train_tasks", config.train_tasks),
        ("data.valid_tasks", config.valid_tasks),
    ];
    for (key, range) in ranges {
        let wrong = |problem: String| Err(DataError::Setting { key, problem });
        let (first, last) = range;
        if first > last || first < mbpp::TASKS.0 || last > mbpp::TASKS.1 {
            return wrong(format!(
                "is {first}-{last}; it is a first and a last id of MBPP's 1 to 974"
            ));
        }
        if meet(range, mbpp::TEST_TASKS) && !config.i_know_this_trains_on_evaluation_data {
            return wrong(format!(
                "is {first}-{last} and reaches into MBPP's test split, {}-{}; take 601-974 to train and 511-600 to \
                 validate, or set `data.i_know_this_trains_on_evaluation_data: true`",
                mbpp::TEST_TASKS.0,
                mbpp::TEST_TASKS.1
            ));
        }
    }
    if meet(config.train_tasks, config.valid_tasks) {
        return Err(DataError::Setting {
            key: "data.valid_tasks",
            problem: "shares ids with `data.train_tasks`; what is held out may not be trained on".into(),
        });
    }
    Ok(())
}
