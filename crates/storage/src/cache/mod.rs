//! What was fetched, kept by content: complete or absent.
//!
//! ```text
//! store/blobs/SHA256        complete files under the hash of their bytes
//! store/trees/HASH/NAME     a file or directory as it was asked for, made of hard links to blobs
//! store/refs/…              from URIs to trees
//! store/known/…             from versions of objects to hashes, where the server does not tell them
//! store/partial/…           partial downloads: the next attempt resumes them
//! ```
//!
//! Several processes may use one cache: who fetches an object holds a lock on it, who uses a tree
//! holds one on the tree, and what is removed is removed under a lock that nobody who adds may hold.

mod clean;
mod download;
mod layout;
pub(super) mod tokens;

pub use clean::{CacheEntry, Cleaned};
pub(super) use clean::{Keep, clean, size_of};
pub(super) use download::blobs;
pub(super) use layout::Layout;

use super::{
    ByteSize, StorageError, Transfer,
    listing::Listing,
    remote::sha256,
    remote::{Broken, Remote},
};
use crate::{
    fs::{Lock, read_json},
    run::FileHash,
};
use layout::{Reference, cache_error, temporary, write_json};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

/// The trees that this process uses, until it ends.
static IN_USE: LazyLock<Mutex<HashMap<PathBuf, Lock>>> = LazyLock::new(Mutex::default);

/// The cache in a directory.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    layout: Layout,
    max_size: Option<ByteSize>,
}

impl Cache {
    pub fn new(root: PathBuf, max_size: Option<ByteSize>) -> Self {
        Self {
            layout: Layout::new(root),
            max_size,
        }
    }

    /// What the URI was when it was last fetched, if it is still here. It counts as used from now on.
    pub fn find(&self, uri: &str) -> Result<Option<PathBuf>, StorageError> {
        let Ok(reference) = read_json::<Reference>(&self.layout.reference(uri)) else {
            return Ok(None);
        };
        let _adding = self.adding()?;
        self.used(&reference)
    }

    /// The same for what `forever` names, which is found as `uri` from now on.
    pub fn know_as(&self, uri: &str, forever: &str) -> Result<Option<PathBuf>, StorageError> {
        let Ok(reference) = read_json::<Reference>(&self.layout.reference(forever)) else {
            return Ok(None);
        };
        let _adding = self.adding()?;
        let path = self.used(&reference)?;
        if path.is_some() {
            let reference = Reference {
                uri: uri.to_owned(),
                ..reference
            };
            write_json(&self.layout.reference(uri), &reference)?;
        }
        Ok(path)
    }

    /// The file or directory of a listing; what of it is not here is fetched. `uri` finds it again.
    pub fn get(
        &self,
        uri: &str,
        listing: &Listing,
        remote: &Remote,
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<PathBuf, Broken> {
        self.layout.prepare()?;
        let version = listing.version();
        let known = read_json::<Reference>(&self.layout.reference(uri)).ok();
        let known = known.filter(|r| r.version == version);
        if let Some(reference) = known {
            let _adding = self.adding()?;
            if let Some(path) = self.used(&reference)? {
                return Ok(path);
            }
        }
        let needed = listing.objects.iter().filter_map(|o| o.size).sum();
        self.bound(needed);
        let adding = self.adding()?;
        let blobs = blobs(&self.layout, remote, listing, progress)?;
        let reference = self.link(uri, listing, version, &blobs)?;
        let path = self.used(&reference)?.ok_or_else(|| {
            let trees = self.layout.trees();
            cache_error(&trees, &io::Error::other("a directory in it disappeared"))
        })?;
        write_json(&self.layout.reference(uri), &reference)?;
        if let Some(forever) = &listing.forever {
            let reference = Reference {
                uri: forever.clone(),
                ..reference
            };
            write_json(&self.layout.reference(forever), &reference)?;
        }
        drop(adding);
        self.bound(0);
        Ok(path)
    }

    /// While this is held nothing is removed.
    fn adding(&self) -> Result<Lock, StorageError> {
        let path = self.layout.lock();
        fs::create_dir_all(&self.layout.root).map_err(|e| cache_error(&self.layout.root, &e))?;
        Lock::shared(&path).map_err(|e| cache_error(&path, &e))
    }

    /// Marks a tree as used by this process; None if it is not here. Called while adding.
    fn used(&self, reference: &Reference) -> Result<Option<PathBuf>, StorageError> {
        let path = self.layout.tree(&reference.tree).join(&reference.name);
        if !path.exists() {
            return Ok(None);
        }
        let lock_path = self.layout.tree_lock(&reference.tree);
        let error = |e: io::Error| cache_error(&lock_path, &e);
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = in_use.get(&lock_path) {
            lock.touch().map_err(error)?;
        } else {
            let lock = Lock::shared(&lock_path).map_err(error)?;
            lock.touch().map_err(error)?;
            in_use.insert(lock_path.clone(), lock);
        }
        Ok(Some(path))
    }

    /// Makes the tree of these blobs, if it is not there.
    fn link(
        &self,
        uri: &str,
        listing: &Listing,
        version: String,
        blobs: &[FileHash],
    ) -> Result<Reference, StorageError> {
        let lines: String = listing
            .objects
            .iter()
            .zip(blobs)
            .map(|(object, blob)| format!("{} {}\n", blob.sha256, object.name))
            .collect();
        let tree = sha256(format!("{}\n{}\n{lines}", listing.name, listing.is_file).as_bytes());
        let reference = Reference {
            uri: uri.to_owned(),
            version,
            name: listing.name.clone(),
            files: blobs.len(),
            bytes: blobs.iter().map(|blob| blob.bytes).sum(),
            tree,
        };
        let target = self.layout.tree(&reference.tree);
        if target.is_dir() {
            return Ok(reference);
        }
        let partial = temporary(&target);
        let top = partial.join(&listing.name);
        let make = || -> io::Result<()> {
            fs::create_dir_all(if listing.is_file { &partial } else { &top })?;
            for (object, blob) in listing.objects.iter().zip(blobs) {
                let to = if listing.is_file {
                    top.clone()
                } else {
                    top.join(&object.name)
                };
                if let Some(parent) = to.parent() {
                    fs::create_dir_all(parent)?;
                }
                let from = self.layout.blob(&blob.sha256);
                // File systems without hard links get a copy.
                if fs::hard_link(&from, &to).is_err() {
                    fs::copy(&from, &to)?;
                }
            }
            match fs::rename(&partial, &target) {
                // Another process was faster; a tree that exists is whole.
                Err(_) if target.is_dir() => fs::remove_dir_all(&partial),
                done => done,
            }
        };
        make().map_err(|e| {
            let _ = fs::remove_dir_all(&partial);
            cache_error(&target, &e)
        })?;
        Ok(reference)
    }

    /// Evicts entries until `needed` more bytes fit, unless another process is adding: the last one to add
    /// evicts.
    fn bound(&self, needed: u64) {
        let Some(ByteSize(most)) = self.max_size else { return };
        match clean(&self.layout, Keep::Bytes(most.saturating_sub(needed)), false) {
            Ok(Some(cleaned)) if cleaned.kept_bytes + needed > most => {
                tracing::debug!("the cache holds {} bytes that are in use", cleaned.kept_bytes);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// What lies in a cache, the last used first.
pub(super) fn list(root: &Path) -> Result<Vec<CacheEntry>, StorageError> {
    clean::entries(&Layout::new(root.to_owned()))
}
