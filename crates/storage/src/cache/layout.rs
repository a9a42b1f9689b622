//! Where things lie in a cache.

use crate::{
    StorageError,
    listing::Object,
    remote::{Remote, sha256},
};
use crate::{fs::read_json, run::FileHash};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The directories of a cache.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub root: PathBuf,
}

/// What a URI was when it was last fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub uri: String,
    /// Of the listing.
    pub version: String,
    /// The tree that holds it, and the name in it.
    pub tree: String,
    pub name: String,
    pub files: usize,
    pub bytes: u64,
}

impl Layout {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the directories.
    pub fn prepare(&self) -> Result<(), StorageError> {
        for dir in [
            self.blobs(),
            self.trees(),
            self.references(),
            self.known(),
            self.partials(),
        ] {
            fs::create_dir_all(&dir).map_err(|e| cache_error(&dir, &e))?;
        }
        Ok(())
    }

    /// Held shared by who adds, exclusively by who removes.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Complete files, each under the SHA-256 of its bytes.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.blobs().join(sha256)
    }

    /// Directories made of links to blobs.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    pub fn tree(&self, tree: &str) -> PathBuf {
        self.trees().join(tree)
    }

    /// Held shared by every process that uses the tree; its time is that of the last use.
    pub fn tree_lock(&self, tree: &str) -> PathBuf {
        self.trees().join(format!("{tree}.lock"))
    }

    /// From URIs to trees.
    pub fn references(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub fn reference(&self, uri: &str) -> PathBuf {
        self.references().join(format!("{}.json", sha256(uri.as_bytes())))
    }

    /// From versions of objects to the hashes that they turned out to have.
    pub fn known(&self) -> PathBuf {
        self.root.join("known")
    }

    /// Downloads under way, or broken off.
    pub fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub fn partial(&self, key: &str) -> PathBuf {
        self.partials().join(key)
    }

    pub fn partial_lock(&self, key: &str) -> PathBuf {
        self.partials().join(format!("{key}.lock"))
    }

    /// What makes two downloads the same: the bytes' hash, or else server, path and version.
    pub fn key(remote: &Remote, object: &Object) -> String {
        object.sha256.clone().unwrap_or_else(|| {
            let Object { path, etag, size, .. } = object;
            sha256(format!("{}\n{path}\n{etag:?}\n{size:?}", remote.endpoint).as_bytes())
        })
    }

    /// The blob of an object, if it is here.
    pub fn have(&self, key: &str, object: &Object) -> Option<FileHash> {
        let hash = match &object.sha256 {
            Some(sha256) => FileHash {
                bytes: fs::metadata(self.blob(sha256)).ok()?.len(),
                sha256: sha256.clone(),
            },
            // A file that can't be read counts as absent: it is written anew.
            None => read_json(&self.known().join(key)).ok()?,
        };
        let there = fs::metadata(self.blob(&hash.sha256)).ok()?.len();
        let right = there == hash.bytes && object.size.is_none_or(|size| size == there);
        right.then_some(hash)
    }
}

/// A name of its own in the folder of `path`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{number}", std::process::id()))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StorageError> {
    serde_json::to_vec(value)
        .map_err(io::Error::other)
        .and_then(|json| crate::fs::write(path, &json))
        .map_err(|e| cache_error(path, &e))
}

pub(crate) fn cache_error(path: &Path, error: &io::Error) -> StorageError {
    StorageError::Cache {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}
