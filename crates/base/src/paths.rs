//! Where models, data, caches and runs lie on this machine.

use crate::validate::{Check, Validate, blank};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Config section `paths`. A leading `~/` is the home directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathsConfig {
    /// Directory searched first for a model: `hf://owner/name` is `owner/name` under it.
    pub models: PathBuf,
    /// The same for data sets.
    pub datasets: PathBuf,
    /// Cache of downloads.
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

impl Validate for PathsConfig {
    fn check(&self, check: &mut Check) {
        for (key, path) in [
            ("models", &self.models),
            ("datasets", &self.datasets),
            ("cache", &self.cache),
            ("runs", &self.runs),
        ] {
            check.when(
                path.as_os_str().is_empty(),
                key,
                "must not be empty: write a directory, `.` for this one",
            );
        }
        check.when(
            self.base.is_some() && blank(self.base.as_deref()),
            "base",
            "must not be empty: leave it out, or name a model's directory",
        );
    }
}

/// `~/x` as `x` in the home directory (`HOME`); any other path as it is.
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    }
}
