//! Makes a run on S3 what its directory is: files, checkpoints, the index.

use super::{INDEX, Index, RemoteRun, snapshot::Snapshot, step_of};
use crate::{
    StorageError,
    run::{
        FileHash, Manifest,
        file::{CHECKPOINTS, LAST, MANIFEST, PREVIOUS, STEP_PREFIX},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

/// Extension of the files of a run directory that grow line by line: of them, what was there at the
/// checkpoint is sent.
const GROWS: &str = "jsonl";

pub(super) fn grows(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension == GROWS)
}

/// The files of a run directory other than its checkpoints, by their names in it.
pub(super) fn run_files(run: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(String::new(), run.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let temporary = name.contains(".tmp-");
            if name.starts_with('.') || temporary || (prefix.is_empty() && name == CHECKPOINTS) {
                continue;
            }
            let full = format!("{prefix}{name}");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push((format!("{full}/"), entry.path())),
                Ok(kind) if kind.is_file() => {
                    found.insert(full, entry.path());
                }
                _ => {}
            }
        }
    }
    found
}

/// What a run's directory should be on S3, and what is known of it there.
pub(super) struct Sender<'a> {
    remote: &'a RemoteRun,
    run: &'a Path,
    /// `step-…` checkpoints to keep; 0 keeps all.
    keep: usize,
    /// None until it was read.
    index: Option<Index>,
    /// Checkpoints that are complete there.
    complete: BTreeMap<String, Manifest>,
    /// Directories that are there, complete or not.
    there: BTreeSet<String>,
    /// The run's files as they were sent.
    files: BTreeMap<String, Sent>,
}

#[derive(PartialEq)]
struct Sent {
    bytes: u64,
    modified: Option<SystemTime>,
}

/// Receives how far checkpoints are.
pub(super) struct Progress<'a> {
    /// So many bytes are to be sent.
    pub begin: &'a dyn Fn(u64),
    /// So many more bytes were sent.
    pub sent: &'a dyn Fn(u64),
}

impl<'a> Sender<'a> {
    pub fn new(remote: &'a RemoteRun, run: &'a Path, keep: usize) -> Self {
        Self {
            remote,
            run,
            keep,
            index: None,
            complete: BTreeMap::new(),
            there: BTreeSet::new(),
            files: BTreeMap::new(),
        }
    }

    /// Sends the run's files and the checkpoints in `wanted` by name, and removes those that no name stands
    /// for. `lengths` are the sizes up to which growing files are sent.
    pub fn send_all(
        &mut self,
        wanted: &BTreeMap<String, Arc<Snapshot>>,
        lengths: &BTreeMap<String, u64>,
        progress: &Progress<'_>,
    ) -> Result<(), StorageError> {
        self.look()?;
        self.send_files(lengths)?;
        let mut missing: BTreeMap<&str, &Arc<Snapshot>> = BTreeMap::new();
        for snapshot in wanted.values() {
            if !self.complete.contains_key(&snapshot.id) {
                missing.insert(&snapshot.id, snapshot);
            }
        }
        (progress.begin)(missing.values().map(|s| s.bytes()).sum());
        // The newest first: it is the one that a lost machine would need.
        for snapshot in missing.into_values().rev() {
            self.send_checkpoint(snapshot, progress)?;
            self.publish(wanted)?;
        }
        self.publish(wanted)?;
        self.remove_unnamed()
    }

    /// Lists what the bucket holds, once.
    fn look(&mut self) -> Result<(), StorageError> {
        if self.index.is_some() {
            return Ok(());
        }
        let remote = self.remote;
        let root = remote.key(CHECKPOINTS);
        self.there = remote
            .s3
            .directories(&root)?
            .into_iter()
            .filter(|id| step_of(id).is_some())
            .collect();
        for id in &self.there {
            if let Some((_, manifest)) = remote.manifest(id)? {
                self.complete.insert(id.clone(), manifest);
            }
        }
        let mut index = remote.index()?.unwrap_or_default();
        index.checkpoints.retain(|_, id| self.complete.contains_key(id));
        self.index = Some(index);
        Ok(())
    }

