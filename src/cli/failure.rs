use crate::{
    data::DataError,
    device::DeviceError,
    eval::{EvalError, sandbox::SandboxError},
    pipeline::PipelineError,
    settings::SettingsError,
    storage::StorageError,
    sweep::SweepError,
};
use wmtp_model::ModelError;

/// Why a command ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Bad usage or settings: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// The command did its work and what it found is bad: exit code 1. The result is printed already.
    Found(String),
    /// The reader of standard output went away: there is nobody to tell, exit code 0.
    Quiet,
}

impl Failure {
    /// Bad usage or settings.
    pub fn usage(message: impl ToString) -> Self {
        Self::Usage(tidy(&message.to_string()))
    }

    /// A failure while doing what was asked for.
    pub fn failed(message: impl ToString) -> Self {
        Self::Failed(tidy(&message.to_string()))
    }

    /// The same with `before` in front of its sentence.
    pub(super) fn about(self, before: &str) -> Self {
        match self {
            Self::Usage(message) => Self::Usage(format!("{before}{message}")),
            Self::Failed(message) => Self::Failed(format!("{before}{message}")),
            other => other,
        }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Found(_) => 1,
            Self::Quiet => 0,
        }
    }

    /// One sentence; empty for [`Failure::Quiet`].
    pub fn message(&self) -> &str {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::Found(message) => message,
            Self::Quiet => "",
        }
    }
}

/// A sentence on one line; the lines of a list below it keep theirs, and their indentation.
fn tidy(text: &str) -> String {
    let is_item = |line: &&str| line.starts_with("  - ") || line.starts_with("      ");
    let (mut sentence, mut list) = (Vec::new(), String::new());
    for line in text.lines() {
        match is_item(&line) {
            true => list += &format!("\n{}", line.trim_end()),
            false => sentence.extend(line.split_whitespace()),
        }
    }
    sentence.join(" ") + &list
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::usage(error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::usage(error)
    }
}

/// A directory that holds no model, or not the one that was asked for, is usage; a damaged file is
/// a failure.
impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Io { .. } | ModelError::Format { .. } => Self::failed(error),
            ModelError::Config { .. }
            | ModelError::NoModel { .. }
            | ModelError::Adapter { .. }
            | ModelError::Weights { .. }
            | ModelError::WrongModel { .. }
            | ModelError::Request(_) => Self::usage(error),
        }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::failed(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(format!("the result cannot be written as JSON: {error}"))
    }
}

/// A request that can't be carried out and unusable data are usage.
impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Request(_) | EvalError::Data(_) | EvalError::Read { .. } | EvalError::Prediction { .. } => {
                Self::usage(error)
            }
            _ => Self::failed(error),
        }
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Model(error) => error.into(),
            PipelineError::Storage(error) => error.into(),
            PipelineError::Eval(error) => error.into(),
            error if error.is_usage() => Self::usage(error),
            error => Self::failed(error),
        }
    }
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        if error.is_usage() {
            Self::usage(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::usage(error)
    }
}

/// A bad URI and a path that is not there are usage, the network is not.
impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::BadUri { .. }
            | StorageError::Missing { .. }
            | StorageError::Offline { .. }
            | StorageError::NotBuilt { .. }
            | StorageError::NoRun { .. } => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
