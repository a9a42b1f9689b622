//! Progress of an arm, read from its directories: the sweep keeps no state of its own.

use super::{
    SweepError,
    arm::{Arm, Sweep, learned},
    config::CheckpointName,
};
use crate::{
    run::{RunDir, RunRecord, TrainerState, file, is_run},
    settings::Sources,
};
use std::path::{Path, PathBuf};

/// State of an arm.
#[derive(Clone, Debug)]
pub struct ArmState {
    /// Its run directory, which need not exist.
    pub run: PathBuf,
    /// Its training.
    pub train: Train,
    /// Its evaluations, in the sweep's order.
    pub evals: Vec<Eval>,
}

/// State of training.
#[derive(Clone, Debug, PartialEq)]
pub enum Train {
    /// Not started.
    Missing,
    /// Started, with the state of its last checkpoint if it has one.
    Begun(Option<TrainerState>),
    /// Finished.
    Done(TrainerState),
}

/// State of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eval {
    /// Not started.
    Missing,
    /// Started: the name of its directory.
    Begun(String),
    /// Finished: its directory.
    Done(PathBuf),
}

/// The next step of an arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Training; true: resumed.
    Train(bool),
    /// An evaluation by index, and the name of the one to resume.
    Eval(usize, Option<String>),
    /// Nothing.
    Nothing,
}

/// How an arm ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is left to do.
    Finished,
    /// Why not.
    Failed(String),
    /// The sweep was asked to stop first.
    Interrupted,
}

/// What a run of the sweep did.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// Arm number and end, in the order of the arms.
    pub ends: Vec<(usize, End)>,
    /// Arms that were finished before.
    pub skipped: usize,
}

impl Ran {
    /// The reason for which an arm failed.
    pub fn failure(&self, arm: usize) -> Option<&str> {
        self.ends.iter().find_map(|(n, end)| match end {
            End::Failed(reason) if *n == arm => Some(reason.as_str()),
            _ => None,
        })
    }

    /// Arms that failed.
    pub fn failed(&self) -> usize {
        self.ends
            .iter()
            .filter(|(_, end)| matches!(end, End::Failed(_)))
            .count()
    }
}

impl ArmState {
    /// The next step.
    pub fn next(&self) -> Step {
        match &self.train {
            Train::Missing => return Step::Train(false),
            Train::Begun(_) => return Step::Train(true),
            Train::Done(_) => {}
        }
        let open = self.evals.iter().enumerate().find_map(|(n, eval)| match eval {
            Eval::Missing => Some(Step::Eval(n, None)),
            Eval::Begun(name) => Some(Step::Eval(n, Some(name.clone()))),
            Eval::Done(_) => None,
        });
        open.unwrap_or(Step::Nothing)
    }

    /// Whether all steps are done.
    pub fn is_finished(&self) -> bool {
        self.next() == Step::Nothing
    }

    /// A short description: `training stands at step 3`.
    pub fn describe(&self, arm: &Arm) -> String {
        match (&self.train, self.next()) {
            (Train::Missing, _) => "not begun".into(),
            (Train::Begun(state), _) => {
                let step = state.as_ref().map_or(0, |state| state.step);
                format!("training stands at step {step}")
            }
            (_, Step::Eval(n, begun)) => {
                let name = arm.evaluations.get(n).map_or("", |(e, _)| e.benchmark.name());
                let how = if begun.is_some() { "begun" } else { "not begun" };
                format!("trained, the evaluation on {name} is {how}")
            }
            _ => "finished".into(),
        }
    }
}

/// The state of an arm in the sweep's own directory.
///
/// # Errors
/// [`SweepError::Foreign`]: the directory holds a run with other settings.
pub fn state(sweep: &Sweep, arm: &Arm) -> Result<ArmState, SweepError> {
    state_at(arm, &sweep.run_dir(arm), &sweep.evals_dir(arm))
}

/// The state of an arm with these directories.
pub(super) fn state_at(arm: &Arm, run: &Path, evals: &Path) -> Result<ArmState, SweepError> {
    let train = training(arm, run)?;
    let evals = (0..arm.evaluations.len())
        .map(|n| match train {
            Train::Done(_) => evaluation(arm, n, evals),
            _ => Eval::Missing,
        })
        .collect();
    Ok(ArmState {
        run: run.to_owned(),
        train,
        evals,
    })
}

