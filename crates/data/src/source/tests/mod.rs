//! Sources as a whole: the files of `tests/data` at the repository's root.

mod files;
mod fixtures;
mod malformed;
#[cfg(target_os = "linux")]
mod memory;
mod property;
mod whole;

use super::{Source, SourceOptions};
use crate::{DataError, Record};
use std::path::{Path, PathBuf};

/// A file of `tests/data`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name)
}

fn read(path: &Path, options: &SourceOptions) -> Result<Vec<Record>, DataError> {
    Source::open(path, options)?.records().collect()
}

/// The records of a file or folder.
fn records(path: &Path) -> Vec<Record> {
    read(path, &SourceOptions::default()).unwrap()
}

/// The error of a file or folder, with its path as `FILE`.
fn error(path: &Path, options: &SourceOptions) -> String {
    let error = read(path, options).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "FILE")
}
