//! The run's end of tracking: appends to the spool, starts the threads that deliver it, and says at
//! the end what is left.

use super::{
    TrackingConfig,
    deliver::{Delivery, Ledger, Seen, Signal},
    figures, now_millis,
    spool::{Reader, Record, Spool},
    tracker::{Artifact, Input, Model, RunEvent, RunInfo, Status, Tracker},
};
use crate::{
    fs::Lock,
    run::{Event, RunError, RunObserver, file},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Tells a run's trackers what happens. Clones tell the same run; the default one tells nobody.
///
/// No call waits for a server or fails: it appends a line to the run's spool, and a thread for each
/// tracker takes it from there.
#[derive(Clone, Debug, Default)]
pub struct Tracking(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    run: RunInfo,
    dir: PathBuf,
    writer: Mutex<Writer>,
    wait: Duration,
    signal: Arc<Signal>,
    /// Each tracker's name and how far it is; empty where another process delivers this run.
    trackers: Vec<(String, Arc<Mutex<Seen>>)>,
}

#[derive(Debug)]
struct Writer {
    spool: Spool,
    /// The largest step of each series.
    high: BTreeMap<String, i64>,
    /// Whether anything was there when the spool was opened.
    was_there: bool,
    spent: Duration,
    calls: u64,
    /// When the last metrics were taken, and what had been spent by then.
    last: Option<(Instant, Duration)>,
    lost: u64,
}

/// What a run's end says of its tracking.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrackingSummary {
    /// Seconds that the run itself spent in calls to its trackers.
    pub seconds: f64,
    /// Those calls.
    pub calls: u64,
    /// Each tracker.
    pub trackers: Vec<TrackerSummary>,
}

/// How far a tracker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrackerSummary {
    /// The tracker's name, such as `mlflow`.
    pub name: String,
    /// Where it keeps things, without credentials.
    pub place: String,
    /// What identifies the run there.
    pub run: serde_json::Value,
    /// Metric values that it has.
    pub delivered: u64,
    /// Lines of the spool that it does not have yet.
    pub left: u64,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
    /// What it refused and what was left out.
    pub refused: Vec<String>,
}

impl Tracking {
    /// Tells nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Starts or resumes tracking the run in `run.dir`. Where another process delivers this run
    /// already, this one only appends.
    ///
    /// # Errors
    /// The run's directory can't be written.
    pub fn open(run: RunInfo, trackers: Vec<Box<dyn Tracker>>, config: &TrackingConfig) -> Result<Self, RunError> {
        if trackers.is_empty() {
            return Ok(Self::none());
        }
        let dir = run.dir.join(file::TRACKING);
        std::fs::create_dir_all(&dir).map_err(RunError::io("making", &dir))?;
        let path = dir.join("lock");
        let lock = Lock::try_exclusive(&path).map_err(RunError::io("locking", &path))?;
        let mut spool = Spool::open(&dir, lock.is_some())?;
        let (high, was_there) = highest_steps(&spool.reader())?;
        if !was_there {
            spool.append(&Record::Run(run.clone()))?;
        }
        let signal = Arc::new(Signal::default());
        let mut started = Vec::new();
        for (tracker, lock) in trackers.into_iter().zip(std::iter::repeat(lock.map(Arc::new))) {
            let Some(lock) = lock else { break };
            let ledger = Ledger::read(&dir, tracker.name(), &tracker.place());
            let seen = Arc::new(Mutex::new(Seen {
                ledger: ledger.clone(),
                problem: None,
            }));
            started.push((tracker.name().to_owned(), Arc::clone(&seen)));
            let delivery = Delivery {
                dir: dir.clone(),
                run_dir: run.dir.clone(),
                reader: spool.reader(),
                tracker,
                ledger,
                interval: Duration::try_from_secs_f64(config.interval_seconds).unwrap_or(Duration::from_secs(1)),
                signal: Arc::clone(&signal),
                seen,
                there: None,
                again: true,
                refusals: Default::default(),
                _lock: lock,
            };
            std::thread::Builder::new()
                .name("tracking".into())
                .spawn(move || delivery.run())
                .map_err(RunError::io("starting a thread for", &dir))?;
        }
        Ok(Self(Some(Arc::new(Inner {
            run,
            dir,
            writer: Mutex::new(Writer {
                spool,
                high,
                was_there,
                spent: Duration::ZERO,
                calls: 0,
                last: None,
                lost: 0,
            }),
            wait: Duration::try_from_secs_f64(config.wait_seconds).unwrap_or_default(),
            signal,
            trackers: started,
        }))))
    }

