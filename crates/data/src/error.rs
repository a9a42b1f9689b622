//! What can be wrong with data. Only the errors; who raises them says when.

use crate::Place;
use std::path::PathBuf;
use wmtp_base::validate::Violation;

/// Data that can't be read, checked or trained on. Each is one sentence: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file that is not there or can't be read.
    #[error("cannot read `{}`: {source}; give a directory that holds this file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what it should be, or can't be read.
    #[error("`{}` {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that can't be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name after `builtin:` that the program does not carry.
    #[error("there is no built-in data set `{name}` here; there is builtin:{known}")]
    UnknownBuiltin {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A row of a data file that is not what it should be.
    #[error("{file}, line {line}: {problem}")]
    Row {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A row of any format that is not what it should be.
    #[error("{place}: {problem}")]
    BadRow {
        /// File and row.
        place: Place,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A column of a row that is not what it should be.
    #[error("{place}, column `{column}`: {problem}")]
    Column {
        /// File and row.
        place: Place,
        /// The column by its name in the file, with the way to the part that is wrong: `messages[2].role`.
        column: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Problems that a data set lacks.
    #[error("{file} lacks the task ids {missing}; take the complete file (ids 1 to 974)")]
    MissingTasks {
        /// The file.
        file: String,
        /// The missing ids as ranges.
        missing: String,
    },
    /// A benchmark's set that is not the known one.
    #[error(
        "{file} {findings}: a score on it is no score on this benchmark; take the complete, unchanged file, or set \
         `eval.altered_data: true`, which the report then says"
    )]
    Altered {
        /// The file.
        file: String,
        /// The rows that are missing, altered or unknown.
        findings: String,
    },
    /// Nothing to train on or validate with.
    #[error("no {what}: {why}")]
    Empty {
        /// What there is none of, `training data` for one.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// A setting that breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// Data settings that can't be used with these data.
    #[error("`{key}` {problem}")]
    Setting {
        /// The recipe's key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Asked to stop while data were tokenised.
    #[error("asked to stop while the data were tokenised, which begins anew with the next start")]
    Stopped,
    /// An evaluation problem inside the training data.
    #[error(
        "{sample} may not be trained on: {reason}; leave it out (`data.copies: drop` does so with rows), or set \
         `data.i_know_this_trains_on_evaluation_data: true` and report no score on that benchmark"
    )]
    Contaminated {
        /// The training sample.
        sample: String,
        /// The evaluation problem and how it was recognised.
        reason: String,
    },
    /// A tokenizer that can't be used.
    #[error("tokenizer {place}: {problem}")]
    Tokenizer {
        /// Directory or built-in name.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A tokenizer that does not belong to the model.
    #[error("wrong tokenizer: {problem}")]
    WrongTokenizer {
        /// What does not agree, and what to do.
        problem: String,
    },
    /// A chat template that is absent or can't be rendered.
    #[error("chat template of {place}: {problem}")]
    ChatTemplate {
        /// Directory or built-in name.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl DataError {
    /// The same error with the sample that it was found in, where only the text is known.
    pub(super) fn of_sample(self, sample: &str) -> Self {
        match self {
            Self::WrongTokenizer { problem } => Self::WrongTokenizer {
                problem: format!("{sample}: {problem}"),
            },
            other => other,
        }
    }
}
