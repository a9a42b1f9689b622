use crate::{device::DevicesConfig, storage::StorageConfig, track::TrackingConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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

/// Config section `paths`. A leading `~/` is the home directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathsConfig {
    /// Looked into first for a model: `hf://owner/name` is `owner/name` under it.
    pub models: PathBuf,
    /// The same for data.
    pub datasets: PathBuf,
    /// What was downloaded.
    pub cache: PathBuf,
    /// Run directories.
    pub runs: PathBuf,
    /// The base model of a LoRA adapter, or the model of a resumed run, where it is not found under the
    /// name that it has in their files (`--base`).
    pub base: Option<String>,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            models: "models".into(),
            datasets: "datasets".into(),
            cache: "~/.cache/wmtp".into(),
            runs: "runs".into(),
            base: None,
        }
    }
}

/// `~/x` as `x` in the home directory (`HOME`); any other path as it is.
pub fn expand_home(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    }
}
