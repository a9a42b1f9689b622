//! A run copied to S3 while it trains.
//!
//! One thread sends; training only makes hard links and leaves a note of what is wanted. A newer
//! `last` takes the place of one that is not under way yet, so a slow line sends fewer checkpoints
//! instead of falling behind. What fails is tried again, for as long as the run lasts.

use super::{CHECKPOINTS, INDEX, Index, RemoteRun, snapshot::Snapshot, step_of};
use crate::storage::{
    StorageError, Transfer,
    manifest::{FileHash, MANIFEST, Manifest},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// The longest wait after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest one once training is over.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// Files of a run directory that grow line by line: of them, what was there at the checkpoint is sent.
const GROWS: &str = "jsonl";

/// Hears of what a run directory's `events.jsonl` should say: the step, the event, the reason.
pub type Report = Box<dyn Fn(usize, &'static str, String) + Send + Sync>;

/// How copying ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is on S3.
    Complete,
    /// Time ran out, and why it was not enough.
    Incomplete {
        /// Bytes of the checkpoints that are not there.
        missing_bytes: u64,
        /// The last failure, if there was one.
        problem: Option<String>,
    },
}

/// Copies one run.
pub struct RunMirror {
    shared: Arc<Shared>,
}

/// Where it copies to.
impl fmt::Debug for RunMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copies to {}", self.shared.remote.url())
    }
}

