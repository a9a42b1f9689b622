//! An evaluation as part of the run that it evaluated: the run's trackers get its scores and its samples.

use crate::{
    cli::SettingsArgs,
    cli::{Failure, track::run_with_settings},
    eval::{self, Finished},
    pipeline,
    run::{RunDir, RunRecord, file, run_of_checkpoint},
    settings::Settings,
    track::{self, Input, Status, Tracking},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Tells the trackers of the run that was evaluated, or, of another model, those of a run of its own.
pub(super) fn log(finished: &Finished, settings: &Settings) -> Result<(), Failure> {
    let evaluation = &finished.run_dir;
    let run = finished
        .report
        .origin
        .get("model")
        .and_then(|model| evaluated(Path::new(model)));
    let name = evaluation
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let config = &settings.config.tracking;
    let trackers = track::trackers(config).map_err(Failure::usage)?;
    if trackers.is_empty() {
        return Ok(());
    }
    let dir = run
        .as_ref()
        .map_or(evaluation.as_path(), |checkpoint| checkpoint.run.as_path());
    let tracking = Tracking::open(track::own_run(dir, config).map_err(Failure::failed)?, trackers, config)
        .map_err(Failure::failed)?;
    match &run {
        // A run that was not tracked while it trained.
        Some(checkpoint) if !tracking.resumed() => {
            let (_, own) = run_with_settings(&checkpoint.run.to_string_lossy(), &SettingsArgs::default(), None)?;
            let run = RunDir::open(dir, &dir.to_string_lossy()).map_err(Failure::failed)?;
            pipeline::describe(&tracking, dir, &own.config, &own.recipe);
            track::import(&tracking, &run, u64::MAX).map_err(Failure::failed)?;
            tracking.status(Status::Finished);
        }
        Some(_) => {}
        None => tracking.status(Status::Running),
    }
    tell(&tracking, finished, &name, run.as_ref());
    if run.is_none() {
        tracking.status(Status::Finished);
    }
    for line in tracking.close().left(dir) {
        say!("warning: {line}");
    }
    Ok(())
}

/// A run's checkpoint.
struct Checkpoint {
    run: PathBuf,
    name: String,
    step: i64,
}

/// The training run that a model's directory is a checkpoint of.
fn evaluated(model: &Path) -> Option<Checkpoint> {
    let model = std::path::absolute(model).ok()?;
    let run = RunDir::at(run_of_checkpoint(&model)?);
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (!run.record()?.is_evaluation()).then(|| Checkpoint {
        step: run.trainer_state(&name).map_or(0, |state| state.step as i64),
        run: run.path().to_path_buf(),
        name,
    })
}

/// Scores with their intervals, at the checkpoint's step; the problems; the files.
fn tell(tracking: &Tracking, finished: &Finished, name: &str, checkpoint: Option<&Checkpoint>) {
    let report = &finished.report;
    let benchmark = &eval::plain_name(&report.benchmark);
    let mut values = BTreeMap::new();
    for (k, value) in &report.pass_at_k {
        values.insert(format!("{benchmark}/pass_at_{k}"), *value);
        if let Some([low, high]) = report.ci95_at_k.get(k) {
            values.insert(format!("{benchmark}/pass_at_{k}_low"), *low);
            values.insert(format!("{benchmark}/pass_at_{k}_high"), *high);
        }
        if let Some(verified) = report.verified_pass_at_k.get(k) {
            values.insert(format!("{benchmark}/verified_pass_at_{k}"), *verified);
        }
    }
    for (k, value) in report.base.iter().flat_map(|base| &base.pass_at_k) {
        values.insert(format!("{benchmark}/base_pass_at_{k}"), *value);
    }
    let shares = &report.shares;
    for (key, value) in [
        ("tasks", report.tasks as f64),
        ("samples", report.samples as f64),
        ("not_verified", report.not_verified as f64),
        ("exact", report.exact),
        ("parse", shares.parse),
        ("timeout", shares.timeout),
        ("wrong", shares.wrong),
        ("error", shares.error),
        ("tokens", report.tokens as f64),
        ("seconds", finished.seconds),
    ] {
        values.insert(format!("{benchmark}/{key}"), value);
    }
    tracking.metrics(checkpoint.map_or(0, |c| c.step), values);
    let [low, high] = report.ci95;
    let of = checkpoint.map_or(String::new(), |c| format!(", checkpoint {} at step {}", c.name, c.step));
    tracking.tags(BTreeMap::from([(
        format!("wmtp.eval.{benchmark}"),
        format!("pass@1 {:.4} ({low:.4} to {high:.4}){of}", report.pass_at_1),
    )]));
    let request = RunRecord::read(&finished.run_dir)
        .and_then(|record| record.request)
        .unwrap_or_default();
    tracking.inputs(vec![Input {
        name: format!("{benchmark}-{}", report.variant),
        digest: request["problems"].as_str().unwrap_or_default().to_owned(),
        source: report
            .origin
            .get("data")
            .cloned()
            .unwrap_or_else(|| format!("builtin:{benchmark}")),
        context: "evaluation".into(),
        profile: json!({"tasks": report.tasks}),
    }]);
    for name_of_file in [
        file::RECORD,
        file::EVAL,
        file::TIMING,
        file::SAMPLES,
        file::REPORT_MARKDOWN,
        file::REPORT_HTML,
    ] {
        let path = finished.run_dir.join(name_of_file);
        if path.is_file() {
            tracking.artifact(&path, &format!("{}/{name}/{name_of_file}", file::EVALUATIONS));
        }
    }
}
