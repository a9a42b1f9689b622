//! Against real servers: S3 and MLflow, which `tests/services/run.sh` starts.

mod proxy;