    /// Whether there is any tracker.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this run was tracked before, by an earlier process.
    pub fn resumed(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.writer().was_there)
    }

    /// Settings of the run.
    pub fn params(&self, params: BTreeMap<String, String>) {
        self.append(|| Record::Params { params });
    }

    /// Tags of the run.
    pub fn tags(&self, tags: BTreeMap<String, String>) {
        self.append(|| Record::Tags { tags });
    }

    /// Data that the run uses.
    pub fn inputs(&self, inputs: Vec<Input>) {
        self.append(|| Record::Inputs { inputs });
    }

    /// Metric values of a step that belong to a series, the steps of which rise. A step at or below
    /// the last one was told before (a resumed run computes some steps again) and is passed over.
    /// What the run spent in calls to its trackers since the step before goes along: `track_ms`, and
    /// as a share of the time `track_share`.
    pub fn series(&self, series: &str, step: i64, values: BTreeMap<String, f64>) {
        self.put(series, step, values, series == "train");
    }

    /// A step that was written down before anybody was told.
    pub(super) fn imported(&self, series: &str, step: i64, values: BTreeMap<String, f64>) {
        self.put(series, step, values, false);
    }

    fn put(&self, series: &str, step: i64, mut values: BTreeMap<String, f64>, timed: bool) {
        let Some(inner) = &self.0 else { return };
        let begun = Instant::now();
        let mut writer = inner.writer();
        if writer.high.get(series).is_some_and(|&high| step <= high) {
            writer.spend(begun);
            return;
        }
        writer.high.insert(series.to_owned(), step);
        if timed {
            if let Some((at, spent)) = writer.last {
                let spent = writer.spent.saturating_sub(spent).as_secs_f64();
                values.insert("track_ms".into(), 1e3 * spent);
                values.insert("track_share".into(), spent / at.elapsed().as_secs_f64().max(1e-9));
            }
            writer.last = Some((begun, writer.spent));
        }
        writer.write(&metrics(Some(series), step, values));
        writer.spend(begun);
    }

    /// Metric values by themselves: every call adds a point.
    pub fn metrics(&self, step: i64, values: BTreeMap<String, f64>) {
        self.append(|| metrics(None, step, values));
    }

    /// Something that happened.
    pub fn event(&self, step: i64, event: &str, reason: &str) {
        self.append(|| {
            Record::Event(RunEvent {
                step,
                event: event.to_owned(),
                reason: crate::redact::redact(reason),
                at: now_millis(),
            })
        });
    }

    /// A file of the run, sent as it is when its turn comes. `name` with `/`.
    pub fn artifact(&self, file: &Path, name: &str) {
        let Some(inner) = &self.0 else { return };
        let file = match file.strip_prefix(&inner.run.dir) {
            Ok(inside) => inside.to_path_buf(),
            Err(_) => std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()),
        };
        let name = name.to_owned();
        self.append(|| Record::Artifact(Artifact { file, name }));
    }

    /// All files under a directory, their names after `name`.
    pub fn artifacts(&self, dir: &Path, name: &str) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let last = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}/{last}");
            if path.is_dir() {
                self.artifacts(&path, &name);
            } else {
                self.artifact(&path, &name);
            }
        }
    }

    /// A model that the run made.
    pub fn model(&self, model: Model) {
        self.append(|| Record::Model(model));
    }

    /// Sets the status of the run.
    pub fn status(&self, status: Status) {
        self.append(|| Record::Status {
            status,
            at: now_millis(),
        });
    }

    /// Waits for what is not delivered, at most the configured time, and says how things stand.
    /// What is left stays in the spool, for a later call or `wmtp track sync`.
    pub fn close(&self) -> TrackingSummary {
        let Some(inner) = &self.0 else {
            return TrackingSummary::default();
        };
        inner.signal.close();
        inner.signal.wait_ended(inner.trackers.len(), inner.wait);
        self.summary()
    }

    /// How things stand.
    pub fn summary(&self) -> TrackingSummary {
        let Some(inner) = &self.0 else {
            return TrackingSummary::default();
        };
        let (spent, calls, reader) = {
            let writer = inner.writer();
            (writer.spent, writer.calls, writer.spool.reader())
        };
        let trackers = inner.trackers.iter().map(|(name, seen)| {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let mut left = 0;
            let counted = reader.read(seen.ledger.cursor, |_, _| {
                left += 1;
                true
            });
            TrackerSummary {
                name: name.clone(),
                place: seen.ledger.place.clone(),
                run: seen.ledger.kept.clone(),
                delivered: seen.ledger.points,
                left,
                problem: seen.problem.clone().or(counted.err().map(|e| e.to_string())),
                refused: seen.ledger.refused.clone(),
            }
        });
        TrackingSummary {
            seconds: spent.as_secs_f64(),
            calls,
            trackers: trackers.collect(),
        }
    }

    /// The run's directory of tracking files.
    pub fn dir(&self) -> Option<&Path> {
        self.0.as_ref().map(|inner| inner.dir.as_path())
    }

    fn append(&self, record: impl FnOnce() -> Record) {
        let Some(inner) = &self.0 else { return };
        let begun = Instant::now();
        let record = record();
        let mut writer = inner.writer();
        writer.write(&record);
        writer.spend(begun);
    }
}

