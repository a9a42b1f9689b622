//! A run that is resumed: what must be as it was, what may change, and what is written down of it.

use super::{
    PipelineError,
    request::{Prepared, Request},
};
use crate::{
    run::{CheckpointError, CheckpointStore, Event, Resumption, RunDir, RunRecord, TrainerState, file},
    settings::{Pipeline, Recipe, Sources},
    track::flatten,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Settings that a resumed run may change, with everything below them: how long it trains, when it
/// stops, what is kept and written down, and what the backward pass computes again.
const MAY_CHANGE: [&str; 12] = [
    "run.tags",
    "model.base",
    "train.steps",
    "train.epochs",
    "train.early_stopping",
    "train.checkpoint",
    "train.validate_every",
    "train.record",
    "train.recompute",
    "train.heads",
    "fallback",
    "weights.max_fallback_share",
];
/// Evaluation is no part of training.
const NOT_TRAINING: &str = "eval";
/// May change while an optimizer step keeps its rows.
const BATCHING: &str = "batching";
/// Of [`MAY_CHANGE`], what a run that has ended is resumed for.
const LENGTH: [&str; 3] = ["train.steps", "train.epochs", "train.early_stopping"];

/// Where a run is continued.
pub(super) struct Resumed {
    pub run: RunDir,
    pub state: TrainerState,
    /// The checkpoint that holds the state; None starts from the beginning, under the same name.
    pub from: Option<PathBuf>,
}

/// A setting by its key: the run's value and the one given now.
type Changes = BTreeMap<String, [String; 2]>;

/// Opens the run in `dir` and its newest complete checkpoint, checks that what was given now is the
/// run's, and writes down what is not. The model is checked by the caller.
///
/// # Errors
/// A setting or data set that is not the run's, by its name; no usable checkpoint.
pub(super) fn resume(
    dir: &Path,
    request: &Request,
    prepared: &Prepared,
    fresh: &TrainerState,
) -> Result<Resumed, PipelineError> {
    let parent = dir.parent().unwrap_or(dir);
    let run = RunDir::open(parent, &dir.to_string_lossy())?;
    let store = CheckpointStore::open(run.checkpoints())?;
    let mut problems = Vec::new();
    let found = store.newest(&mut |problem| problems.push(problem.to_string()));
    for problem in &problems {
        run.event(&Event {
            step: 0,
            event: "damaged-checkpoint",
            reason: problem.clone(),
        })?;
        request.progress.warning(problem);
    }
    let record = Record::read(&run)?;
    let changes = record.check(request)?;
    let (from, mut state) = match found {
        Ok((path, state)) => (Some(path), state),
        // Killed before its first checkpoint: it starts anew, under its own name.
        Err(CheckpointError::None { damaged, .. }) if damaged.is_empty() => {
            let recipe = record.recipe_id.clone();
            (
                None,
                TrainerState {
                    recipe,
                    ..fresh.clone()
                },
            )
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(path) = &from {
        record.check_state(&state, fresh, path)?;
        if prepared.total_steps < state.step {
            return refuse(format!(
                "`{}` has done {} steps and {} are asked for; raise `train.steps` or `train.epochs`",
                run.path().display(),
                state.step,
                prepared.total_steps
            ));
        }
    }
    if state.finished && state.step < prepared.total_steps && changes.keys().any(|key| is_below(key, &LENGTH)) {
        state.finished = false;
        state.failed = None;
    }
    record.write(&run, request, prepared, &state, &changes)?;
    let Some(path) = from else {
        return Ok(Resumed { run, state, from: None });
    };
    let changed: Vec<String> = changes
        .iter()
        .map(|(key, [before, now])| format!("; `{key}` changed from {before} to {now}"))
        .collect();
    run.event(&Event {
        step: state.step,
        event: "resume",
        reason: format!("from {} at step {}{}", path.display(), state.step, changed.concat()),
    })?;
    Ok(Resumed {
        run,
        state,
        from: Some(path),
    })
}

/// What the run's directory says that the run is.
struct Record {
    /// `run.json`.
    json: RunRecord,
    recipe: Recipe,
    /// What its checkpoints name as their recipe.
    recipe_id: String,
    dir: PathBuf,
}

impl Record {
    fn read(run: &RunDir) -> Result<Self, PipelineError> {
        let dir = run.path();
        let text = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(PipelineError::io("reading", &path))
        };
        let wrong = |name: &str, problem: String| {
            PipelineError::Setting(format!("`{}` can't be used: {problem}", dir.join(name).display()))
        };
        let json: RunRecord =
            serde_json::from_str(&text(file::RECORD)?).map_err(|e| wrong(file::RECORD, e.to_string()))?;
        let yaml = text(file::RECIPE)?;
        let hash = sha256(&yaml);
        let known = [&json.recipe_sha256, &json.recipe_sha256_before];
        if let Some(expected) = &json.recipe_sha256
            && !known.into_iter().flatten().any(|known| *known == hash)
        {
            return refuse(format!(
                "`{}` is not the recipe of the run: its SHA-256 is {hash}, and `{}` says {expected}; put the run's own \
                 file back (changes are made with --set), or start a new run from a checkpoint with --model",
                dir.join(file::RECIPE).display(),
                file::RECORD
            ));
        }
        let algorithm = json.algorithm.as_deref().unwrap_or_default();
        // Keys that the run's version did not have are as its pipeline has them now.
        let pipeline = serde_json::from_value(algorithm.into()).ok();
        let recipe = Sources::new(pipeline).recipe(dir.join(file::RECIPE)).load();
        let recipe_id = match &json.recipe_id {
            Some(id) => id.clone(),
            // It was never resumed with other settings.
            None => id_of(algorithm, &yaml),
        };
        Ok(Self {
            recipe: recipe.map_err(|e| wrong(file::RECIPE, e.to_string()))?.recipe,
            recipe_id,
            json,
            dir: dir.to_owned(),
        })
    }

    /// What differs from the run's settings, all of which may.
    fn check(&self, request: &Request) -> Result<Changes, PipelineError> {
        let null = || "null".to_owned();
        let algorithm = self.json.algorithm.clone().unwrap_or_else(null);
        let seed = self.json.seed.map_or_else(null, |seed| seed.to_string());
        let same = [
            ("the pipeline", algorithm, request.pipeline.name().to_owned()),
            ("`seed`", seed, request.seed().to_string()),
        ];
        for (what, before, now) in same {
            if before != now {
                return refuse(self.sentence(what, &before, &now));
            }
        }
        let changes = changes(&self.recipe, &request.recipe);
        let may = |key: &str| {
            is_below(key, &MAY_CHANGE)
                || is_below(key, &[NOT_TRAINING])
                || (is_below(key, &[BATCHING]) && rows(&self.recipe) == rows(&request.recipe))
        };
        let refused: Vec<(&String, &[String; 2])> = changes.iter().filter(|(key, _)| !may(key)).collect();
        let Some((key, [before, now])) = refused.first() else {
            return Ok(changes);
        };
        let others: Vec<String> = refused.iter().skip(1).map(|(key, _)| format!("`{key}`")).collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" (so is {})", others.join(", "))
        };
        refuse(format!("{}{others}", self.sentence(&format!("`{key}`"), before, now)))
    }

    fn sentence(&self, what: &str, before: &str, now: &str) -> String {
        format!(
            "{what} is {before} in `{}` and {now} now; leave it as it was, or start a new run from a checkpoint with --model",
            self.dir.display()
        )
    }

    /// The checkpoint's own record of recipe and data.
    fn check_state(&self, state: &TrainerState, fresh: &TrainerState, path: &Path) -> Result<(), PipelineError> {
        if state.recipe != self.recipe_id {
            return refuse(format!(
                "`{}` was made with another recipe than `{}` says; put the run's own recipe back, or start a new run",
                path.display(),
                self.dir.join(file::RECIPE).display()
            ));
        }
        if state.data != fresh.data {
            return refuse(format!(
                "the training data are not those of `{}` (another data set, tokenizer or wmtp version); start a new run",
                path.display()
            ));
        }
        Ok(())
    }

    /// `run.json` and `recipe.yaml` as they are from now on. `run.json` first: what checkpoints name as
    /// their recipe must be known before the file says something else.
    fn write(
        &self,
        run: &RunDir,
        request: &Request,
        prepared: &Prepared,
        state: &TrainerState,
        changes: &Changes,
    ) -> Result<(), PipelineError> {
        let recipe_yaml = request.recipe.to_yaml();
        let recipe_sha256 = (!changes.is_empty()).then(|| sha256(&recipe_yaml));
        let resumption = Resumption {
            time: jiff::Timestamp::now().to_string(),
            step: state.step,
            wmtp: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("WMTP_COMMIT").map(str::to_owned),
            device: request.device_name.clone(),
            changed: changes.clone(),
        };
        run.note_resumption(
            &self.recipe_id,
            prepared.total_steps,
            recipe_sha256.as_deref(),
            &resumption,
        )?;
        if !changes.is_empty() {
            run.write_text(file::RECIPE, &recipe_yaml)?;
        }
        Ok(())
    }
}

