//! `manifest.json`: the hash of every other file of a directory, written last.

use super::listing::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";

/// What a complete directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of this file.
    pub format: u32,
    /// Optimizer step of the checkpoint.
    pub step: usize,
    /// False: it holds less than a run needs to continue bit for bit (`train.checkpoint.only_model`,
    /// `train.checkpoint.dtype`). Only written where it is false.
    #[serde(default = "resumable", skip_serializing_if = "is_resumable")]
    pub resumable: bool,
    /// All files but the manifest itself.
    pub files: BTreeMap<String, FileHash>,
}

fn resumable() -> bool {
    true
}

/// serde wants a reference.
fn is_resumable(resumable: &bool) -> bool {
    *resumable
}

/// A file's size and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Size.
    pub bytes: u64,
    /// Of the content, in lower-case hexadecimal.
    pub sha256: String,
}

impl FileHash {
    /// Reads a file to its end.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::of_first(path, u64::MAX)
    }

    /// Reads the first bytes of a file, or all if it is shorter.
    pub fn of_first(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = File::open(path)?.take(bytes);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            bytes += n as u64;
        }
        Ok(Self {
            bytes,
            sha256: hex(&hasher.finalize()),
        })
    }
}
