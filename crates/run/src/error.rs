use std::{
    io,
    path::{Path, PathBuf},
};

/// A run directory that can't be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file system said no.
    #[error("{what} `{}` failed: {source}", path.display())]
    Io {
        /// What was tried: "writing".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new run would overwrite an old one.
    #[error("the run directory `{}` exists already: give another --run-name, or continue it with --resume", .0.display())]
    Exists(PathBuf),
    /// Another process works on the run.
    #[error("{holder} works on the run `{}`: wait until it ends, or stop it", dir.display())]
    Locked {
        /// The run.
        dir: PathBuf,
        /// Which process, where it is known.
        holder: String,
    },
    /// A directory of this name holds something else.
    #[error("the directory `{}` holds other files and no `run.json`, so it is no run: give another --run-name, or move it away", .0.display())]
    Occupied(PathBuf),
    /// A settings file of a run is not the one that the run wrote.
    #[error(
        "`{}` is not the settings file that the run wrote: its SHA-256 is {found}, and `run.json` says {expected}; put the run's own file back (changes are made with --set), or start a new run from a checkpoint with --model",
        path.display()
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// Its hash.
        found: String,
        /// The hash that was recorded.
        expected: String,
    },
    /// A file without which a run can't be resumed.
    #[error(
        "`{}` can't be used: {problem}; put the run's own file back, or start a new run from a checkpoint with --model",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A run to resume is not there.
    #[error("there is no run `{run}` under `{}`: --resume takes a run's name, its directory, or `auto` for the newest", dir.display())]
    NotFound {
        /// What was asked for.
        run: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
}

impl RunError {
    /// True where what was given is at fault, and not the work: another name, file or run is to be given.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Exists(_) | Self::Occupied(_) | Self::NotFound { .. } => true,
            Self::Altered { .. } | Self::Damaged { .. } => true,
            Self::Io { .. } | Self::Locked { .. } => false,
        }
    }

    /// Adds what was tried and where to an I/O error.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

/// A checkpoint that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] RunError),
    /// A file is not what the manifest says.
    #[error("checkpoint `{}` is damaged: {problem}", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The model or optimizer in it can't be written or read.
    #[error("checkpoint `{}`: {problem}", path.display())]
    Content {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing usable is left.
    #[error("no complete checkpoint under `{}`{}", dir.display(), if damaged.is_empty() { String::new() } else { format!(": {}", damaged.join("; ")) })]
    None {
        /// Where.
        dir: PathBuf,
        /// The damaged ones, a sentence each.
        damaged: Vec<String>,
    },
}