/// What a run's checkpoints name as their recipe.
pub(super) fn recipe_id(pipeline: Pipeline, recipe: &Recipe) -> String {
    id_of(pipeline.name(), &recipe.to_yaml())
}

fn id_of(algorithm: &str, recipe_yaml: &str) -> String {
    sha256(&format!("{algorithm}\n{recipe_yaml}"))
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn refuse<T>(problem: String) -> Result<T, PipelineError> {
    Err(PipelineError::Setting(problem))
}

/// True for one of `sections` and for a key inside one.
fn is_below(key: &str, sections: &[&str]) -> bool {
    sections.iter().any(|section| {
        key.strip_prefix(section)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Rows of an optimizer step.
fn rows(recipe: &Recipe) -> Option<usize> {
    let shape = recipe.batching.shape(recipe.data.seq_len);
    shape.ok().map(|shape| shape.rows())
}

/// Every key whose value differs; a value that is not set is `unset`.
fn changes(before: &Recipe, now: &Recipe) -> Changes {
    let flat = |recipe: &Recipe| flatten(&serde_json::to_value(recipe).unwrap_or_default());
    let (before, now) = (flat(before), flat(now));
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let value = |of: &BTreeMap<String, String>, key: &String| of.get(key).cloned().unwrap_or_else(|| "unset".into());
    keys.into_iter()
        .map(|key| (key.clone(), [value(&before, key), value(&now, key)]))
        .filter(|(_, [before, now])| before != now)
        .collect()
}
