use crate::{device::DevicesConfig, paths::PathsConfig, storage::StorageConfig, track::TrackingConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where and how it runs: the environment, `config.yaml`.
///
/// Secrets (`HF_TOKEN`, `MLFLOW_TRACKING_TOKEN`) are read from the environment by whoever needs them and are no settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name under which runs are filed.
    pub project: String,
    /// Every random draw follows from this number, 0 to 9223372036854775807.
    pub seed: u64,
    /// How models and data are fetched.
    pub storage: StorageConfig,
    /// Where things lie.
    pub paths: PathsConfig,
    /// What computes.
    pub devices: DevicesConfig,
    /// Where runs are followed beside their own directory.
    pub tracking: TrackingConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            project: "wmtp".into(),
            seed: 42,
            storage: StorageConfig::default(),
            paths: PathsConfig::default(),
            devices: DevicesConfig::default(),
            tracking: TrackingConfig::default(),
        }
    }
}
