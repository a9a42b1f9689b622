//! One file to S3, for those who were told where to put it.

use super::{S3Url, StorageConfig, StorageError, remote::S3};
use crate::run::FileHash;
use std::{fs::File, io, path::Path};

/// Sends a file to `url` and returns when it is there whole; large ones go in parts.
///
/// # Errors
/// The file can't be read; the bucket can't be reached or refuses it, after all tries.
pub fn send_file(file: &Path, url: &S3Url, config: &StorageConfig) -> Result<(), StorageError> {
    let unreadable = |e: io::Error| StorageError::Disk {
        what: "reading",
        path: file.display().to_string(),
        reason: e.to_string(),
    };
    // A log may grow meanwhile: what is sent is what was hashed.
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    let hash = FileHash::of_first(file, size).map_err(unreadable)?;
    let mut open = || File::open(file).map_err(unreadable);
    S3::connect(&url.bucket, config)?.send(&url.key, hash.bytes, &hash.sha256, &mut open, &mut |_| ())
}
