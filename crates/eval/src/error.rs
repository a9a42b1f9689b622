use super::sandbox::SandboxError;
use std::path::PathBuf;
use wmtp_data::DataError;

/// Why an evaluation stopped. A program that fails its checks is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The problems or their prompts.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The sandbox itself.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A request that cannot be carried out.
    #[error("{0}")]
    Request(String),
    /// The generator failed, or broke its contract.
    #[error("generating completions failed: {0}")]
    Generate(String),
    /// A file that is to be judged, or a run that is to be resumed, could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An answer in a file of completions that cannot be judged.
    #[error("{}, {place}: {problem}", path.display())]
    Prediction {
        /// Which file.
        path: PathBuf,
        /// `line 3` of a JSONL file, `item 3` of a JSON array, from 1.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Asked to stop.
    #[error("stopped before the end; run the same command again to continue: what was found is kept")]
    Stopped,
    /// A result could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}
