//! The interface of a tracker, and what it receives.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// Tag of a run: the command that made it. A tracker may store it under a name of its own.
pub const SOURCE_TAG: &str = "wmtp.source";
/// Tag of a run: the commit of the program that made it. A tracker may store it under a name of its own.
pub const COMMIT_TAG: &str = "wmtp.commit";

/// Logs one run somewhere: at an MLflow server, in a database, in a file (`examples/own_tracker.rs` is a
/// complete one).
///
/// A tracker is called from a thread of its own, one call after the other, in the order in which
/// things happened. It may be slow or away: what it has not taken stays in the run's directory, and
/// the call is made again. Every method but [`Tracker::start`] may do nothing.
pub trait Tracker: Send {
    /// One word; names the tracker's files in the run's directory.
    fn name(&self) -> &str;

    /// Where it keeps things, for people: an address without credentials, a directory.
    fn place(&self) -> String;

    /// Opens the run, or opens it again: after a restart of the program and after every break.
    /// `kept` is what the last successful call returned, or null. What is returned is kept in the
    /// run's directory, for the next time and for people.
    ///
    /// Called again for an existing run, it must find that one, by `kept` or by [`RunInfo::uid`].
    ///
    /// # Errors
    /// [`TrackError`].
    fn start(&mut self, run: &RunInfo, kept: &Value) -> Result<Value, TrackError>;

    /// The largest step of each metric that the run has there. Asked after every start, so that
    /// nothing of a series is sent twice.
    ///
    /// # Errors
    /// [`TrackError`].
    fn latest(&mut self) -> Result<BTreeMap<String, i64>, TrackError> {
        Ok(BTreeMap::new())
    }

    /// Settings of the run.
    ///
    /// # Errors
    /// [`TrackError`].
    fn params(&mut self, _params: &BTreeMap<String, String>) -> Result<(), TrackError> {
        Ok(())
    }

    /// Tags of the run; a later value replaces an earlier one.
    ///
    /// # Errors
    /// [`TrackError`].
    fn tags(&mut self, _tags: &BTreeMap<String, String>) -> Result<(), TrackError> {
        Ok(())
    }

    /// Data that the run used.
    ///
    /// # Errors
    /// [`TrackError`].
    fn inputs(&mut self, _inputs: &[Input]) -> Result<(), TrackError> {
        Ok(())
    }

    /// Metric values, at most [`Tracker::batch`] of them. `again`: an earlier attempt ended without
    /// a clear answer, so that any of them may be there.
    ///
    /// # Errors
    /// [`TrackError`].
    fn metrics(&mut self, _points: &[Point], _again: bool) -> Result<(), TrackError> {
        Ok(())
    }

    /// Something that happened: a skipped step, a rollback, a checkpoint.
    ///
    /// # Errors
    /// [`TrackError`].
    fn event(&mut self, _event: &RunEvent) -> Result<(), TrackError> {
        Ok(())
    }

    /// A file of the run. A later one of the same name replaces it.
    ///
    /// # Errors
    /// [`TrackError`].
    fn artifact(&mut self, _artifact: &Artifact) -> Result<(), TrackError> {
        Ok(())
    }

    /// A model that the run made.
    ///
    /// # Errors
    /// [`TrackError`].
    fn model(&mut self, _model: &Model) -> Result<(), TrackError> {
        Ok(())
    }

    /// Sets the status of the run.
    ///
    /// # Errors
    /// [`TrackError`].
    fn status(&mut self, _status: Status, _at: i64) -> Result<(), TrackError> {
        Ok(())
    }

    /// Most metric values in one call.
    fn batch(&self) -> usize {
        1000
    }
}

/// Why a tracker did not take something. No message ever holds a token or a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// It could not be asked, or gave no clear answer: the call is made again later.
    #[error("{0}")]
    Away(String),
    /// It will never take this: the call is made twice more, then it is left out.
    #[error("{0}")]
    Refused(String),
}

/// Trackers that can't be set up: one sentence that says what to set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// What a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Distinguishes this run from all others, wherever it is continued.
    pub uid: String,
    /// Name for people.
    pub name: String,
    /// What it is filed under: `mtp/critic/mbpp`.
    pub experiment: String,
    /// The run that it is nested under: a name, a directory, or the tracker's own id.
    pub parent: Option<String>,
    /// The run's directory, on this machine.
    #[serde(skip)]
    pub dir: PathBuf,
    /// When it was started, in milliseconds since 1970.
    pub started: i64,
}

/// One value of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The metric.
    pub key: String,
    /// May be infinite or NaN.
    pub value: f64,
    /// Optimizer step.
    pub step: i64,
    /// When, in milliseconds since 1970. The same in every attempt.
    pub at: i64,
    /// Part of a series: its steps rise, so that every point up to the largest delivered step has been
    /// delivered.
    pub series: bool,
}

/// Data that a run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// `mbpp`.
    pub name: String,
    /// Hash of the content.
    pub digest: String,
    /// Where it came from: a URI or a directory.
    pub source: String,
    /// `training` or `evaluation`.
    pub context: String,
    /// Counts and the like, as JSON.
    pub profile: Value,
}

/// A file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it lies; relative to the run's directory if it is in there.
    pub file: PathBuf,
    /// Its name among the run's files, with `/`: `reports/NAME.md`.
    pub name: String,
}

/// A model that a run made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// `best`.
    pub name: String,
    /// Optimizer step.
    pub step: i64,
    /// Place, hash and the like.
    pub tags: BTreeMap<String, String>,
}

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Optimizer step.
    pub step: i64,
    /// `skip`, `rollback`, `checkpoint`, ...
    pub event: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Running.
    Running,
    /// It has ended as it should.
    Finished,
    /// It ended with an error.
    Failed,
    /// It was interrupted and may go on.
    Killed,
}