    /// Sends what of the run's files is not there as it is here.
    fn send_files(&mut self, lengths: &BTreeMap<String, u64>) -> Result<(), StorageError> {
        let remote = self.remote;
        for (name, path) in run_files(self.run) {
            // Something that is replaced just now comes the next time.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let bytes = match lengths.get(&name) {
                Some(length) => *length,
                // It began after the newest checkpoint.
                None if grows(&name) => continue,
                None => metadata.len(),
            };
            let sent = Sent {
                bytes,
                modified: metadata.modified().ok().filter(|_| !grows(&name)),
            };
            if self.files.get(&name) == Some(&sent) {
                continue;
            }
            let Ok(hash) = FileHash::of_first(&path, bytes) else {
                continue;
            };
            let key = remote.key(&name);
            let there = remote.s3.stat(&key)?;
            let same = there.is_some_and(|there| there.sha256.as_deref() == Some(&hash.sha256));
            if !same {
                remote.s3.send(
                    &key,
                    hash.bytes,
                    &hash.sha256,
                    &mut || open(&path, hash.bytes),
                    &mut |_| (),
                )?;
            }
            self.files.insert(name, sent);
        }
        Ok(())
    }

    /// Sends a checkpoint: its files, then its manifest. Files that another checkpoint has, too, are copied
    /// on S3.
    fn send_checkpoint(&mut self, snapshot: &Snapshot, progress: &Progress<'_>) -> Result<(), StorageError> {
        let remote = self.remote;
        let key = |id: &str, name: &str| remote.key(&format!("{CHECKPOINTS}/{id}/{name}"));
        let started = Instant::now();
        // What a try that broke off has sent stays sent.
        let begun = !self.there.insert(snapshot.id.clone());
        for (name, hash) in &snapshot.manifest.files {
            let to = key(&snapshot.id, name);
            let there = if begun { remote.s3.stat(&to)? } else { None };
            let same = |sha256: Option<&str>| sha256 == Some(hash.sha256.as_str());
            let mut done = there.is_some_and(|there| there.size == hash.bytes && same(there.sha256.as_deref()));
            if !done {
                let elsewhere = self
                    .complete
                    .iter()
                    .find_map(|(id, manifest)| Some((id, manifest.files.iter().find(|(_, other)| *other == hash)?.0)));
                if let Some((id, other)) = elsewhere {
                    done = remote.s3.copy(&key(id, other), &to, hash.bytes)?
                        && remote.s3.stat(&to)?.is_some_and(|there| same(there.sha256.as_deref()));
                }
            }
            let mut passed = 0;
            if !done {
                let path = snapshot.dir.join(name);
                remote.s3.send(
                    &to,
                    hash.bytes,
                    &hash.sha256,
                    &mut || open(&path, hash.bytes),
                    &mut |bytes| {
                        passed += bytes;
                        (progress.sent)(bytes);
                    },
                )?;
            }
            (progress.sent)(hash.bytes.saturating_sub(passed));
        }
        remote.s3.put(&key(&snapshot.id, MANIFEST), &snapshot.manifest_bytes)?;
        self.complete.insert(snapshot.id.clone(), snapshot.manifest.clone());
        tracing::debug!(
            "checkpoint {} is at {} after {:.1} s",
            snapshot.id,
            remote.url(),
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Names what is complete, by the retention rule.
    fn publish(&mut self, wanted: &BTreeMap<String, Arc<Snapshot>>) -> Result<(), StorageError> {
        let old = self.index.clone().unwrap_or_default();
        let mut new = Index {
            format: 1,
            ..old.clone()
        };
        for (name, snapshot) in wanted {
            if self.complete.contains_key(&snapshot.id) {
                new.checkpoints.insert(name.clone(), snapshot.id.clone());
            }
        }
        let last = |index: &Index| index.checkpoints.get(LAST).cloned();
        if let Some(before) = last(&old).filter(|before| Some(before) != last(&new).as_ref()) {
            new.checkpoints.insert(PREVIOUS.into(), before);
        }
        let steps: Vec<String> = new
            .checkpoints
            .keys()
            .filter(|name| name.starts_with(STEP_PREFIX))
            .cloned()
            .collect();
        if self.keep > 0 {
            for name in steps.iter().take(steps.len().saturating_sub(self.keep)) {
                new.checkpoints.remove(name);
            }
        }
        if new != old {
            let json = serde_json::to_vec_pretty(&new).unwrap_or_default();
            self.remote.s3.put(&self.remote.key(INDEX), &json)?;
        }
        self.index = Some(new);
        Ok(())
    }

    /// Removes the checkpoints that no name stands for, the manifest first, so that what is half
    /// removed is not complete.
    fn remove_unnamed(&mut self) -> Result<(), StorageError> {
        let index = self.index.clone().unwrap_or_default();
        let named: BTreeSet<&String> = index.checkpoints.values().collect();
        let unnamed: Vec<String> = self.there.iter().filter(|id| !named.contains(id)).cloned().collect();
        let remote = self.remote;
        for id in unnamed {
            self.complete.remove(&id);
            let dir = remote.key(&format!("{CHECKPOINTS}/{id}"));
            remote.s3.delete(&format!("{dir}/{MANIFEST}"))?;
            for found in remote.s3.list(&dir)? {
                remote.s3.delete(&found.key)?;
            }
            self.there.remove(&id);
        }
        Ok(())
    }
}

/// The first bytes of a file.
fn open(path: &Path, bytes: u64) -> Result<impl Read + use<>, StorageError> {
    let file = File::open(path).map_err(|e| StorageError::Disk {
        what: "reading",
        path: path.display().to_string(),
        reason: e.to_string(),
    })?;
    Ok(file.take(bytes))
}