/// The state of an arm in the one of these directories that has the most of it: sweeps' directories, their
/// parents, or the arm's run directory.
///
/// # Errors
/// As [`state`].
pub fn state_in(roots: &[PathBuf], arm: &Arm) -> Result<Option<ArmState>, SweepError> {
    let mut best: Option<ArmState> = None;
    for run in roots.iter().flat_map(|root| places(root, &arm.run_name)) {
        let parent = run.parent().unwrap_or(Path::new(""));
        let found = state_at(arm, &run, &parent.join("evals").join(&arm.run_name))?;
        if best.as_ref().is_none_or(|best| found.progress() > best.progress()) {
            best = Some(found);
        }
    }
    Ok(best.filter(|state| state.train != Train::Missing))
}

impl ArmState {
    /// Progress, for comparison: larger is further.
    fn progress(&self) -> (usize, usize) {
        let evals = self.evals.iter().filter(|e| matches!(e, Eval::Done(_))).count();
        match &self.train {
            Train::Missing => (0, 0),
            Train::Begun(state) => (1, state.as_ref().map_or(0, |state| state.step)),
            Train::Done(_) => (2, evals),
        }
    }
}

fn places(root: &Path, name: &str) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<PathBuf> = std::iter::once(root.to_owned())
        .chain(inside)
        .flat_map(|dir| [dir.join(name), dir])
        .filter(|dir| dir.file_name().is_some_and(|n| n == name) && is_run(dir))
        // Not what `evals` calls by the same name.
        .filter(|dir| dir.join(file::RECIPE).is_file())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn training(arm: &Arm, run: &Path) -> Result<Train, SweepError> {
    let run = RunDir::at(run);
    let Some(record) = run.record() else {
        return Ok(Train::Missing);
    };
    let of_it = Sources::new(None)
        .config(run.file(file::CONFIG))
        .recipe(run.file(file::RECIPE))
        // Not compared, and it may name a tracker that no longer exists.
        .set("tracking.kinds=[]")
        .load();
    let same = of_it.is_ok_and(|of_it| {
        learned(&of_it.recipe) == learned(&arm.recipe)
            && of_it.config.seed == arm.config.seed
            && of_it.config.devices == arm.config.devices
            && record.is_of(arm.pipeline.name())
    });
    if !same {
        return Err(SweepError::Foreign(run.path().to_owned()));
    }
    // Between two renames `last` may be `previous`.
    let state = [file::LAST, file::PREVIOUS]
        .into_iter()
        .find_map(|name| run.trainer_state(name));
    Ok(match state {
        Some(state) if state.finished => Train::Done(state),
        state => Train::Begun(state),
    })
}

fn evaluation(arm: &Arm, index: usize, dir: &Path) -> Eval {
    let Some((evaluation, settings)) = arm.evaluations.get(index) else {
        return Eval::Missing;
    };
    let asked = format!("eval-{}", evaluation.benchmark.name());
    let mut found = Eval::Missing;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = RunRecord::read(&path)
            .is_some_and(|record| record.is_of(&asked) && model_ends(&record, evaluation.checkpoint));
        let same = || {
            let of_it = Sources::new(None).recipe(path.join(file::RECIPE)).load();
            of_it.is_ok_and(|of_it| of_it.recipe.eval == *settings)
        };
        if !ours || !same() {
            continue;
        }
        if path.join(file::TIMING).is_file() && path.join(file::EVAL).is_file() {
            return Eval::Done(path);
        }
        found = Eval::Begun(entry.file_name().to_string_lossy().into_owned());
    }
    found
}

/// Whether an evaluation was of this checkpoint, or of the last one where no best was kept.
fn model_ends(record: &RunRecord, checkpoint: CheckpointName) -> bool {
    let request = record.request.as_ref();
    let model = request
        .and_then(|request| request["origin"]["model"].as_str())
        .unwrap_or_default();
    match checkpoint {
        CheckpointName::Best => model.ends_with(file::BEST) || model.ends_with(file::LAST),
        CheckpointName::Last => model.ends_with(file::LAST),
    }
}
