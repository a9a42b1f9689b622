//! A run of S3 becomes a run directory again.

use super::{
    super::{
        Transfer,
        cache::{Layout, blobs},
        listing::{Listing, Object},
    },
    CHECKPOINTS, INDEX, RemoteRun,
};
use crate::{
    StorageError,
    fs::{Lock, sync_dir},
    listing::is_data_file,
    remote::Found,
    run::{
        FileHash, Manifest,
        file::{BEST, LAST, MANIFEST, RECORD},
    },
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// A run that is on this machine now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its directory.
    pub dir: PathBuf,
    /// Step of its checkpoint.
    pub step: usize,
    /// Checkpoints that were not whole and have been passed over, a sentence each.
    pub passed_over: Vec<String>,
}

impl RemoteRun {
    /// Makes the directory `runs/NAME` with the newest complete checkpoint as `last`, the best one, and
    /// the run's files. Every byte is checked; what a kill interrupts is gone on with the next time.
    ///
    /// # Errors
    /// [`StorageError::NoRun`] if there is no run or no complete checkpoint; others as they come. The
    /// directory is complete or absent.
    pub fn fetch(&self, runs: &Path, progress: &mut dyn FnMut(&Transfer)) -> Result<Fetched, StorageError> {
        let (name, _) = self.name();
        let disk = |what: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| StorageError::Disk {
                what,
                path,
                reason: e.to_string(),
            }
        };
        fs::create_dir_all(runs).map_err(disk("making", runs))?;
        let lock_path = runs.join(format!(".fetching-{name}.lock"));
        let lock = Lock::exclusive(&lock_path).map_err(disk("locking", &lock_path))?;
        let target = runs.join(&name);
        let workshop = runs.join(format!(".fetching-{name}"));
        let layout = Layout::new(workshop.join("store"));
        let whole = workshop.join("run");
        let clear = |path: &Path| match fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(disk("removing", path)(e)),
            _ => Ok(()),
        };
        clear(&whole)?;

        let mut passed_over = Vec::new();
        let Some((id, manifest)) = self.newest(&layout, &mut passed_over, progress)? else {
            let there = self.read(RECORD)?.is_some();
            return Err(StorageError::NoRun {
                uri: self.url(),
                what: if there { "complete checkpoint" } else { "run" },
                problem: if passed_over.is_empty() {
                    "check the name and storage.runs, or start anew".into()
                } else {
                    passed_over.join("; ")
                },
            });
        };
        let checkpoints = whole.join(CHECKPOINTS);
        link(&layout, &manifest, &checkpoints.join(LAST)).map_err(disk("making", &whole))?;
        let index = self.index()?.unwrap_or_default();
        if let Some(best) = index.checkpoints.get(BEST) {
            let found = if *best == id {
                Ok(Some(manifest.clone()))
            } else {
                self.checkpoint(&layout, best, progress)
            };
            match found {
                Ok(Some(manifest)) => {
                    link(&layout, &manifest, &checkpoints.join(BEST)).map_err(disk("making", &whole))?
                }
                Ok(None) => passed_over.push(format!("the best checkpoint, {best}, is not complete")),
                Err(error) if is_damage(&error) => passed_over.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        self.run_files(&layout, &whole, progress)?;
        sync_dir(&whole).map_err(disk("flushing", &whole))?;
        fs::rename(&whole, &target).map_err(disk("making", &target))?;
        clear(&workshop)?;
        // Best effort: an empty file is all that would stay.
        let _ = lock.remove();
        Ok(Fetched {
            dir: target,
            step: manifest.step,
            passed_over,
        })
    }

    /// The newest checkpoint that is whole, fetched.
    fn newest(
        &self,
        layout: &Layout,
        passed_over: &mut Vec<String>,
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<Option<(String, Manifest)>, StorageError> {
        for id in self.candidates()? {
            if let Some((_, manifest)) = self.manifest(&id)?
                && !manifest.resumable
            {
                passed_over.push(format!(
                    "checkpoint {id} of {} holds the model without all of its training state",
                    self.url()
                ));
                continue;
            }
            match self.checkpoint(layout, &id, progress) {
                Ok(Some(manifest)) => return Ok(Some((id, manifest))),
                Ok(None) => passed_over.push(format!("checkpoint {id} of {} is not complete", self.url())),
                Err(error) if is_damage(&error) => passed_over.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Fetches a checkpoint's files; None if some are not there as its manifest says.
    fn checkpoint(
        &self,
        layout: &Layout,
        id: &str,
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<Option<Manifest>, StorageError> {
        let Some((bytes, manifest)) = self.manifest(id)? else {
            return Ok(None);
        };
        let dir = self.key(&format!("{CHECKPOINTS}/{id}"));
        let there = self.s3.list(&dir)?;
        let mut objects = Vec::new();
        for (name, hash) in &manifest.files {
            let path = format!("{dir}/{name}");
            let Some(found) = there.iter().find(|found| found.key == path) else {
                return Ok(None);
            };
            if found.size != hash.bytes || name.contains(['/', '\\']) || name.starts_with('.') {
                return Ok(None);
            }
            objects.push(object(name, found, Some(hash.sha256.clone())));
        }
        let manifest_path = format!("{dir}/{MANIFEST}");
        let Some(found) = there.iter().find(|found| found.key == manifest_path) else {
            return Ok(None);
        };
        objects.push(object(MANIFEST, found, Some(super::sha256(&bytes))));
        let listing = self.listing(&format!("{}/{CHECKPOINTS}/{id}", self.url()), objects);
        let mut whole = manifest;
        if let Some(own) = self.blobs(layout, &listing, progress)?.pop() {
            // Its own file belongs to the directory, too.
            whole.files.insert(MANIFEST.to_owned(), own);
        }
        Ok(Some(whole))
    }

    /// Fetches the files that belong to no checkpoint. Copies: some of them grow, and two may share a blob.
    fn run_files(&self, layout: &Layout, to: &Path, progress: &mut dyn FnMut(&Transfer)) -> Result<(), StorageError> {
        let root = format!("{}/", self.url.key);
        let mut objects = Vec::new();
        for found in self.s3.list(self.url.key.as_str())? {
            let Some(name) = found.key.strip_prefix(&root).map(str::to_owned) else {
                continue;
            };
            let usable = is_data_file(&name);
            if !usable || name == INDEX || name.starts_with(&format!("{CHECKPOINTS}/")) {
                continue;
            }
            // Only asked about one by one do objects tell their hash.
            let Some(known) = self.s3.stat(&found.key)? else {
                continue;
            };
            objects.push(object(&name, &known, known.sha256.clone()));
        }
        let listing = self.listing(&self.url(), objects);
        let blobs = self.blobs(layout, &listing, progress)?;
        for (object, blob) in listing.objects.iter().zip(blobs) {
            let path = to.join(&object.name);
            let copy = || -> io::Result<()> {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::copy(layout.blob(&blob.sha256), &path).map(|_| ())
            };
            copy().map_err(|e| StorageError::Disk {
                what: "writing",
                path: path.display().to_string(),
                reason: e.to_string(),
            })?;
        }
        Ok(())
    }

    fn listing(&self, uri: &str, objects: Vec<Object>) -> Listing {
        Listing {
            uri: uri.to_owned(),
            forever: None,
            name: self.name().0,
            is_file: false,
            objects,
        }
    }

    fn blobs(
        &self,
        layout: &Layout,
        listing: &Listing,
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<Vec<FileHash>, StorageError> {
        let remote = self.s3.remote();
        blobs(layout, remote, listing, progress).map_err(|broken| remote.give_up(broken, &listing.uri))
    }
}

fn object(name: &str, found: &Found, sha256: Option<String>) -> Object {
    Object {
        name: name.to_owned(),
        path: found.key.clone(),
        size: Some(found.size),
        sha256,
        etag: found.etag.clone(),
    }
}

/// Whether another checkpoint should be tried: the bucket holds other bytes than were sent.
fn is_damage(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Damaged { .. } | StorageError::NotFound { .. } | StorageError::Changed { .. }
    )
}

/// A checkpoint's directory, of links to its blobs.
fn link(layout: &Layout, manifest: &Manifest, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let files: &BTreeMap<_, _> = &manifest.files;
    for (name, hash) in files {
        let (from, to) = (layout.blob(&hash.sha256), dir.join(name));
        // File systems without hard links get a copy.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
