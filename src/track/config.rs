use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Config section `tracking`: where runs are followed beside their own directory. Nowhere, unless
/// `kinds` names something.
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
    /// Seconds between deliveries; what is logged in between goes together.
    pub interval_seconds: f64,
    /// Seconds that the end of a run waits for what is not delivered yet.
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
