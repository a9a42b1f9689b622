use crate::settings::SettingsError;
use std::{io, path::PathBuf};

/// A sweep that can't be read, started or recorded.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The sweep file or another settings file is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A value of the sweep file is invalid.
    #[error("`{key}` {problem} (in {})", path.display())]
    Invalid {
        /// The key.
        key: String,
        /// The rest of the sentence.
        problem: String,
        /// The sweep file.
        path: PathBuf,
    },
    /// The settings of one arm can't be used.
    #[error("the arm {arm} can't be trained: {problem}")]
    Arm {
        /// Its values, for people.
        arm: String,
        /// One sentence.
        problem: String,
    },
    /// A directory with an arm's name holds a run of other settings.
    #[error("`{}` holds a run with other settings than the arm of that name: move it away", .0.display())]
    Foreign(PathBuf),
    /// The trackers that the config names can't be set up.
    #[error("{0}")]
    Tracking(String),
    /// An I/O error.
    #[error("{what} `{}` failed: {source}", path.display())]
    Io {
        /// The operation: "writing".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

impl SweepError {
    /// Adds operation and path to an I/O error.
    pub(super) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }

    /// True if the user's files are at fault rather than the machine.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Other(_))
    }
}
