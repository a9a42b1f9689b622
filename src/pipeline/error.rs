use crate::{
    data::DataError,
    device::{DeviceError, ReadError},
    eval::EvalError,
    run::{CheckpointError, RunError},
    scorer::ScorerError,
    storage::StorageError,
    track::SetupError,
    train::TrainError,
};
use std::{
    io,
    path::{Path, PathBuf},
};
use wmtp_model::ModelError;

/// A pipeline that could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The data are not usable.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model is not usable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The scorer can't be built or can't score.
    #[error(transparent)]
    Scorer(#[from] ScorerError),
    /// The run directory can't be made or written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What the run is tracked with can't be set up.
    #[error(transparent)]
    Tracking(#[from] SetupError),
    /// A checkpoint can't be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run can't be uploaded.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Training ended early.
    #[error(transparent)]
    Train(#[from] TrainError),
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
    /// The device that the config names is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Programs can't be judged, or completions can't be drawn.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A device failed to hand over what was computed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Asked to stop before the weighted stage.
    #[error("asked to stop during the value stage, which resumes at its newest checkpoint")]
    Stopped {
        /// The run.
        run: PathBuf,
    },
    /// A setting that only shows to be wrong once data and model are known.
    #[error("{0}")]
    Setting(String),
    /// A part is missing that another one was to make: a bug.
    #[error("{0}: this is a bug in wmtp")]
    Internal(&'static str),
}

impl PipelineError {
    /// Adds operation and path to an I/O error.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// True if the caller's settings are at fault rather than the run.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Setting(_) | Self::Data(_) | Self::Device(_) | Self::Tracking(_) => true,
            Self::Scorer(ScorerError::Setup { .. }) => true,
            Self::Run(error) => error.is_usage(),
            _ => false,
        }
    }
}
