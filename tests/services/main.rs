//! Against real servers: S3 and MLflow, which `tests/services/run.sh` starts.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

#[path = "../common/mod.rs"]
mod common;
mod promote;
mod proxy;
mod s3;
mod secrets;
mod storage;
mod sweep;
mod track;
mod track_faults;
mod world;

/// A variable that the script which starts the servers sets.
fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set: start the servers and the tests with `bash tests/services/run.sh`"),
    }
}

/// A name that no other test and no earlier run of this one has.
fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |d| d.as_nanos());
    format!("{name}-{}-{nanoseconds}", std::process::id())
}
