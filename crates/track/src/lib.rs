//! Delivery of what a run records to its trackers.
//!
//! `metrics.jsonl` and `events.jsonl` are written first, whatever else happens. A [`Tracking`] then
//! appends the same to a spool in the run's directory, and a thread for each [`Tracker`] delivers it:
//! to an MLflow server over HTTP ([`Mlflow`]), to one of your own, to several, or to none. The only
//! place that speaks MLflow; it does not know training.

mod config;
mod deliver;
mod describe;
mod figures;
#[cfg(feature = "mlflow")]
mod mlflow;
mod spool;
mod tracker;
mod tracking;

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wmtp_base::{fs, redact, validate};
use wmtp_run as run;
#[cfg(feature = "mlflow")]
use {wmtp_base::text, wmtp_storage as storage};

pub use config::{CheckpointTracking, MlflowConfig, TrackerKind, TrackingConfig};
pub use describe::{ask_mlflow, data_name, import, own_run, short_hash, trackers};
pub use figures::{flatten, metric_key, series, values};
#[cfg(feature = "mlflow")]
pub use mlflow::{Address, Mlflow, Registered, Registry, SourceRun, Stage};
pub use tracker::{
    Artifact, COMMIT_TAG, Input, Model, Point, RunEvent, RunInfo, SOURCE_TAG, SetupError, Status, TrackError, Tracker,
};
pub use tracking::{TrackerSummary, Tracking, TrackingSummary};

/// Milliseconds since 1970, as MLflow counts time. Any year will do: a clock that is wrong ends no run.
fn now_millis() -> i64 {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}
