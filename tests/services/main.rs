//! Against real servers: S3 and MLflow, which `tests/services/run.sh` starts.

#[path = "../common/mod.rs"]
mod common;
mod promote;
mod proxy;
mod secrets;
mod sweep;
mod track;
mod track_faults;
mod world;
