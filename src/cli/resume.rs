//! Which run `--resume` means: one of this machine, or one of S3 that is fetched first.

use super::{Failure, Output};
use crate::{
    run::{CheckpointStore, RunDir, RunLock, RunRecord, TrainerState, file, find as find_run, is_run, newest},
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
}

/// Finds it; None starts a new run. With `storage.runs` set, a run of S3 that is not here is fetched,
/// and one that got further there than here, too.
pub(super) fn find(
    resume: Option<&str>,
    pipeline: Pipeline,
    config: &Config,
    runs: &Path,
    output: &Output,
) -> Result<Option<FoundRun>, Failure> {
    let remote = || {
        config
            .storage
            .runs
            .as_deref()
            .map(|url| RemoteRuns::open(url, &config.storage))
            .transpose()
    };
    let here = |dir: PathBuf| FoundRun { dir, uploaded_to: None };
    match resume {
        None => Ok(None),
        Some(url) if url.starts_with("s3://") => {
            let run = RemoteRun::open(url, &config.storage)?;
            let (_, parent) = run.name();
            Ok(Some(FoundRun {
                dir: bring(&run, runs, output)?,
                uploaded_to: Some(parent),
            }))
        }
        Some("auto") => {
            let local = newest_unfinished(runs, pipeline);
            let run = match (remote()?, &local) {
                (None, _) => None,
                (Some(remote), Some(dir)) => Some(remote.run(&name_of(dir))),
                (Some(remote), None) => newest_unfinished_there(&remote, pipeline)?,
            };
            let dir = run.map(|run| bring(&run, runs, output)).transpose()?.or(local);
            Ok(dir.map(here))
        }
        Some(name) => {
            let local = find_run(runs, name);
            let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
            match (remote()?, local) {
                (Some(remote), local) if plain && local.as_ref().is_none_or(|dir| *dir == runs.join(name)) => {
                    Ok(Some(here(bring(&remote.run(name), runs, output)?)))
                }
                (_, Some(dir)) => Ok(Some(here(dir))),
                (_, None) => Err(Failure::usage(format!(
                    "--resume {name}: there is no such run in {}; give the name of a directory there that holds run.json, s3://BUCKET/PREFIX/NAME, or auto",
                    runs.display()
                ))),
            }
        }
    }
}

/// The seed of the run in `dir`: resuming draws what the run would have drawn.
pub(super) fn seed(dir: &Path) -> Option<u64> {
    RunRecord::read(dir)?.seed
}

fn name_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The run's directory on this machine, fetched if it is not here or got further there.
fn bring(run: &RemoteRun, runs: &Path, output: &Output) -> Result<PathBuf, Failure> {
    let (name, _) = run.name();
    let local = runs.join(&name);
    if is_run(&local) {
        // What opens checkpoints removes what it takes for half-done.
        let _lock = RunLock::take(&local).map_err(|error| Failure::failed(error.to_string()))?;
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
            Ok(_) => return Ok(local),
            Err(error) => {
                say!("warning: {error}; resuming the local copy of the run");
                return Ok(local);
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
    Ok(fetched.dir)
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

/// The run of this pipeline that was started last and has not ended; None starts a new one.
fn newest_unfinished(runs: &Path, pipeline: Pipeline) -> Option<PathBuf> {
    newest(runs, |run| {
        let run = RunDir::at(run);
        let ours = run.record().is_some_and(|record| record.is_of(pipeline.name()));
        ours && !run.trainer_state(file::LAST).is_some_and(|state| state.finished)
    })
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
