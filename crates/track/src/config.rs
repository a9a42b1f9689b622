use crate::validate::{Check, NAMELESS, Validate, has_nameless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Config section `tracking`: where runs are tracked, in addition to their own directory. Nowhere, unless
/// `kinds` names a tracker.
///
/// Tokens and passwords are no settings: `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and
/// `MLFLOW_TRACKING_PASSWORD`, from the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingConfig {
    /// `[mlflow]` logs runs at an MLflow server; `[]` nowhere.
    pub kinds: Vec<TrackerKind>,
    /// The experiment that runs are filed under; `mtp/{algorithm}/{data set}` if left out.
    pub experiment: Option<String>,
    /// The run that this one is nested under: a run's name, its directory, or the tracker's own id.
    pub parent_run: Option<String>,
    /// What is kept of checkpoints: `link` names them, `upload` sends their files, too, when
    /// training has ended.
    pub checkpoints: CheckpointTracking,
    /// Seconds between deliveries; everything logged in between is sent as one batch.
    pub interval_seconds: f64,
    /// Seconds to wait at the end of a run for undelivered data.
    pub wait_seconds: f64,
    /// The MLflow server.
    pub mlflow: MlflowConfig,
    /// More tags of the run: `key=value`, or a word.
    pub tags: Vec<String>,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            experiment: None,
            parent_run: None,
            checkpoints: CheckpointTracking::Link,
            interval_seconds: 1.0,
            wait_seconds: 30.0,
            mlflow: MlflowConfig::default(),
            tags: Vec::new(),
        }
    }
}

/// A kind of tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrackerKind {
    /// An MLflow server, over HTTP.
    Mlflow,
}

/// What is kept of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointTracking {
    /// A file that names place, step and hashes.
    Link,
    /// The files themselves as well.
    Upload,
}

/// Config section `tracking.mlflow`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MlflowConfig {
    /// The server, `http://HOST:PORT`; `MLFLOW_TRACKING_URI` if left out.
    pub uri: Option<String>,
    /// Metric values in a request, 1 to 1000.
    pub batch: usize,
    /// Seconds without an answer before a request counts as broken.
    pub timeout_seconds: f64,
}

impl Default for MlflowConfig {
    fn default() -> Self {
        Self {
            uri: None,
            batch: 1000,
            timeout_seconds: 30.0,
        }
    }
}

impl TrackingConfig {
    /// Whether anything is to be tracked.
    pub fn is_on(&self) -> bool {
        !self.kinds.is_empty()
    }
}

impl Validate for TrackingConfig {
    fn check(&self, check: &mut Check) {
        for (key, value) in [
            ("interval_seconds", self.interval_seconds),
            ("wait_seconds", self.wait_seconds),
        ] {
            check.when(!is_duration(value), key, "must be between 0 and 86400");
        }
        check.when(has_nameless(&self.tags), "tags", NAMELESS);
        check.section("mlflow", &self.mlflow);
        check.when(
            self.experiment
                .as_ref()
                .is_some_and(|e| e.trim().is_empty() || e.len() > 500),
            "experiment",
            "must have 1 to 500 characters; leave it out for mtp/{algorithm}/{data set}",
        );
        check.when(
            self.parent_run.as_ref().is_some_and(|p| p.trim().is_empty()),
            "parent_run",
            "must not be empty: write a run's name, directory or id, or leave it out",
        );
    }
}

impl Validate for MlflowConfig {
    fn check(&self, check: &mut Check) {
        check.when(
            !is_duration(self.timeout_seconds) || self.timeout_seconds <= 0.0,
            "timeout_seconds",
            "must be above 0, and 86400 or less",
        );
        check.when(
            !(1..=1000).contains(&self.batch),
            "batch",
            "must be between 1 and 1000, which is the most that a server takes",
        );
    }
}

/// Seconds, at most a day.
fn is_duration(seconds: f64) -> bool {
    (0.0..=86_400.0).contains(&seconds)
}
