//! Which run `--resume` means: one of this machine, or one of S3 that is fetched first.

use super::{Failure, Output};
use crate::{
    run::{
        CheckpointStore, RunDir, RunError, RunLock, RunRecord, TrainerState, file, find as find_run, is_run,
        newest_first,
    },
    settings::{Config, Pipeline},
    storage::{RemoteRun, RemoteRuns, StorageError},
};
use std::path::{Path, PathBuf};

/// A run to resume.
pub(super) struct FoundRun {
    /// Its directory.
    pub dir: PathBuf,
    /// Where it was fetched from, if that was said in its name.
    pub uploaded_to: Option<String>,
    /// Its seed: resuming draws what the run would have drawn.
    pub seed: Option<u64>,
    /// The right to work on it; None where nothing is written.
    pub lock: Option<RunLock>,
}

/// A directory and its lock.
type Held = (PathBuf, Option<RunLock>);

/// Where a run is looked for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub pipeline: Pipeline,
    pub config: &'a Config,
    /// Parent of the run directories.
    pub runs: &'a Path,
    /// Whether the run's lock is taken.
    pub locked: bool,
}

/// Finds it; None starts a new run. With `storage.runs` set, a run of S3 that is not here is fetched,
/// and one that got further there than here, too. Its lock is taken, and its files are checked before any setting
/// is read from them.
pub(super) fn find(name: &str, place: Place<'_>, output: &Output) -> Result<Option<FoundRun>, Failure> {
    let mut uploaded_to = None;
    let held = if name.starts_with("s3://") {
        let run = RemoteRun::open(name, &place.config.storage)?;
        uploaded_to = Some(run.name().1);
        Some(bring(&run, place.runs, None, output)?)
    } else if name == "auto" {
        newest_free(place, output)?
    } else {
        Some(named(name, place, output)?)
    };
    let Some((dir, lock)) = held else { return Ok(None) };
    let record = RunRecord::of_run(&dir).map_err(failure)?;
    record.check_settings_files(&dir).map_err(failure)?;
    Ok(Some(FoundRun {
        dir,
        uploaded_to,
        seed: record.seed,
        lock: lock.filter(|_| place.locked),
    }))
}

impl Place<'_> {
    fn remote(self) -> Result<Option<RemoteRuns>, StorageError> {
        let url = self.config.storage.runs.as_deref();
        url.map(|url| RemoteRuns::open(url, &self.config.storage)).transpose()
    }

    fn lock(self, dir: &Path) -> Result<Option<RunLock>, RunError> {
        self.locked.then(|| RunLock::take(dir)).transpose()
    }
}

fn failure(error: RunError) -> Failure {
    match error.is_usage() {
        true => Failure::usage(error),
        false => Failure::failed(error),
    }
}

/// The run of this name or directory.
fn named(name: &str, place: Place<'_>, output: &Output) -> Result<Held, Failure> {
    let runs = place.runs;
    let local = find_run(runs, name);
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    match (place.remote()?, local) {
        (Some(remote), local) if plain && local.as_ref().is_none_or(|dir| *dir == runs.join(name)) => {
            bring(&remote.run(name), runs, None, output)
        }
        (_, Some(dir)) => {
            let lock = place.lock(&dir).map_err(failure)?;
            Ok((dir, lock))
        }
        (_, None) => Err(Failure::usage(format!(
            "--resume {name}: there is no such run in {}; give the name of a directory there that holds run.json, s3://BUCKET/PREFIX/NAME, or auto",
            runs.display()
        ))),
    }
}

