use super::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Config section `storage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Never use the network: what is not on disk is an error.
    pub offline: bool,
    /// Tries again after a broken connection or a server's error.
    pub retries: usize,
    /// Milliseconds before the first of them; each wait is twice the one before, 10 seconds at most.
    pub retry_delay_ms: u64,
    /// Seconds without any answer before a try counts as broken.
    pub timeout_seconds: u64,
    /// Parts of files that are fetched or sent at the same time.
    pub parallel: usize,
    /// Where `s3://` leads.
    pub s3: S3Config,
    /// What was fetched and is kept.
    pub cache: CacheConfig,
    /// `s3://BUCKET/PREFIX`: every run is copied there while it trains, and `--resume` finds it there.
    pub runs: Option<String>,
    /// How runs are copied.
    pub upload: UploadConfig,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            offline: false,
            retries: 4,
            retry_delay_ms: 200,
            timeout_seconds: 60,
            parallel: 4,
            s3: S3Config::default(),
            cache: CacheConfig::default(),
            runs: None,
            upload: UploadConfig::default(),
        }
    }
}

/// Config section `storage.s3`. The keys are no settings: `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` are read from the environment and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The server, `https://HOST`; without it `AWS_ENDPOINT_URL`, else Amazon's.
    pub endpoint: Option<String>,
    /// Without it `AWS_REGION`, else us-east-1.
    pub region: Option<String>,
}

/// Config section `storage.cache`; `paths.cache` says where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// What was used least recently leaves beyond this size, unless a process uses it. Null: no bound.
    pub max_size: Option<ByteSize>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_size: Some(ByteSize(100_000_000_000)),
        }
    }
}

/// Config section `storage.upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UploadConfig {
    /// Seconds that the end of training waits for what is not uploaded yet.
    pub wait_seconds: u64,
    /// Seconds without success after which events.jsonl says so; training goes on in any case.
    pub report_after_seconds: u64,
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            wait_seconds: 600,
            report_after_seconds: 300,
        }
    }
}
