use crate::{
    device::DevicesConfig,
    paths::PathsConfig,
    storage::StorageConfig,
    track::TrackingConfig,
    validate::{Check, Validate, blank},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where and how it runs: the environment, `config.yaml`.
///
/// Secrets (`HF_TOKEN`, `MLFLOW_TRACKING_TOKEN`) are read from the environment and are no
/// settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name under which runs are filed.
    pub project: String,
    /// Seed of all random draws, 0 to 9223372036854775807.
    pub seed: u64,
    /// How models and data are fetched.
    pub storage: StorageConfig,
    /// Directories.
    pub paths: PathsConfig,
    /// The compute device.
    pub devices: DevicesConfig,
    /// Where runs are tracked, in addition to their own directory.
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

impl Validate for Config {
    fn check(&self, check: &mut Check) {
        check.when(
            i64::try_from(self.seed).is_err(),
            "seed",
            "must be at most 9223372036854775807",
        );
        check.when(blank(Some(&self.project)), "project", "must not be empty");
        check.section("paths", &self.paths);
        check.section("storage", &self.storage);
        check.section("devices", &self.devices);
        check.section("tracking", &self.tracking);
    }
}
