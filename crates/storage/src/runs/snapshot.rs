//! A checkpoint as it was, under hard links, so that the next save can't change it under the sender.

use super::id_of;
use crate::run::{Manifest, file::MANIFEST};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Removed with its last user.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub id: String,
    pub manifest: Manifest,
    pub manifest_bytes: Vec<u8>,
    pub dir: PathBuf,
}

impl Snapshot {
    /// The ID of a checkpoint's directory, its manifest as it stands and as it reads.
    pub fn identify(checkpoint: &Path) -> io::Result<(String, Vec<u8>, Manifest)> {
        let bytes = fs::read(checkpoint.join(MANIFEST))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        Ok((id_of(manifest.step, &bytes), bytes, manifest))
    }

    /// Links a checkpoint's files into a directory under `parent`.
    pub fn take(checkpoint: &Path, parent: &Path) -> io::Result<Self> {
        let (id, manifest_bytes, manifest) = Self::identify(checkpoint)?;
        let dir = parent.join(&id);
        fs::create_dir_all(&dir)?;
        let snapshot = Self {
            id,
            manifest,
            manifest_bytes,
            dir,
        };
        for name in snapshot.manifest.files.keys() {
            let (from, to) = (checkpoint.join(name), snapshot.dir.join(name));
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                // File systems without hard links get a copy.
                Err(_) => fs::copy(&from, &to).map(|_| ())?,
            }
        }
        Ok(snapshot)
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.values().map(|file| file.bytes).sum()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
