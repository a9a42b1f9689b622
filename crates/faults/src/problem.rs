//! What keeps a schedule from its verdict.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A schedule that failed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The program did what it must not do.
    #[error("{0}")]
    Wrong(String),
    /// The disturbance itself could not be made.
    #[error("{what} `{}` failed: {source}", path.display())]
    Io {
        /// What was tried: "reading".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Problem {
    /// Adds what was tried and where to an error of the system.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }

    /// The program did what it must not do.
    pub fn wrong<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Wrong(what.into()))
    }
}

/// How a schedule ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run ended as the undisturbed one, bit for bit.
    Identical,
    /// The program refused to continue the run with a sentence that names the cause.
    Refused,
}