struct Shared {
    remote: RemoteRun,
    run: PathBuf,
    /// `step-…` checkpoints to keep; 0 keeps all.
    keep: usize,
    report_after: Duration,
    report: Report,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What each name should be.
    wanted: BTreeMap<String, Arc<Snapshot>>,
    /// Sizes of the files that grow, at the newest checkpoint.
    lengths: BTreeMap<String, u64>,
    /// Counts what was asked for, and how far the sender is.
    asked: u64,
    done: u64,
    stop: bool,
    /// Somebody waits for the end: no long pauses.
    hurry: bool,
    /// Bytes of the checkpoint under way.
    sent: u64,
    sending: u64,
    problem: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunMirror {
    /// Starts the thread. `run` is the run's directory; the checkpoints that it holds already are sent
    /// if they are not there. `keep` is how many `step-…` checkpoints stay (0: all).
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(remote: RemoteRun, run: &Path, keep: usize, report: Report) -> Result<Self, StorageError> {
        let upload = &remote.s3.remote().config.upload;
        let shared = Arc::new(Shared {
            report_after: Duration::from_secs(upload.report_after_seconds),
            run: run.to_owned(),
            remote,
            keep,
            report,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        // What a killed process left there is sent from the checkpoints themselves.
        let _ = fs::remove_dir_all(shared.snapshots());
        let mirror = Self {
            shared: Arc::clone(&shared),
        };
        mirror.send_what_is_here();
        thread::Builder::new()
            .name("upload".into())
            .spawn(move || Sender::new(&shared).work())
            .map_err(|e| StorageError::Disk {
                what: "starting a thread for",
                path: run.display().to_string(),
                reason: e.to_string(),
            })?;
        Ok(mirror)
    }

    fn send_what_is_here(&self) {
        for entry in fs::read_dir(self.shared.run.join(CHECKPOINTS))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            // `previous` is what was `last` on S3 before.
            if !name.starts_with('.') && name != "previous" && entry.path().join(MANIFEST).is_file() {
                self.saved(&name, &entry.path());
            }
        }
    }

    /// A checkpoint is complete under this name: it will be sent. Takes no longer than a few links.
    pub fn saved(&self, name: &str, dir: &Path) {
        let known = Snapshot::identify(dir).ok().and_then(|(id, ..)| {
            let state = self.shared.state();
            state.wanted.values().find(|snapshot| snapshot.id == id).cloned()
        });
        let snapshot = match known {
            Some(snapshot) => Ok(snapshot),
            None => Snapshot::take(dir, &self.shared.snapshots()).map(Arc::new),
        };
        match snapshot {
            Ok(snapshot) => {
                let lengths = self.shared.lengths();
                let mut state = self.shared.state();
                state.wanted.insert(name.to_owned(), snapshot);
                state.lengths = lengths;
                state.asked += 1;
                drop(state);
                self.shared.changed.notify_all();
            }
            Err(error) => {
                let reason = format!("{} is not copied to S3: {error}", dir.display());
                (self.shared.report)(0, "upload-failed", reason);
            }
        }
    }

    /// Sends the run's files as they are at the end, waits until everything is there, at most `wait`,
    /// and ends the thread. `progress` hears of it from time to time.
    pub fn finish(&self, wait: Duration, progress: &mut dyn FnMut(&Transfer)) -> Ended {
        let until = Instant::now() + wait;
        let lengths = self.shared.lengths();
        let mut state = self.shared.state();
        state.lengths = lengths;
        state.asked += 1;
        state.hurry = true;
        self.shared.changed.notify_all();
        while state.done < state.asked {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let step = left.min(Duration::from_millis(500));
            state = self
                .shared
                .changed
                .wait_timeout(state, step)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            let transfer = Transfer {
                file: "checkpoints".into(),
                done: state.sent,
                total: (state.sending > 0).then_some(state.sending),
            };
            drop(state);
            progress(&transfer);
            state = self.shared.state();
        }
        let ended = if state.done >= state.asked {
            Ended::Complete
        } else {
            let missing: u64 = state
                .wanted
                .values()
                .map(|s| (s.id.clone(), s.bytes()))
                .collect::<BTreeMap<_, _>>()
                .into_values()
                .sum();
            Ended::Incomplete {
                missing_bytes: missing.saturating_sub(state.sent),
                problem: state.problem.clone(),
            }
        };
        state.stop = true;
        drop(state);
        self.shared.changed.notify_all();
        ended
    }
}

impl Drop for RunMirror {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn snapshots(&self) -> PathBuf {
        self.run.join(".upload")
    }

    /// Sizes of the files that grow.
    fn lengths(&self) -> BTreeMap<String, u64> {
        run_files(&self.run)
            .into_iter()
            .filter(|(name, _)| grows(name))
            .filter_map(|(name, path)| Some((name, fs::metadata(path).ok()?.len())))
            .collect()
    }
}

fn grows(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension == GROWS)
}

/// The files of a run directory beside its checkpoints, by their names in it.
fn run_files(run: &Path) -> BTreeMap<String, PathBuf> {
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

/// The thread's own memory.
struct Sender<'a> {
    shared: &'a Shared,
    /// None until it was asked for.
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

impl<'a> Sender<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            index: None,
            complete: BTreeMap::new(),
            there: BTreeSet::new(),
            files: BTreeMap::new(),
        }
    }

    fn work(mut self) {
        let first_pause = Duration::from_millis(self.shared.remote.s3.remote().config.retry_delay_ms.max(1));
        let mut pause = first_pause;
        let mut failing: Option<Instant> = None;
        let mut reported = false;
        loop {
            let mut state = self.shared.state();
            while state.done >= state.asked && !state.stop {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            let (asked, wanted, lengths) = (state.asked, state.wanted.clone(), state.lengths.clone());
            drop(state);
            let step = wanted.values().map(|s| s.manifest.step).max().unwrap_or(0);
            let result = self.send_all(&wanted, &lengths);
            let mut state = self.shared.state();
            match result {
                Ok(()) => {
                    state.done = asked;
                    state.problem = None;
                    // What is there needs no links here any more.
                    let there = |name: &String, now: &Arc<Snapshot>| {
                        wanted.get(name).is_some_and(|then| Arc::ptr_eq(then, now))
                    };
                    state.wanted.retain(|name, now| !there(name, now));
                    drop(state);
                    self.shared.changed.notify_all();
                    if reported {
                        let seconds = failing.map_or(0, |since| since.elapsed().as_secs());
                        let reason = format!(
                            "checkpoints reach {} again, after {seconds} s",
                            self.shared.remote.url()
                        );
                        (self.shared.report)(step, "upload-resumed", reason);
                    }
                    (pause, failing, reported) = (first_pause, None, false);
                }
                Err(error) => {
                    state.problem = Some(error.to_string());
                    let since = *failing.get_or_insert_with(Instant::now);
                    tracing::debug!("{error}; the upload will be tried again");
                    if !reported && since.elapsed() >= self.shared.report_after {
                        reported = true;
                        let reason = format!(
                            "no checkpoint could be copied to {} for {} s, training goes on with those on this machine: {error}",
                            self.shared.remote.url(),
                            since.elapsed().as_secs()
                        );
                        drop(state);
                        (self.shared.report)(step, "upload-delayed", reason);
                        state = self.shared.state();
                    }
                    let begun = Instant::now();
                    let length = |state: &State| if state.hurry { pause.min(SHORT_PAUSE) } else { pause };
                    while !state.stop && begun.elapsed() < length(&state) {
                        let left = length(&state).saturating_sub(begun.elapsed());
                        let waited = self.shared.changed.wait_timeout(state, left);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Makes S3 what was asked for.
    fn send_all(
        &mut self,
        wanted: &BTreeMap<String, Arc<Snapshot>>,
        lengths: &BTreeMap<String, u64>,
    ) -> Result<(), StorageError> {
        self.look()?;
        self.send_files(lengths)?;
        let mut missing: BTreeMap<&str, &Arc<Snapshot>> = BTreeMap::new();
        for snapshot in wanted.values() {
            if !self.complete.contains_key(&snapshot.id) {
                missing.insert(&snapshot.id, snapshot);
            }
        }
        let mut state = self.shared.state();
        (state.sent, state.sending) = (0, missing.values().map(|s| s.bytes()).sum());
        drop(state);
        // The newest first: it is the one that a lost machine would need.
        for snapshot in missing.into_values().rev() {
            self.send_checkpoint(snapshot)?;
            self.publish(wanted)?;
        }
        self.publish(wanted)?;
        self.remove_unnamed()
    }

    /// Finds out what is there, once.
    fn look(&mut self) -> Result<(), StorageError> {
        if self.index.is_some() {
            return Ok(());
        }
        let remote = &self.shared.remote;
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
        let remote = &self.shared.remote;
        for (name, path) in run_files(&self.shared.run) {
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

    /// Sends a checkpoint: its files, then its manifest. What another one there has too is copied there.
    fn send_checkpoint(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let remote = &self.shared.remote;
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
                        self.shared.state().sent += bytes;
                    },
                )?;
            }
            self.shared.state().sent += hash.bytes.saturating_sub(passed);
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
        let last = |index: &Index| index.checkpoints.get("last").cloned();
        if let Some(before) = last(&old).filter(|before| Some(before) != last(&new).as_ref()) {
            new.checkpoints.insert("previous".into(), before);
        }
        let steps: Vec<String> = new
            .checkpoints
            .keys()
            .filter(|name| name.starts_with("step-"))
            .cloned()
            .collect();
        if self.shared.keep > 0 {
            for name in steps.iter().take(steps.len().saturating_sub(self.shared.keep)) {
                new.checkpoints.remove(name);
            }
        }
        if new != old {
            let json = serde_json::to_vec_pretty(&new).unwrap_or_default();
            self.shared.remote.s3.put(&self.shared.remote.key(INDEX), &json)?;
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
        let remote = &self.shared.remote;
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
