use super::{ByteSize, S3Url};
use crate::validate::{Check, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Config section `storage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Never use the network: what is not on disk is an error.
    pub offline: bool,
    /// Retries after a broken connection or a server error.
    pub retries: usize,
    /// Milliseconds before the first retry; each wait is twice the one before, 10 seconds at most.
    pub retry_delay_ms: u64,
    /// Seconds without any answer before a try counts as broken.
    pub timeout_seconds: u64,
    /// Parts of files transferred in parallel.
    pub parallel: usize,
    /// Where `s3://` leads.
    pub s3: S3Config,
    /// The cache of downloads.
    pub cache: CacheConfig,
    /// `s3://BUCKET/PREFIX`: every run is uploaded there while it trains, and `--resume` finds it there.
    pub runs: Option<String>,
    /// How runs are uploaded.
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
    /// Maximum size; the least recently used entries are evicted, unless a process uses them. Null: no limit.
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
    /// Seconds to wait at the end of training for unfinished uploads.
    pub wait_seconds: u64,
    /// Seconds without success after which events.jsonl says so; training continues in any case.
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

/// Seconds.
const DAY: u64 = 86_400;

impl Validate for StorageConfig {
    fn check(&self, check: &mut Check) {
        check.when(self.timeout_seconds == 0, "timeout_seconds", "must be 1 or more");
        check.when(self.retries > 20, "retries", "must be 20 or less");
        check.when(!(1..=64).contains(&self.parallel), "parallel", "must be 1 to 64");
        for (key, seconds) in [
            ("timeout_seconds", self.timeout_seconds),
            ("upload.wait_seconds", self.upload.wait_seconds),
            ("upload.report_after_seconds", self.upload.report_after_seconds),
        ] {
            check.when(seconds > DAY, key, "must be 86400 or less");
        }
        check.when(
            self.retry_delay_ms > 1000 * DAY,
            "retry_delay_ms",
            "must be 86400000 or less",
        );
        check.section("s3", &self.s3);
        if let Some(Err(e)) = self.runs.as_deref().map(S3Url::parse) {
            check.say("runs", format!(": {e}"));
        }
    }
}

impl Validate for S3Config {
    fn check(&self, check: &mut Check) {
        let Some(url) = &self.endpoint else {
            return;
        };
        let is_url = url.starts_with("http://") || url.starts_with("https://");
        check.when(!is_url, "endpoint", "must start with http:// or https://");
        check.when(
            url.contains('@'),
            "endpoint",
            "must hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
        );
    }
}
