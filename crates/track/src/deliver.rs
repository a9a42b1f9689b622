//! The thread that brings the spool to one tracker: in order, again after a break, each point once.
//!
//! How a point is delivered exactly once although any answer may get lost. After every start and every
//! break the tracker is asked for the largest step of each metric, and what a series has at or below
//! it is not sent: a series is sent in order, so it is there. Other points are sent with `again`, and
//! the tracker looks. An attempt that the server carries out late, after that look, comes with the same
//! value, step and time as ours; MLflow's database holds one row for such a set.

use super::{
    spool::{Reader, Record},
    tracker::{Point, RunInfo, TrackError, Tracker},
};
use crate::fs::{Fsync, Lock, replace};
use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How far a tracker has come, in `tracking/NAME.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Where this was delivered to. Another place starts from the beginning.
    pub place: String,
    /// Bytes of the spool that are delivered.
    pub cursor: u64,
    /// What the tracker wants to be told at its next start: MLflow's run id.
    pub kept: Value,
    /// Metric values sent.
    pub points: u64,
    /// What was refused and left out, at most 20 of them.
    #[serde(default)]
    pub refused: Vec<String>,
}

impl Ledger {
    pub fn path(dir: &Path, tracker: &str) -> PathBuf {
        dir.join(format!("{tracker}.json"))
    }

    /// The ledger of a tracker; a new one if it has none, or one for another place.
    pub fn read(dir: &Path, tracker: &str, place: &str) -> Self {
        let text = std::fs::read_to_string(Self::path(dir, tracker)).unwrap_or_default();
        match serde_json::from_str::<Self>(&text) {
            Ok(ledger) if ledger.place == place => ledger,
            _ => Self {
                place: place.to_owned(),
                ..Self::default()
            },
        }
    }

    /// Not flushed to the disk: after a power failure an older ledger is as good, only slower.
    fn write(&self, dir: &Path, tracker: &str) {
        let path = Self::path(dir, tracker);
        let written = replace(&path, Fsync::No, |out| Ok(serde_json::to_writer_pretty(out, self)?));
        if let Err(error) = written {
            tracing::warn!("writing `{}` failed: {error}", path.display());
        }
    }
}

/// What a run tells all its delivery threads.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Nothing more will be written: end when all is delivered.
    closing: bool,
    /// End now.
    stopped: bool,
    /// Threads that have ended.
    ended: usize,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until `threads` threads have ended, at most `time`.
    pub fn wait_ended(&self, threads: usize, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while state.ended < threads {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn end(&self) {
        self.lock().ended += 1;
        self.changed.notify_all();
    }

    /// Sleeps, but not past a change of `closing` or `stopped`.
    fn sleep(&self, time: Duration) -> State {
        let before = *self.lock();
        let until = Instant::now() + time;
        let mut state = self.lock();
        while state.closing == before.closing && !state.stopped {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *state
    }
}

/// What is known of a tracker from outside of its thread.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub ledger: Ledger,
    /// Why the last attempt failed; none after a success.
    pub problem: Option<String>,
}

/// One tracker's thread.
pub(super) struct Delivery {
    pub dir: PathBuf,
    pub run_dir: PathBuf,
    pub reader: Reader,
    pub tracker: Box<dyn Tracker>,
    pub ledger: Ledger,
    pub interval: Duration,
    pub signal: Arc<Signal>,
    pub seen: Arc<Mutex<Seen>>,
    /// The largest step there of each metric, as of the last start; none before it.
    pub there: Option<BTreeMap<String, i64>>,
    pub again: bool,
    pub refusals: Refusals,
    /// Held by every thread that delivers this run: another process may begin when the last has ended.
    pub _lock: Arc<Lock>,
}

/// Refusals in a row of what comes next.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: usize,
    /// Up to this byte, records go one by one, to find the one that is refused.
    single_until: u64,
}

/// What is delivered together.
enum Batch {
    Points(Vec<Point>),
    One(Record),
}

impl Delivery {
    const LONGEST_DELAY: Duration = Duration::from_secs(30);
    /// While the program waits for the end.
    const LONGEST_LAST_DELAY: Duration = Duration::from_secs(1);
    /// Between attempts at a tracker that is away.
    const DELAYS: ExponentialBuilder = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Self::LONGEST_DELAY)
        .without_max_times();
    const ATTEMPTS: usize = 3;

    /// Runs until all is delivered and nothing more will come, or until it is stopped.
    pub fn run(mut self) {
        let mut delays = Self::DELAYS.build();
        loop {
            let state = *self.signal.lock();
            if state.stopped {
                break;
            }
            match self.turn() {
                Ok(true) => delays = Self::DELAYS.build(),
                Ok(false) => {
                    // `closing` was read before the spool, so nothing came in between.
                    if state.closing {
                        break;
                    }
                    self.signal.sleep(self.interval);
                }
                Err(error) => {
                    self.failed(&error);
                    let delay = delays.next().unwrap_or(Self::LONGEST_DELAY);
                    self.signal.sleep(if state.closing {
                        delay.min(Self::LONGEST_LAST_DELAY)
                    } else {
                        delay
                    });
                }
            }
        }
        self.signal.end();
    }

    /// Delivers what comes next; false if there is nothing.
    fn turn(&mut self) -> Result<bool, TrackError> {
        if self.reader.length() <= self.ledger.cursor {
            return Ok(false);
        }
        self.start()?;
        let Some((batch, end)) = self.next()? else {
            return Ok(false);
        };
        let sent = match self.hand_over(&batch) {
            Ok(sent) => sent,
            Err(TrackError::Refused(problem)) => {
                self.refusals.count += 1;
                if self.refusals.count < Self::ATTEMPTS {
                    return Err(TrackError::Away(problem));
                }
                if matches!(&batch, Batch::Points(points) if points.len() > 1)
                    && end > self.refusals.single_until
                    && self.refusals.single_until <= self.ledger.cursor
                {
                    self.refusals = Refusals {
                        count: 0,
                        single_until: end,
                    };
                    return Ok(true);
                }
                self.leave_out(&problem);
                0
            }
            Err(error) => return Err(error),
        };
        self.refusals.count = 0;
        self.ledger.cursor = end;
        self.ledger.points += sent;
        self.again = false;
        self.ledger.write(&self.dir, self.tracker.name());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.problem.take().is_some() {
            tracing::info!("{}: {} answers again", self.tracker.name(), self.ledger.place);
        }
        seen.ledger = self.ledger.clone();
        Ok(true)
    }

    /// Opens the run at the tracker, and asks which points it holds.
    fn start(&mut self) -> Result<(), TrackError> {
        if self.there.is_some() {
            return Ok(());
        }
        let mut run = None;
        self.read(0, |record, _| {
            if let Record::Run(info) = record {
                run = Some(info);
            }
            run.is_none()
        })?;
        let run = RunInfo {
            dir: self.run_dir.clone(),
            ..run.ok_or_else(|| TrackError::Away(format!("`{}` does not say which run it is", self.dir.display())))?
        };
        let kept = self.tracker.start(&run, &self.ledger.kept)?;
        if kept != self.ledger.kept {
            // Another run there than before, or the first: everything belongs into it.
            self.ledger.cursor = 0;
            self.ledger.kept = kept;
            self.ledger.write(&self.dir, self.tracker.name());
        }
        let there = self.tracker.latest()?;
        self.again = !there.is_empty();
        self.there = Some(there);
        Ok(())
    }

    /// What comes next: metric values of as many records as go together, or one other record.
    fn next(&mut self) -> Result<Option<(Batch, u64)>, TrackError> {
        let single = self.ledger.cursor < self.refusals.single_until;
        let most = if single { 1 } else { self.tracker.batch().max(1) };
        let (mut points, mut other, mut end) = (Vec::new(), None, self.ledger.cursor);
        self.read(self.ledger.cursor, |record, behind| match record {
            Record::Metrics {
                at,
                step,
                series,
                values,
            } => {
                if !points.is_empty() && points.len() + values.len() > most {
                    return false;
                }
                points.extend(values.into_iter().filter_map(|(key, value)| {
                    Some(Point {
                        key,
                        value: value.parse().ok()?,
                        step,
                        at,
                        series: series.is_some(),
                    })
                }));
                end = behind;
                true
            }
            record => {
                if points.is_empty() {
                    other = Some(record);
                    end = behind;
                }
                false
            }
        })?;
        Ok(match other {
            Some(record) => Some((Batch::One(record), end)),
            None if end > self.ledger.cursor => Some((Batch::Points(points), end)),
            None => None,
        })
    }

    /// Returns the number of metric values sent.
    fn hand_over(&mut self, batch: &Batch) -> Result<u64, TrackError> {
        let again = self.again;
        match batch {
            Batch::Points(points) => {
                let there = self.there.as_ref();
                let is_there = |p: &Point| p.series && there.and_then(|t| t.get(&p.key)).is_some_and(|&s| p.step <= s);
                let new: Vec<Point> = points.iter().filter(|p| !is_there(p)).cloned().collect();
                for batch in new.chunks(self.tracker.batch().max(1)) {
                    self.tracker.metrics(batch, again)?;
                }
                return Ok(new.len() as u64);
            }
            Batch::One(Record::Run(_) | Record::Metrics { .. }) => {}
            Batch::One(Record::Status { status, at }) => self.tracker.status(*status, *at)?,
            Batch::One(Record::Params { params }) => self.tracker.params(params)?,
            Batch::One(Record::Tags { tags }) => self.tracker.tags(tags)?,
            Batch::One(Record::Inputs { inputs }) => self.tracker.inputs(inputs)?,
            Batch::One(Record::Event(event)) => self.tracker.event(event)?,
            Batch::One(Record::Model(model)) => self.tracker.model(model)?,
            Batch::One(Record::Artifact(artifact)) => {
                let mut artifact = artifact.clone();
                artifact.file = self.run_dir.join(&artifact.file);
                // A checkpoint may have been pruned since.
                if artifact.file.is_file() {
                    self.tracker.artifact(&artifact)?;
                } else {
                    tracing::debug!("`{}` is gone and was not sent", artifact.file.display());
                }
            }
        }
        Ok(0)
    }

    fn failed(&mut self, error: &TrackError) {
        // The points that it holds have to be asked for again.
        self.there = None;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.problem.is_none() {
            tracing::warn!(
                "{}: {error}; the run continues, what it logs is kept in `{}` and sent later",
                self.tracker.name(),
                self.dir.display()
            );
        } else {
            tracing::debug!("{}: {error}", self.tracker.name());
        }
        seen.problem = Some(error.to_string());
    }

    fn leave_out(&mut self, problem: &str) {
        tracing::warn!("{}: {problem}; left out", self.tracker.name());
        if self.ledger.refused.len() < 20 {
            self.ledger.refused.push(problem.to_owned());
        }
    }

    fn read(&self, from: u64, take: impl FnMut(Record, u64) -> bool) -> Result<(), TrackError> {
        self.reader
            .read(from, take)
            .map_err(|error| TrackError::Away(error.to_string()))
    }
}
