//! Uploads a run to S3 while it trains.
//!
//! One thread sends; training only makes hard links and records which checkpoints are wanted. A newer `last`
//! replaces one that is not being sent yet, so that a slow connection sends fewer checkpoints instead of
//! falling behind. A failed upload is retried for as long as the run lasts.

use super::{
    RemoteRun,
    sender::{Progress, Sender, grows, run_files},
    snapshot::Snapshot,
};
use crate::{
    StorageError, Transfer,
    run::{
        Mirror,
        file::{CHECKPOINTS, MANIFEST, PREVIOUS},
    },
};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The longest wait after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest one once training is over.
const SHORT_PAUSE: Duration = Duration::from_secs(2);

/// Receives events for the run's `events.jsonl`: the step, the event, the reason.
pub type Report = Box<dyn Fn(usize, &'static str, String) + Send + Sync>;

/// How the upload ended.
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

/// Uploads one run.
pub struct RunMirror {
    shared: Arc<Shared>,
}

impl fmt::Debug for RunMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uploads to {}", self.shared.remote.url())
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
    /// Training has ended and waits: no long pauses.
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

impl Mirror for RunMirror {
    /// A checkpoint is complete under this name: it will be sent. Takes no longer than a few links.
    fn saved(&self, name: &str, dir: &Path) {
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
}

impl RunMirror {
    /// Starts the thread. `run` is the run's directory; the checkpoints that it holds already are sent
    /// if they are not there. `keep` is how many `step-…` checkpoints stay (0: all).
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(remote: RemoteRun, run: &Path, keep: usize, report: Report) -> Result<Self, StorageError> {
        // Training does not wait for it, and says in its own way that copies are late.
        remote.s3.remote().quiet();
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
            .spawn(move || shared.work())
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
            if !name.starts_with('.') && name != PREVIOUS && entry.path().join(MANIFEST).is_file() {
                self.saved(&name, &entry.path());
            }
        }
    }

    /// Sends the run's files as they are at the end, waits until all uploads are complete, at most `wait`,
    /// and ends the thread. `progress` is called from time to time.
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
    /// The thread: sends requested files until it is stopped.
    fn work(&self) {
        let mut sender = Sender::new(&self.remote, &self.run, self.keep);
        let progress = Progress {
            begin: &|bytes| {
                let mut state = self.state();
                (state.sent, state.sending) = (0, bytes);
            },
            sent: &|bytes| self.state().sent += bytes,
        };
        let first_pause = Duration::from_millis(self.remote.s3.remote().config.retry_delay_ms.max(1));
        let mut pause = first_pause;
        let mut failing: Option<Instant> = None;
        let mut reported = false;
        loop {
            let mut state = self.state();
            while state.done >= state.asked && !state.stop {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            let (asked, wanted, lengths) = (state.asked, state.wanted.clone(), state.lengths.clone());
            drop(state);
            let step = wanted.values().map(|s| s.manifest.step).max().unwrap_or(0);
            let result = sender.send_all(&wanted, &lengths, &progress);
            let mut state = self.state();
            match result {
                Ok(()) => {
                    state.done = asked;
                    state.problem = None;
                    // What has been uploaded needs no links any more.
                    let there = |name: &String, now: &Arc<Snapshot>| {
                        wanted.get(name).is_some_and(|then| Arc::ptr_eq(then, now))
                    };
                    state.wanted.retain(|name, now| !there(name, now));
                    drop(state);
                    self.changed.notify_all();
                    if reported {
                        let seconds = failing.map_or(0, |since| since.elapsed().as_secs());
                        let reason = format!("checkpoints reach {} again, after {seconds} s", self.remote.url());
                        (self.report)(step, "upload-resumed", reason);
                    }
                    (pause, failing, reported) = (first_pause, None, false);
                }
                Err(error) => {
                    state.problem = Some(error.to_string());
                    let since = *failing.get_or_insert_with(Instant::now);
                    tracing::debug!("{error}; the upload will be tried again");
                    if !reported && since.elapsed() >= self.report_after {
                        reported = true;
                        let reason = format!(
                            "no checkpoint could be copied to {} for {} s, training continues with those on this machine: {error}",
                            self.remote.url(),
                            since.elapsed().as_secs()
                        );
                        drop(state);
                        (self.report)(step, "upload-delayed", reason);
                        state = self.state();
                    }
                    let begun = Instant::now();
                    let length = |state: &State| if state.hurry { pause.min(SHORT_PAUSE) } else { pause };
                    while !state.stop && begun.elapsed() < length(&state) {
                        let left = length(&state).saturating_sub(begun.elapsed());
                        let waited = self.changed.wait_timeout(state, left);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

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
