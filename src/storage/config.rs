use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Config section `storage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Never use the network: what is not on disk is an error.
    pub offline: bool,
    /// Tries again after a broken connection or a server's error.
    pub retries: usize,
    /// Seconds without any answer before a try counts as broken.
    pub timeout_seconds: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            offline: false,
            retries: 4,
            timeout_seconds: 60,
        }
    }
}
