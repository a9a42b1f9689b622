//! Files straight to S3, for servers without an artifact proxy.

use crate::{
    TrackError,
    storage::{S3Url, StorageConfig, StorageError, send_file},
};
use std::path::Path;

/// Sends a file with the keys in the environment, to the server that `MLFLOW_S3_ENDPOINT_URL` names,
/// or to the one that `storage` would take.
pub(super) fn upload(bucket: &str, key: &str, file: &Path) -> Result<(), TrackError> {
    let mut config = StorageConfig {
        // The delivery tries again by itself.
        retries: 1,
        ..StorageConfig::default()
    };
    config.s3.endpoint = std::env::var("MLFLOW_S3_ENDPOINT_URL")
        .ok()
        .filter(|url| !url.trim().is_empty());
    let url = S3Url {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    };
    send_file(file, &url, &config).map_err(|error| match error {
        StorageError::Disk { .. } => TrackError::Refused(error.to_string()),
        _ => TrackError::Away(error.to_string()),
    })
}
