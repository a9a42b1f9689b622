//! What a run sends to its trackers when it begins and when it ends. In between they observe what is written
//! to its directory.

use super::{Learned, PipelineError, request::Request, weights_hash};
use crate::{
    redact::redact,
    run::{Manifest, RunDir, TrainerState, file},
    settings::{Config, Recipe},
    track::{
        self, COMMIT_TAG, CheckpointTracking, Input, Model, SOURCE_TAG, Status, Tracker, Tracking, TrackingConfig,
        TrackingSummary, flatten,
    },
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of a run's directory that trackers get, and the folder there that they go to.
const FILES: &[(&str, &str)] = &[
    (file::RECORD, ""),
    (file::CONFIG, ""),
    (file::RECIPE, ""),
    (file::EVENTS, ""),
    (file::METRICS, ""),
    (file::WEIGHTS, "weights/"),
    (file::TOKENS, "weights/"),
    (file::STEPS, ""),
    (file::SAMPLES, "samples/"),
    (file::PRETRAIN_REPORT, ""),
    (file::PRETRAIN_METRICS, ""),
    (file::VALUE_STAGE_REPORT, ""),
    (file::VALUE_STAGE_METRICS, ""),
    (file::STAGE_SCORES, ""),
];

/// Opens the run's trackers and says what the run is. The trackers observe the run that is returned.
pub(super) fn begin(
    run: RunDir,
    request: &Request,
    trackers: Vec<Box<dyn Tracker>>,
    metrics_bytes: u64,
) -> Result<(RunDir, Tracking), PipelineError> {
    if trackers.is_empty() {
        return Ok((run, Tracking::none()));
    }
    let config = &request.config.tracking;
    let tracking = Tracking::open(track::own_run(run.path(), config)?, trackers, config)?;
    tracking.status(Status::Running);
    if !tracking.resumed() {
        describe(&tracking, run.path(), &request.config, &request.recipe);
        track::import(&tracking, &run, metrics_bytes)?;
    }
    Ok((run.observed(Arc::new(tracking.clone())), tracking))
}

/// Parameters, tags, data and settings of the training run in `dir`.
pub fn describe(tracking: &Tracking, dir: &Path, config: &Config, recipe: &Recipe) {
    let json = |value: Result<Value, serde_json::Error>| value.unwrap_or_default();
    let mut params = flatten(&json(serde_json::to_value(recipe)));
    let config_params = flatten(&json!({"config": json(serde_json::to_value(config))}));
    params.extend(config_params);
    tracking.params(params);
    let run = serde_json::to_value(RunDir::at(dir).record()).unwrap_or_default();
    let mut tags = BTreeMap::from([(SOURCE_TAG.to_owned(), "wmtp train".to_owned())]);
    for (key, tag) in [
        ("algorithm", "wmtp.algorithm"),
        ("wmtp", "wmtp.version"),
        ("commit", COMMIT_TAG),
        ("device", "wmtp.device"),
        ("seed", "wmtp.seed"),
        ("model", "wmtp.model"),
        ("model_sha256", "wmtp.base_sha256"),
        ("data_sha256", "wmtp.data_sha256"),
        ("recipe_sha256", "wmtp.recipe_sha256"),
        ("steps", "wmtp.steps"),
    ] {
        match &run[key] {
            Value::Null => {}
            Value::String(text) => drop(tags.insert(tag.to_owned(), redact(text))),
            other => drop(tags.insert(tag.to_owned(), other.to_string())),
        }
    }
    for text in recipe.run.tags.iter().chain(&config.tracking.tags) {
        let (key, value) = text.split_once('=').unwrap_or((text, "true"));
        tags.insert(track::metric_key(key.trim()), value.trim().to_owned());
    }
    tracking.tags(tags);
    let source = run["data"].as_str().unwrap_or_default();
    tracking.inputs(vec![Input {
        name: source.rsplit([':', '/']).next().unwrap_or(source).to_owned(),
        digest: run["data_sha256"].as_str().unwrap_or_default().to_owned(),
        source: redact(source),
        context: "training".into(),
        profile: json!({"documents": run["documents"], "response_tokens": run["response_tokens"]}),
    }]);
    files(tracking, dir);
}

/// Everything of the directory that trackers get, where it is there.
fn files(tracking: &Tracking, dir: &Path) {
    for (file, folder) in FILES {
        if dir.join(file).is_file() {
            tracking.artifact(&dir.join(file), &format!("{folder}{file}"));
        }
    }
    let run = dir.file_name().unwrap_or_default().to_string_lossy();
    for (file, end) in [(file::REPORT_MARKDOWN, "md"), (file::REPORT_HTML, "html")] {
        if dir.join(file).is_file() {
            tracking.artifact(&dir.join(file), &format!("reports/{run}.{end}"));
        }
    }
}

/// Says how the run ended (`state`: where it stands, None if it failed), waits for its trackers, and
/// tells people what is left to deliver.
pub(super) fn end(
    tracking: &Tracking,
    run: &RunDir,
    request: &Request,
    state: Option<&TrainerState>,
) -> Option<TrackingSummary> {
    if !tracking.is_on() {
        return None;
    }
    let copy = request.upload.as_ref().map(|upload| upload.to.url());
    finish(tracking, run.path(), &request.config.tracking, state, copy.as_deref());
    let summary = tracking.close();
    for line in summary.left(run.path()) {
        request.progress.warning(&line);
    }
    Some(summary)
}

/// Files, checkpoints and status of a run that has ended.
fn finish(tracking: &Tracking, dir: &Path, config: &TrackingConfig, state: Option<&TrainerState>, copy: Option<&str>) {
    files(tracking, dir);
    outcomes(tracking, dir);
    checkpoints(tracking, dir, config.checkpoints, copy);
    tracking.status(match state {
        Some(state) if state.finished => Status::Finished,
        Some(_) => Status::Killed,
        None => Status::Failed,
    });
}

/// What the value head knows and what the model passes, as metrics of the run; a tag says whether the critic beats
/// the model's own likelihood.
fn outcomes(tracking: &Tracking, dir: &Path) {
    let run = RunDir::at(dir);
    let learned = Learned::of(&run);
    if let Some(critic) = learned.critic {
        let figures = [
            ("critic/auroc_across", critic.across),
            ("critic/auroc_within", critic.within),
            ("critic/likelihood_across", critic.likelihood_across),
            ("critic/likelihood_within", critic.likelihood_within),
        ];
        let known = figures
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        tracking.metrics(0, known.collect());
        if let Some(beats) = critic.beats_likelihood {
            tracking.tags([("wmtp.critic_beats_likelihood".to_owned(), beats.to_string())].into());
        }
    }
    for score in &learned.pass_at_1 {
        let key = format!("stages/{}/pass_at_1", score.stage.name());
        tracking.metrics(score.step as i64, [(key, score.pass_at_1)].into());
    }
}

/// A link to each checkpoint (and to its copy below the URL `copy`), its files where they are to be
/// sent, and the models of `best` and `last`.
fn checkpoints(tracking: &Tracking, dir: &Path, what: CheckpointTracking, copy: Option<&str>) {
    let mut found: Vec<PathBuf> = fs::read_dir(RunDir::at(dir).checkpoints())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(file::MANIFEST).is_file())
        .collect();
    found.sort();
    for checkpoint in found {
        let name = checkpoint
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let at = match name.as_str() {
            file::BEST | file::LAST => format!("{}/{name}", file::CHECKPOINTS),
            file::PREVIOUS => continue,
            _ => format!("{}/periodic/{name}", file::CHECKPOINTS),
        };
        let Ok(manifest) = Manifest::read(&checkpoint) else {
            continue;
        };
        let step = manifest.step as i64;
        let link = dir.join(file::TRACKING).join(format!("{name}.link.json"));
        let content = json!({
            "checkpoint": name,
            "step": step,
            "place": checkpoint,
            "copy": copy.map(|url| format!("{url}/{}/{name}", file::CHECKPOINTS)),
            "files": manifest.files,
        });
        match fs::write(&link, format!("{content:#}\n")) {
            Ok(()) => tracking.artifact(&link, &format!("{at}.json")),
            Err(error) => tracing::warn!("writing `{}` failed: {error}", link.display()),
        }
        if what == CheckpointTracking::Upload {
            tracking.artifacts(&checkpoint, &at);
        }
        if [file::BEST, file::LAST].contains(&name.as_str()) {
            let mut tags = BTreeMap::from([("wmtp.place".to_owned(), checkpoint.display().to_string())]);
            if let Some(url) = copy {
                tags.insert("wmtp.copy".into(), format!("{url}/{}/{name}", file::CHECKPOINTS));
            }
            if let Ok(hash) = weights_hash(&checkpoint) {
                tags.insert("wmtp.model_sha256".into(), hash);
            }
            tracking.model(Model { name, step, tags });
        }
    }
}

/// Sends a finished or interrupted training run to trackers that it did not have, or not all of it:
/// what `wmtp track sync` does.
///
/// # Errors
/// The run's directory can't be read or written.
pub fn sync(
    run: &RunDir,
    config: &Config,
    recipe: &Recipe,
    trackers: Vec<Box<dyn Tracker>>,
) -> Result<TrackingSummary, PipelineError> {
    let tracking = Tracking::open(
        track::own_run(run.path(), &config.tracking)?,
        trackers,
        &config.tracking,
    )?;
    if !tracking.resumed() {
        describe(&tracking, run.path(), config, recipe);
        track::import(&tracking, run, u64::MAX)?;
        let state = run.trainer_state(file::LAST);
        let copy = config.storage.runs.as_ref();
        let copy = copy.map(|runs| format!("{}/{}", runs.trim_end_matches('/'), run.name()));
        finish(&tracking, run.path(), &config.tracking, state.as_ref(), copy.as_deref());
    }
    Ok(tracking.close())
}
