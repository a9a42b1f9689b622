//! Sources, cache and runs on S3, with and without faults on the way.

mod cache;
mod faults;
mod runs;
mod sources;

use crate::{common, s3::endpoint};
use std::{path::Path, process::Command};
use wmtp::{
    paths::PathsConfig,
    storage::{S3Config, Storage, StorageConfig},
};

/// Settings with this server and short waits.
fn config(endpoint: &str) -> StorageConfig {
    StorageConfig {
        retries: 8,
        retry_delay_ms: 2,
        timeout_seconds: 5,
        s3: S3Config {
            endpoint: Some(endpoint.to_owned()),
            region: None,
        },
        ..StorageConfig::default()
    }
}

/// A machine of its own: cache, models and runs under `home`.
fn storage(home: &Path, config: &StorageConfig) -> Storage {
    let paths = PathsConfig {
        models: home.join("models"),
        datasets: home.join("datasets"),
        cache: home.join("cache"),
        runs: home.join("runs"),
        ..PathsConfig::default()
    };
    Storage::new(config, &paths)
}

/// The built program on a machine of its own, with S3 at `endpoint`.
fn wmtp_at(home: &Path, endpoint: &str) -> Command {
    let mut command = common::wmtp(home);
    command.env("WMTP_STORAGE__S3__ENDPOINT", endpoint);
    command
}

/// The same with the tests' server.
fn wmtp(home: &Path) -> Command {
    wmtp_at(home, &endpoint())
}

/// Bytes that no compression or luck makes alike.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut noise = vec![0; bytes];
    StdRng::seed_from_u64(seed).fill_bytes(&mut noise);
    noise
}
