//! `manifest.json`: the hash of every other file of a directory, written last.

use super::{CheckpointError, RunError, file::MANIFEST, write_atomically};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

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
            sha256: hex::encode(hasher.finalize()),
        })
    }
}

impl Manifest {
    /// Reads the manifest of a checkpoint's directory.
    ///
    /// # Errors
    /// It is absent or can't be read.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |problem: String| CheckpointError::Damaged {
            path: path.into(),
            problem,
        };
        let text =
            fs::read_to_string(path.join(MANIFEST)).map_err(|_| damaged(format!("it has no readable `{MANIFEST}`")))?;
        serde_json::from_str(&text).map_err(|e| damaged(format!("`{MANIFEST}`: {e}")))
    }
}

pub(super) fn write_manifest(dir: &Path, step: usize, resumable: bool) -> Result<(), CheckpointError> {
    let mut files = BTreeMap::new();
    for path in entries(dir)? {
        File::open(&path)
            .and_then(|f| f.sync_all())
            .map_err(RunError::io("flushing", &path))?;
        files.insert(file_name(&path), hash(&path)?);
    }
    let manifest = Manifest {
        format: 1,
        step,
        resumable,
        files,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| CheckpointError::Content {
        path: dir.into(),
        problem: e.to_string(),
    })?;
    write_atomically(&dir.join(MANIFEST), &json)?;
    sync_dir(dir)
}

pub(super) fn hash(path: &Path) -> Result<FileHash, CheckpointError> {
    Ok(FileHash::of(path).map_err(RunError::io("reading", path))?)
}

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    Ok(crate::fs::entries(dir).map_err(RunError::io("reading", dir))?)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn sync_dir(path: &Path) -> Result<(), CheckpointError> {
    Ok(crate::fs::sync_dir(path).map_err(RunError::io("flushing", path))?)
}
