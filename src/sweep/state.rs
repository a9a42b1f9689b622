//! How far an arm is, read from its directories: the sweep remembers nothing by itself.

use super::{
    SweepError,
    arm::{Arm, Sweep, learned},
    config::CheckpointName,
};
use crate::{settings::Sources, train::TrainerState};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What is there of an arm.
#[derive(Clone, Debug)]
pub struct ArmState {
    /// Its run directory, there or not.
    pub run: PathBuf,
    /// Its training.
    pub train: Train,
    /// Its evaluations, in the sweep's order.
    pub evals: Vec<Eval>,
}

/// How far training is.
#[derive(Clone, Debug, PartialEq)]
pub enum Train {
    /// Not begun.
    Missing,
    /// Begun, and perhaps with a checkpoint.
    Begun(Option<TrainerState>),
    /// Ended.
    Done(TrainerState),
}

/// How far an evaluation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eval {
    /// Not begun.
    Missing,
    /// Begun: the name of its directory.
    Begun(String),
    /// Ended: its directory.
    Done(PathBuf),
}

/// What an arm needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Training; true: gone on with.
    Train(bool),
    /// An evaluation by number, and the name of the one to go on with.
    Eval(usize, Option<String>),
    /// Nothing.
    Nothing,
}

impl ArmState {
    /// What to do next.
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

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.next() == Step::Nothing
    }

    /// For people: `trained to step 3 of 8`.
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

/// The state of an arm whose directories these are.
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

/// The state of an arm under one of these directories, whichever has most of it: sweeps' directories,
/// directories of them, or the arm's own run directory.
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
    /// Grows with what is done.
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
        .filter(|dir| dir.file_name().is_some_and(|n| n == name) && dir.join("run.json").is_file())
        // Not what `evals` calls by the same name.
        .filter(|dir| dir.join("recipe.yaml").is_file())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn training(arm: &Arm, run: &Path) -> Result<Train, SweepError> {
    let Some(record) = json(&run.join("run.json")) else {
        return Ok(Train::Missing);
    };
    let of_it = Sources::new(None)
        .config(run.join("config.yaml"))
        .recipe(run.join("recipe.yaml"))
        .load();
    let same = of_it.is_ok_and(|of_it| {
        learned(&of_it.recipe) == learned(&arm.recipe)
            && of_it.config.seed == arm.config.seed
            && of_it.config.devices == arm.config.devices
            && record["algorithm"] == arm.pipeline.name()
    });
    if !same {
        return Err(SweepError::Foreign(run.to_owned()));
    }
    // Between two renames `last` may be `previous`.
    let state = ["last", "previous"].into_iter().find_map(|name| {
        let text = std::fs::read_to_string(run.join("checkpoints").join(name).join("trainer.json")).ok()?;
        serde_json::from_str::<TrainerState>(&text).ok()
    });
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
        let ours = json(&path.join("run.json"))
            .is_some_and(|record| record["algorithm"] == asked.as_str() && model_ends(&record, evaluation.checkpoint));
        let same = || {
            let of_it = Sources::new(None).recipe(path.join("recipe.yaml")).load();
            of_it.is_ok_and(|of_it| of_it.recipe.eval == *settings)
        };
        if !ours || !same() {
            continue;
        }
        if path.join("timing.json").is_file() && path.join("eval.json").is_file() {
            return Eval::Done(path);
        }
        found = Eval::Begun(entry.file_name().to_string_lossy().into_owned());
    }
    found
}

/// Whether an evaluation was of this checkpoint, or of the last one where no best was kept.
fn model_ends(record: &Value, checkpoint: CheckpointName) -> bool {
    let model = record["request"]["origin"]["model"].as_str().unwrap_or_default();
    match checkpoint {
        CheckpointName::Best => model.ends_with("best") || model.ends_with("last"),
        CheckpointName::Last => model.ends_with("last"),
    }
}

/// The checkpoint's directory.
pub(super) fn checkpoint(run: &Path, name: CheckpointName) -> PathBuf {
    let best = run.join("checkpoints/best");
    match name {
        CheckpointName::Best if best.is_dir() => best,
        _ => run.join("checkpoints/last"),
    }
}
