//! The one error type of this crate: sentences that say what was wrong, where, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Several findings about one place, printed as a list so that nobody has to mend them one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => many.iter().try_for_each(|problem| write!(f, "\n  - {problem}")),
        }
    }
}

/// Everything that can go wrong while reading, writing, converting or running a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: `read`, `write`, `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// `config.json` does not describe a Llama that this crate can run.
    #[error("{place} does not describe a Llama that can be run here: {problems}")]
    Config {
        /// The file, or `the configuration` for text from elsewhere.
        place: String,
        /// Everything that is wrong with it.
        problems: Problems,
    },
    /// The weights do not fit the configuration: names, shapes, types, files.
    #[error("the weights in {place} do not fit their configuration: {problems}")]
    Weights {
        /// The directory or file.
        place: String,
        /// Everything missing, surplus, misshapen or unreadable.
        problems: Problems,
    },
    /// A LoRA adapter does not fit its base, or needs something that is not supported.
    #[error("the LoRA adapter in {place} cannot be used: {problems}")]
    Adapter {
        /// The directory.
        place: String,
        /// Everything that is wrong with it.
        problems: Problems,
    },
    /// A directory holds no model in the expected layout.
    #[error("`{place}` {problem}")]
    NoModel {
        /// The directory.
        place: String,
        /// What it lacks, what it holds instead, and what to do.
        problem: String,
    },
    /// A file is damaged or not in the expected format.
    #[error("{} is not a readable {format} file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format expected.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An artifact belongs to another model.
    #[error(
        "{} belongs to the model with hash {found}, not to this one ({expected}): train it again for this model or load the model that it was trained on",
        path.display()
    )]
    WrongModel {
        /// The artifact.
        path: PathBuf,
        /// The hash of the model at hand.
        expected: String,
        /// The hash written in the artifact.
        found: String,
    },
    /// A request that the model cannot serve.
    #[error("{0}")]
    Request(String),
}

impl ModelError {
    /// An [`ModelError::Io`] for `path`.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// An [`ModelError::Format`] for `path`.
    pub(crate) fn format(path: &Path, format: &'static str, reason: impl fmt::Display) -> Self {
        Self::Format {
            path: path.to_path_buf(),
            format,
            reason: reason.to_string(),
        }
    }
}