/// The unfinished run that was started last among those that no process works on. None if there is no unfinished run;
/// where there are some and all are held, no second run is started in their place.
fn newest_free(place: Place<'_>, output: &Output) -> Result<Option<Held>, Failure> {
    let mut held = None;
    for dir in unfinished(place.runs, place.pipeline) {
        let lock = match place.lock(&dir) {
            Ok(lock) => lock,
            Err(error @ RunError::Locked { .. }) => {
                held.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(failure(error)),
        };
        // Who held it a moment ago may have ended it.
        if !is_unfinished(&dir) {
            continue;
        }
        if let Some(held) = held {
            say!("{held}; resuming {} in its place", dir.display());
        }
        return match place.remote()? {
            Some(remote) => bring(&remote.run(&name_of(&dir)), place.runs, lock, output).map(Some),
            None => Ok(Some((dir, lock))),
        };
    }
    if let Some(held) = held {
        return Err(failure(held));
    }
    let there = match place.remote()? {
        Some(remote) => newest_unfinished_there(&remote, place.pipeline)?,
        None => None,
    };
    there.map(|run| bring(&run, place.runs, None, output)).transpose()
}

fn name_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The run's directory on this machine with its lock, fetched if it is not here or got further there.
fn bring(run: &RemoteRun, runs: &Path, lock: Option<RunLock>, output: &Output) -> Result<Held, Failure> {
    let take = |dir: &Path| RunLock::take(dir).map_err(failure);
    let (name, _) = run.name();
    let local = runs.join(&name);
    if is_run(&local) {
        // What opens checkpoints removes what it takes for half-done.
        let lock = lock.map_or_else(|| take(&local), Ok)?;
        let step_here = CheckpointStore::open(RunDir::at(&local).checkpoints())
            .and_then(|store| store.newest(&mut |_| ()))
            .map(|(_, state)| state.step)
            .ok();
        match run.newest_step() {
            Ok(Some(there)) if step_here.is_none_or(|here| here < there) => {
                let aside = aside(runs, &name, step_here.unwrap_or(0));
                say!(
                    "{} is at step {there} on S3 and at step {} here; what is here goes to {}",
                    name,
                    step_here.unwrap_or(0),
                    aside.display()
                );
                std::fs::rename(&local, &aside)
                    .map_err(|e| Failure::failed(format!("renaming `{}` failed: {e}", local.display())))?;
            }
            Ok(_) => return Ok((local, Some(lock))),
            Err(error) => {
                say!("warning: {error}; resuming the local copy of the run");
                return Ok((local, Some(lock)));
            }
        }
    }
    let url = run.url();
    let mut bar = output.transfer_bar(&url);
    let fetched = run.fetch(runs, &mut |transfer| {
        bar.set(&transfer.file, transfer.done, transfer.total)
    })?;
    drop(bar);
    for problem in &fetched.passed_over {
        say!("warning: {problem}; the one before it was taken");
    }
    say!("fetched {url} at step {} into {}", fetched.step, fetched.dir.display());
    let lock = take(&fetched.dir)?;
    Ok((fetched.dir, Some(lock)))
}

/// A name that is free for a run that is behind.
fn aside(runs: &Path, name: &str, step: usize) -> PathBuf {
    let plain = runs.join(format!("{name}.behind-step-{step}"));
    let numbered = (2..).map(|n| runs.join(format!("{name}.behind-step-{step}-{n}")));
    std::iter::once(plain.clone())
        .chain(numbered)
        .find(|path| !path.exists())
        .unwrap_or(plain)
}

/// The runs of this pipeline that have not ended, the one that was started last first.
fn unfinished(runs: &Path, pipeline: Pipeline) -> Vec<PathBuf> {
    newest_first(runs, |dir| {
        let run = RunDir::at(dir);
        let Some(record) = run.record() else {
            if is_run(dir) {
                say!(
                    "warning: `{}` is damaged, so --resume auto passes over its run",
                    run.file(file::RECORD).display()
                );
            }
            return false;
        };
        record.is_of(pipeline.name()) && is_unfinished(dir)
    })
}

fn is_unfinished(dir: &Path) -> bool {
    let state = RunDir::at(dir).trainer_state(file::LAST);
    !state.is_some_and(|state| state.finished)
}

/// The same among those on S3, by the time that `run.json` says; runs without a complete checkpoint
/// are none.
fn newest_unfinished_there(remote: &RemoteRuns, pipeline: Pipeline) -> Result<Option<RemoteRun>, StorageError> {
    let mut ours = Vec::new();
    for name in remote.names()? {
        let run = remote.run(&name);
        let Some(bytes) = run.read(file::RECORD)? else { continue };
        let record: RunRecord = serde_json::from_slice(&bytes).unwrap_or_default();
        if record.is_of(pipeline.name()) {
            // RFC 3339 in UTC: in the order of time.
            ours.push((record.started.unwrap_or_default(), name));
        }
    }
    ours.sort();
    for (_, name) in ours.into_iter().rev() {
        let run = remote.run(&name);
        let state = run.read_of_newest(file::TRAINER)?;
        let state = state.and_then(|bytes| serde_json::from_slice::<TrainerState>(&bytes).ok());
        if state.is_some_and(|state| !state.finished) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}
