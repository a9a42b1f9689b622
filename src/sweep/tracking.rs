//! The sweep as a run of its own in the trackers, with its arms' runs nested under it. Without tracking
//! nothing is written.

use super::{
    SweepError,
    arm::Sweep,
    table::{Status, Table},
};
use crate::{
    fs::write_new,
    run::{RunError, RunRecord, file},
    track::{self, SOURCE_TAG, SetupError, Tracking, TrackingConfig, flatten, metric_key, own_run, short_hash},
    train::Progress,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

/// Time that arms wait for the parent run's id; arms that start without it are not nested.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Files of the sweep's directory that are uploaded at the end.
const FILES: [&str; 7] = [
    file::RECORD,
    "sweep.yaml",
    "sweep.md",
    "sweep.html",
    "sweep.json",
    "sweep.csv",
    "arms.csv",
];

/// Tells the sweep's trackers how it goes.
pub struct TrackedSweep<'a> {
    tracking: Tracking,
    dir: PathBuf,
    progress: &'a dyn Progress,
}

impl<'a> TrackedSweep<'a> {
    /// Begins or resumes the sweep's own run where the config names trackers, and waits a little
    /// until they have it.
    ///
    /// # Errors
    /// Trackers that can't be set up (which no arm could either), a directory that can't be written.
    pub fn begin(sweep: &Sweep, progress: &'a dyn Progress) -> Result<Self, SweepError> {
        let config = tracking_config(sweep);
        let trackers = track::trackers(&config).map_err(|SetupError(problem)| SweepError::Tracking(problem))?;
        let other = |e: RunError| SweepError::Other(e.to_string());
        if trackers.is_empty() {
            return Ok(Self {
                tracking: Tracking::none(),
                dir: sweep.dir.clone(),
                progress,
            });
        }
        fs::create_dir_all(&sweep.dir).map_err(SweepError::io("making", &sweep.dir))?;
        record(sweep)?;
        let names: Vec<String> = trackers.iter().map(|tracker| tracker.name().to_owned()).collect();
        let info = own_run(&sweep.dir, &config).map_err(other)?;
        let tracking = Tracking::open(info, trackers, &config).map_err(other)?;
        tracking.status(track::Status::Running);
        if !tracking.resumed() {
            let file = serde_json::to_value(&sweep.config).unwrap_or_default();
            tracking.params(flatten(&file));
            let tags = [
                (SOURCE_TAG, "wmtp sweep".to_owned()),
                ("sweep", sweep.name.clone()),
                ("wmtp.arms", sweep.arms.len().to_string()),
            ];
            tracking.tags(tags.map(|(key, value)| (key.to_owned(), value)).into());
        }
        let tracked = Self {
            tracking,
            dir: sweep.dir.clone(),
            progress,
        };
        tracked.wait_until_known(&names);
        Ok(tracked)
    }

    fn wait_until_known(&self, trackers: &[String]) {
        let known = |name: &String| {
            let ledger = self.dir.join(file::TRACKING).join(format!("{name}.json"));
            let text = fs::read_to_string(ledger).unwrap_or_default();
            serde_json::from_str::<Value>(&text).is_ok_and(|ledger| ledger["kept"]["run_id"].is_string())
        };
        let started = Instant::now();
        while !trackers.iter().all(known) {
            if started.elapsed() > PATIENCE {
                self.progress.message(
                    "the sweep's trackers have not answered yet: arms that start now may not be nested under it",
                );
                return;
            }
            sleep(POLL);
        }
    }

    /// Uploads the table, sets the final status, and reports what could not be delivered.
    pub fn end(self, table: &Table) {
        if !self.tracking.is_on() {
            return;
        }
        let finished = table.count(Status::Finished);
        let mut values = BTreeMap::from([
            ("arms_finished".to_owned(), finished as f64),
            ("arms_failed".to_owned(), table.count(Status::Failed) as f64),
        ]);
        let best = table.settings.first().into_iter().flat_map(|row| &row.metrics);
        values.extend(best.map(|(name, estimate)| (metric_key(&format!("best_setting/{name}")), estimate.mean)));
        self.tracking.metrics(finished as i64, values);
        let charts = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut charts: Vec<PathBuf> = charts
            .filter(|path| path.extension().is_some_and(|x| x == "svg"))
            .collect();
        charts.sort();
        let files = FILES
            .iter()
            .map(|name| self.dir.join(name))
            .filter(|path| path.is_file());
        for path in files.chain(charts) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.tracking.artifact(&path, &format!("sweep/{name}"));
        }
        self.tracking.status(if finished == table.arms.len() {
            track::Status::Finished
        } else if table.count(Status::Failed) > 0 {
            track::Status::Failed
        } else {
            track::Status::Killed
        });
        self.leave();
    }

    /// Keeps the sweep's status at running: only one of its arms was run.
    pub fn leave(self) {
        let summary = self.tracking.close();
        for line in summary.left(&self.dir) {
            self.progress.warning(&line);
        }
    }
}

/// The arms' tracking settings, with their experiment: runs nest within one experiment only.
fn tracking_config(sweep: &Sweep) -> TrackingConfig {
    let Some(arm) = sweep.arms.first() else {
        return TrackingConfig::default();
    };
    let data = track::data_name(&arm.recipe.data.source.to_string());
    let experiment = format!("mtp/{}/{data}", arm.pipeline.name());
    TrackingConfig {
        experiment: arm.config.tracking.experiment.clone().or(Some(experiment)),
        ..arm.config.tracking.clone()
    }
}

/// `run.json`, written once by the first process.
fn record(sweep: &Sweep) -> Result<(), SweepError> {
    let path = sweep.dir.join(file::RECORD);
    if path.exists() {
        return Ok(());
    }
    let started = crate::clock::now().to_string();
    let uid = short_hash(&format!("{}\n{started}\n{}", sweep.dir.display(), std::process::id()));
    let record = RunRecord {
        format: Some(1),
        kind: Some(RunRecord::SWEEP.into()),
        uid: Some(uid),
        name: Some(sweep.name.clone()),
        algorithm: Some(RunRecord::SWEEP.into()),
        started: Some(started),
        wmtp: Some(env!("CARGO_PKG_VERSION").into()),
        commit: Some(option_env!("WMTP_COMMIT").map(str::to_owned)),
        ..RunRecord::default()
    };
    let text = serde_json::to_string_pretty(&record).unwrap_or_default();
    write_new(&path, format!("{text}\n").as_bytes()).map_err(SweepError::io("writing", &path))
}
