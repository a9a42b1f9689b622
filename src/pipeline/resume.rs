//! A run that is resumed: what must be as it was, what may change, and what is written down of it.

use super::{
    PipelineError,
    contract::{OnResume, is_below, on_resume},
    inputs::{Inputs, is_recorded},
    request::{Prepared, Request},
};
use crate::{
    run::{
        CheckpointError, CheckpointStore, Event, FileHash, Renewal, Resumption, RunDir, RunError, RunRecord,
        TrainerState, file,
    },
    settings::{Pipeline, Recipe, Sources},
    track::flatten,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What a run that has ended is resumed for.
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

/// Opens the run in `dir` and its newest complete checkpoint, checks that settings and inputs are the run's, and
/// writes down what is not. Whoever calls it holds the run's lock.
///
/// # Errors
/// A file of the run, a setting or an input that is not the run's, by its name; no usable checkpoint.
pub(super) fn resume(
    dir: &Path,
    request: &Request,
    prepared: &Prepared,
    fresh: &TrainerState,
    inputs: &Inputs,
) -> Result<Resumed, PipelineError> {
    let parent = dir.parent().unwrap_or(dir);
    let run = RunDir::open(parent, &dir.to_string_lossy())?;
    let record = Record::read(&run)?;
    let changes = record.check(request)?;
    record.check_device(request)?;
    record.check_inputs(request, inputs)?;
    let (from, mut state) = newest_checkpoint(&run, request, &record, fresh)?;
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
        check_lines(&run, request, &state)?;
    }
    let is_longer = changes
        .keys()
        .any(|key| LENGTH.iter().any(|length| is_below(key, length)));
    if state.finished && state.step < prepared.total_steps && is_longer {
        state.finished = false;
        state.failed = None;
    }
    record.write(&run, request, prepared, &state, &changes, inputs)?;
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

/// The newest checkpoint that is whole, with its state; a run that was killed before its first one starts anew,
/// under its own name. Damaged ones are named.
fn newest_checkpoint(
    run: &RunDir,
    request: &Request,
    record: &Record,
    fresh: &TrainerState,
) -> Result<(Option<PathBuf>, TrainerState), PipelineError> {
    let store = CheckpointStore::open(run.checkpoints())?;
    let mut problems = Vec::new();
    let found = store.newest(&mut |problem| problems.push(problem.to_string()));
    if let Ok((resumed, _)) = &found {
        problems.extend(store.incomplete(resumed)?);
        problems.sort();
        problems.dedup();
    }
    for problem in &problems {
        run.event(&Event {
            step: 0,
            event: "damaged-checkpoint",
            reason: problem.clone(),
        })?;
        request.progress.warning(problem);
    }
    match found {
        Ok((path, state)) => Ok((Some(path), state)),
        Err(CheckpointError::None { damaged, .. }) if damaged.is_empty() => {
            let recipe = record.recipe_id.clone();
            let fresh = fresh.clone();
            Ok((None, TrainerState { recipe, ..fresh }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Names the files that are shorter than when the checkpoint was saved, and cuts them back to whole lines: the next
/// line would otherwise follow a part of one.
fn check_lines(run: &RunDir, request: &Request, state: &TrainerState) -> Result<(), PipelineError> {
    let recorded = state.recorded.clone().unwrap_or_default();
    let mut short = Vec::new();
    for (name, bytes) in [
        (file::METRICS, state.metrics_bytes),
        (file::WEIGHTS, recorded.weights_bytes),
        (file::TOKENS, recorded.tokens_bytes),
        (file::STEPS, recorded.steps_bytes),
    ] {
        let found = run.size(name);
        if found >= bytes {
            continue;
        }
        short.push(format!("`{name}` ({found} of {bytes} bytes)"));
        cut_to_lines(run, name)?;
    }
    // Its size is in no checkpoint: a run may add to it at any time.
    cut_to_lines(run, file::EVENTS)?;
    if short.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "`{}` has lost lines of {} since its checkpoint of step {}: reports will miss them, and training is not affected",
        run.path().display(),
        short.join(", "),
        state.step
    );
    request.progress.warning(&reason);
    run.event(&Event {
        step: state.step,
        event: "lost-lines",
        reason,
    })?;
    Ok(())
}

/// Cuts a file back to whole lines.
fn cut_to_lines(run: &RunDir, name: &str) -> Result<(), PipelineError> {
    let text = fs::read(run.file(name)).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        run.truncate(name, whole as u64)?;
    }
    Ok(())
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
        let json = RunRecord::of_run(dir)?;
        json.check_settings_files(dir)?;
        let path = dir.join(file::RECIPE);
        let yaml = fs::read_to_string(&path).map_err(PipelineError::io("reading", &path))?;
        let algorithm = json.algorithm.as_deref().unwrap_or_default();
        // Keys that the run's version did not have are as its pipeline has them now.
        let pipeline = serde_json::from_value(algorithm.into()).ok();
        let recipe = Sources::new(pipeline).recipe(&path).load();
        let recipe_id = match &json.recipe_id {
            Some(id) => id.clone(),
            // It was never resumed with other settings.
            None => id_of(algorithm, &yaml),
        };
        let recipe = recipe.map_err(|error| RunError::Damaged {
            path,
            problem: error.to_string(),
        })?;
        Ok(Self {
            recipe: recipe.recipe,
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
        let may = |key: &str| match on_resume(key) {
            OnResume::MayChange => true,
            OnResume::SameRows => rows(&self.recipe) == rows(&request.recipe),
            OnResume::SameContent => is_recorded(&self.json, key),
            OnResume::SameKind | OnResume::Fixed => false,
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

    /// Another device of the same kind is allowed, with a warning; another kind computes something else.
    fn check_device(&self, request: &Request) -> Result<(), PipelineError> {
        let Some(before) = &self.json.device else { return Ok(()) };
        let now = &request.device_name;
        let kind = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        if kind(before) != kind(now) {
            return refuse(self.sentence("`devices.backend`", before, now));
        }
        if before != now {
            request.progress.warning(&format!(
                "`{}` was started on {before} and is resumed on {now}: sums may be rounded differently",
                self.dir.display()
            ));
        }
        Ok(())
    }

    /// Compares contents, and says once which an older version did not record: they are from then on.
    fn check_inputs(&self, request: &Request, inputs: &Inputs) -> Result<(), PipelineError> {
        let mut unknown = inputs.check(&self.json, &self.dir)?;
        if self.json.config_sha256.is_none() {
            unknown.push(file::CONFIG);
        }
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.iter().map(|key| format!("`{key}`")).collect();
            request.progress.warning(&format!(
                "`{}` has no hash of {}, as an older version wrote it: they are not compared this time, and recorded now",
                self.dir.join(file::RECORD).display(),
                unknown.join(", ")
            ));
        }
        Ok(())
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
        inputs: &Inputs,
    ) -> Result<(), PipelineError> {
        let recipe_yaml = request.recipe.to_yaml();
        let mut hashes = inputs.own_fields();
        if self.json.config_sha256.is_none() {
            let path = run.file(file::CONFIG);
            let config = FileHash::of(&path).map_err(PipelineError::io("reading", &path))?;
            hashes.insert("config_sha256".into(), config.sha256);
        }
        let renewal = Renewal {
            recipe_id: self.recipe_id.clone(),
            steps: prepared.total_steps,
            recipe_sha256: (!changes.is_empty()).then(|| sha256(&recipe_yaml)),
            hashes,
            inputs_sha256: inputs.hashes(),
        };
        let resumption = Resumption {
            time: crate::clock::now().to_string(),
            step: state.step,
            wmtp: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("WMTP_COMMIT").map(str::to_owned),
            device: request.device_name.clone(),
            changed: changes.clone(),
        };
        run.note_resumption(&renewal, &resumption)?;
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
