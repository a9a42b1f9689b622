//! What a run leaves behind: its directory, and what its trackers are told.
//!
//! `metrics.jsonl` and `events.jsonl` are written first, whatever else happens. A [`Tracking`] then
//! appends the same to a spool in the run's directory, and a thread for each [`Tracker`] delivers it:
//! to an MLflow server over HTTP ([`Mlflow`]), into MLflow's file layout ([`MlflowFiles`]), to one of
//! your own, to several, or to none. The only place that speaks MLflow; it does not know training.

mod card;
mod config;
mod deliver;
mod describe;
mod figures;
mod files;
mod memory;
mod mlflow;
mod redact;
mod run_dir;
mod spool;
mod tracker;
mod tracking;

pub(crate) use card::is_of_model;
pub use card::{CardError, CardFields, Evaluation, ModelCard};
pub use config::{CheckpointTracking, FilesConfig, MlflowConfig, TrackerKind, TrackingConfig};
pub use describe::{SetupError, ask_mlflow, import, own_run, trackers};
pub(crate) use describe::{data_name, short_hash};
pub use figures::{flatten, metric_key, series, values};
pub use files::MlflowFiles;
pub use memory::peak_memory;
pub use mlflow::{Address, Mlflow, Registered, Registry, SourceRun, Stage};
pub use redact::{has_credentials, redact};
pub use run_dir::{Event, RunDir, RunError, RunTiming, newest, write_atomically};
pub use tracker::{Artifact, Happening, Input, Model, Point, RunInfo, Status, TrackError, Tracker};
pub use tracking::{TrackerSummary, Tracking, TrackingSummary};

/// Milliseconds since 1970, as MLflow counts time.
fn now_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
