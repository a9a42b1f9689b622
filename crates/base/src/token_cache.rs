//! Where tokenised data are below `paths.cache`, for who writes them and for who lists and removes them.
//!
//! ```text
//! tokens/KEY/                complete; meta.json begins with what it was made from ([`Label`])
//! tokens/KEY.lock            held shared by who reads, exclusively by who writes or removes
//! tokens/.KEY/               being written, or left by a process that was killed
//! tokens/hashes/PATH.json    content hashes of large files
//! ```

use super::fs::{Lock, entries};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The file that says what a complete directory holds. Without it, a directory is not used.
pub const META: &str = "meta.json";

/// The beginning of [`META`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The data, as `data.source` names them.
    pub sources: Vec<String>,
}

/// The directory of all token caches.
#[derive(Clone, Debug)]
pub struct TokenDir(PathBuf);

impl TokenDir {
    /// Below `paths.cache`.
    pub fn below(cache: &Path) -> Self {
        Self(cache.join("tokens"))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete cache of a key.
    pub fn complete(&self, key: &str) -> PathBuf {
        self.0.join(key)
    }

    /// Where the cache of a key is written.
    pub fn partial(&self, key: &str) -> PathBuf {
        self.0.join(format!(".{key}"))
    }

    /// The lock of a key; its time is that of the last use.
    pub fn lock(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.lock"))
    }

    /// Hashes of files.
    pub fn hashes(&self) -> PathBuf {
        self.0.join("hashes")
    }

    /// The keys that have a directory, complete or not, in order.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keys(&self) -> io::Result<Vec<String>> {
        if !self.0.is_dir() {
            return Ok(Vec::new());
        }
        let names = entries(&self.0)?.into_iter().filter(|path| path.is_dir());
        let mut keys: Vec<String> = names
            .filter_map(|path| Some(path.file_name()?.to_str()?.trim_start_matches('.').to_owned()))
            .filter(|name| name != "hashes")
            .collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// Removes what a killed process left of a key. The lock must be held exclusively.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_partial(&self, key: &str, _alone: &Lock) -> io::Result<()> {
        removed(&self.partial(key))
    }

    /// Removes the cache of a key, complete or not. The lock must be held exclusively.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, key: &str, alone: &Lock) -> io::Result<()> {
        self.remove_partial(key, alone)?;
        removed(&self.complete(key))
    }
}

fn removed(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