impl RunObserver for Tracking {
    fn event(&self, event: &Event) {
        Self::event(self, event.step as i64, event.event, &event.reason);
    }

    fn metrics(&self, step: usize, line: &Value) {
        self.series(figures::series(line), step as i64, figures::values(line));
    }
}

impl TrackingSummary {
    /// What is not delivered, a sentence for each tracker; empty if all is.
    pub fn left(&self, run_dir: &Path) -> Vec<String> {
        self.trackers
            .iter()
            .filter(|tracker| tracker.left > 0)
            .map(|tracker| {
                let why = tracker.problem.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
                format!(
                    "{} lines of tracking are not at {} {} yet{why}: send them with `wmtp track sync {}`",
                    tracker.left,
                    tracker.name,
                    tracker.place,
                    run_dir.display()
                )
            })
            .collect()
    }
}

impl Inner {
    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signal.stop();
    }
}

impl Writer {
    /// Tracking never ends a run: what can't be written is counted, and said once.
    fn write(&mut self, record: &Record) {
        if let Err(error) = self.spool.append(record) {
            self.lost += 1;
            if self.lost == 1 {
                tracing::warn!("{error}; the run continues, and its trackers will miss this");
            }
        }
    }

    fn spend(&mut self, begun: Instant) {
        self.spent += begun.elapsed();
        self.calls += 1;
    }
}

fn metrics(series: Option<&str>, step: i64, values: BTreeMap<String, f64>) -> Record {
    Record::Metrics {
        at: now_millis(),
        step,
        series: series.map(str::to_owned),
        // The shortest text that reads back as the same number.
        values: values
            .into_iter()
            .map(|(key, value)| (key, value.to_string()))
            .collect(),
    }
}

/// The largest step of each series in the spool, and whether there is anything at all.
fn highest_steps(reader: &Reader) -> Result<(BTreeMap<String, i64>, bool), RunError> {
    let (mut high, mut any) = (BTreeMap::new(), false);
    reader.read(0, |record, _| {
        any = true;
        if let Record::Metrics {
            step,
            series: Some(series),
            ..
        } = record
        {
            let high = high.entry(series).or_insert(step);
            *high = step.max(*high);
        }
        true
    })?;
    Ok((high, any))
}
