//! Stage 1 of the critic: a value head learned from labelled solutions, the model frozen.
//!
//! While it runs, `critic/checkpoints` holds its checkpoints; they go when the head is whole.

use super::{
    PipelineError,
    request::{Prepared, Request},
    scoring::reward,
    steps::{ValidSteps, ValueSteps},
};
use crate::{
    data::Dataset,
    run::{CheckpointError, CheckpointStore, Event, FileHash, RunDir, TrainerState, file, verify},
    scorer::{CriticConfig, critic::CriticReport},
    train::{
        CheckpointConfig, EarlyStoppingConfig, OptimConfig, Plan, Samples, SessionSetup, Stage, StepLoader, StepSource,
        TrainConfig, TrainError, ValueLearner, ValueMetrics, train,
    },
};
use burn::module::Module;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use wmtp_model::{MtpLlama, ValueHead};

/// What the value stage learned.
#[derive(Clone, Debug, Serialize)]
pub struct ValueReport {
    /// Optimizer steps.
    pub steps: usize,
    /// The step whose head was kept: the last one, or with `scorer.patience` the best.
    pub kept_step: usize,
    /// Loss of the first step.
    pub first_loss: f64,
    /// Mean loss of the last tenth of the steps.
    pub last_loss: f64,
    /// Figures on held-out problems; None if there were none.
    pub held_out: Option<CriticReport>,
    /// Whether mean V tells right from wrong better than the model's own likelihood
    /// ([`CriticReport::beats_likelihood`]).
    pub beats_likelihood: Option<bool>,
    /// SHA-256 of the value head's file.
    pub value_head_sha256: String,
}

/// What the value stage needs of its run.
#[derive(Clone, Copy)]
pub(super) struct ValueStage<'a> {
    pub request: &'a Request,
    pub prepared: &'a Prepared,
    /// The model that training starts from.
    pub model: &'a MtpLlama,
    pub model_hash: &'a str,
    pub run: &'a RunDir,
    /// What the run's checkpoints name as their recipe.
    pub recipe_id: &'a str,
    /// Whether micro-batches are packed without padding.
    pub ragged: bool,
}

/// Checks that the head is the one that the stage's report tells of.
fn check_head(head: &Path, report: &Path) -> Result<(), PipelineError> {
    let text = fs::read_to_string(report).map_err(PipelineError::io("reading", report))?;
    let stated: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let stated = stated["value_head_sha256"].as_str().unwrap_or("nothing");
    let found = match FileHash::of(head) {
        Ok(hash) => hash.sha256,
        Err(error) => format!("unknown ({error})"),
    };
    if found == stated {
        return Ok(());
    }
    Err(PipelineError::Setting(format!(
        "`{}` is not the value head that this run learned: its SHA-256 is {found}, and `{}` says {stated}; put the file \
         back, or start a new run",
        head.display(),
        report.display()
    )))
}

/// Learns the value head, resumes the stage where it was interrupted, or takes the head that this run
/// finished before.
pub(super) fn value_stage(
    stage: ValueStage<'_>,
    config: &CriticConfig,
) -> Result<(ValueHead, Option<ValueReport>), PipelineError> {
    let ValueStage {
        request,
        prepared,
        model_hash,
        run,
        ragged,
        ..
    } = stage;
    let dir = run.file(file::VALUE_STAGE);
    let head_file = dir.join(file::VALUE_HEAD);
    // The report is written after the head, so it says that the head is whole.
    let report = run.file(file::VALUE_STAGE_REPORT);
    if report.is_file() {
        check_head(&head_file, &report)?;
        remove_checkpoints(&dir)?;
        return Ok((ValueHead::load(&head_file, model_hash, &request.device)?, None));
    }
    fs::create_dir_all(&dir).map_err(PipelineError::io("making", &dir))?;
    let splits = prepared.solutions(request)?;
    let micro_batch = prepared.shape.micro_batch;
    let total_steps = planned_steps(config, &splits.train, request.seed(), micro_batch);
    request.progress.message(&format!(
        "value stage: {} labelled solutions, {total_steps} steps",
        solutions(config, &splits.train)
    ));
    let store = CheckpointStore::open(dir.join(file::CHECKPOINTS))?;
    let fresh = TrainerState::new(stage.recipe_id.into(), splits.train.hash().into());
    let (start, resume) = unless_lines_are_lost(stage, &fresh, newest(run, "value-stage", &store, fresh.clone())?)?;
    let model = stage.model.valid();
    let steps = ValueSteps {
        data: splits.train,
        seed: request.seed(),
        batch: config.batch,
        micro_batch,
        most: config.max_solutions,
        ragged,
    };
    let mut learner = ValueLearner::new(
        model,
        model_hash.to_owned(),
        config.clone(),
        reward(config, request)?,
        request.seed(),
    );
    if total_steps > steps.len(0) {
        learner.keep_hidden_states();
        for batches in steps.first_epoch(start.step) {
            learner.see(&batches?)?;
        }
    }
    let valid = ValidSteps::new(&splits.valid, config.validate_solutions, micro_batch, ragged);
    let setup = SessionSetup {
        plan: plan(config, request, total_steps),
        loader: StepLoader::new(Arc::new(steps)),
        valid: StepLoader::new(Arc::new(valid)),
        run: run.clone(),
        store,
        start,
        resume,
        progress: request.progress.clone(),
        stop: request.stop.clone(),
        samples: Samples::default(),
        names: Default::default(),
    };
    let state = train(learner, setup, config.epochs)?;
    if !state.finished {
        return Err(PipelineError::Stopped { run: run.path().into() });
    }
    if state.step == 0 {
        return Err(PipelineError::Setting(
            "the value stage has no step to learn from: no problem has both a right and a wrong solution".into(),
        ));
    }
    if let Some(problem) = state.failed {
        let step = state.step;
        return Err(TrainError::Failed { step, problem }.into());
    }
    finish(stage, config, &dir)
}

/// Where a stage before the weighted one starts: at its newest checkpoint, or from the beginning. Its events
/// are called `name`.
pub(super) fn newest(
    run: &RunDir,
    name: &'static str,
    store: &CheckpointStore,
    fresh: TrainerState,
) -> Result<(TrainerState, Option<PathBuf>), PipelineError> {
    let event = |step, reason: String| {
        run.event(&Event {
            step,
            event: name,
            reason,
        })
    };
    let mut problems = Vec::new();
    let found = store.newest(&mut |problem| problems.push(problem.to_owned()));
    for problem in problems {
        event(0, problem)?;
    }
    match found {
        Ok((path, state)) if (&state.recipe, &state.data) == (&fresh.recipe, &fresh.data) => {
            event(state.step, format!("resumed at step {}", state.step))?;
            Ok((state, Some(path)))
        }
        Ok((path, _)) => Err(PipelineError::Setting(format!(
            "`{}` was made with another recipe or other data; start a new run",
            path.display()
        ))),
        // Killed before its first checkpoint, or none is whole: the stage begins again.
        Err(CheckpointError::None { .. }) => Ok((fresh, None)),
        Err(error) => Err(error.into()),
    }
}

/// The stage's report is computed from its metrics: where lines that the checkpoint knows are gone, the stage begins
/// again, and comes out as if it had not been disturbed.
fn unless_lines_are_lost(
    stage: ValueStage<'_>,
    fresh: &TrainerState,
    (start, resume): (TrainerState, Option<PathBuf>),
) -> Result<(TrainerState, Option<PathBuf>), PipelineError> {
    let metrics = Stage::Value.metrics_file();
    let found = stage.run.size(metrics);
    if found >= start.metrics_bytes {
        return Ok((start, resume));
    }
    let reason = format!(
        "`{}` has lost lines since its checkpoint of step {} ({found} of {} bytes), and the value stage's report is \
         computed from them: the stage begins again",
        stage.run.file(metrics).display(),
        start.step,
        start.metrics_bytes
    );
    stage.request.progress.warning(&reason);
    stage.run.event(&Event {
        step: start.step,
        event: "lost-lines",
        reason,
    })?;
    Ok((fresh.clone(), None))
}

/// AdamW without decay, clipped at norm 1; evaluated twice an epoch and at the end.
fn plan(config: &CriticConfig, request: &Request, total_steps: usize) -> Plan {
    let checkpoint = CheckpointConfig {
        every: 0,
        last_every: request.recipe.train.checkpoint.last_every,
        best: config.patience > 0,
        ..CheckpointConfig::default()
    };
    Plan {
        stage: Stage::Value,
        optim: OptimConfig {
            lr: config.lr,
            weight_decay: 0.0,
            ..OptimConfig::default()
        },
        train: TrainConfig {
            validate_every: total_steps.div_ceil(2 * config.epochs.max(1)).max(1),
            checkpoint,
            early_stopping: EarlyStoppingConfig {
                patience: config.patience,
                min_delta: 0.0,
            },
            ..TrainConfig::default()
        },
        fallback: request.recipe.fallback.clone(),
        value_lr: None,
        total_steps,
        max_epochs: Some(config.epochs),
        scorer: "critic".into(),
        max_fallback_share: 0.0,
    }
}

/// Puts the head that is kept into its place, reports what it learned, and removes the checkpoints.
fn finish(
    stage: ValueStage<'_>,
    config: &CriticConfig,
    dir: &Path,
) -> Result<(ValueHead, Option<ValueReport>), PipelineError> {
    let checkpoints = dir.join(file::CHECKPOINTS);
    let best = checkpoints.join(file::BEST);
    let kept = if config.patience > 0 && best.is_dir() {
        best
    } else {
        checkpoints.join(file::LAST)
    };
    let kept_step = verify(&kept)?.step;
    let (request, hash) = (stage.request, stage.model_hash);
    let head = ValueHead::load(&kept.join(file::VALUE_HEAD), hash, &request.device)?;
    let head_file = dir.join(file::VALUE_HEAD);
    head.save(&head_file, hash)?;
    let bytes = fs::read(&head_file).map_err(PipelineError::io("reading", &head_file))?;
    let metrics = stage.run.file(Stage::Value.metrics_file());
    let metrics = ValueMetrics::read(&fs::read_to_string(&metrics).map_err(PipelineError::io("reading", &metrics))?);
    let losses = &metrics.losses;
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    // Without `scorer.patience` the last figures are the last head's.
    let of_kept = metrics.held_out.iter().rev().find(|(step, _)| *step <= kept_step);
    let held_out = of_kept.map(|(_, report)| report.clone());
    let report = ValueReport {
        steps: losses.len(),
        kept_step,
        first_loss: losses.first().copied().unwrap_or(f64::NAN),
        last_loss: tail.iter().sum::<f64>() / tail.len().max(1) as f64,
        beats_likelihood: held_out.as_ref().and_then(CriticReport::beats_likelihood),
        held_out,
        value_head_sha256: hex::encode(Sha256::digest(bytes)),
    };
    stage.run.write_json(file::VALUE_STAGE_REPORT, &report)?;
    stage.run.event(&Event {
        step: 0,
        event: "value-stage",
        reason: format!(
            "value head learned in {} steps: loss {:.4} to {:.4}",
            report.steps, report.first_loss, report.last_loss
        ),
    })?;
    remove_checkpoints(dir)?;
    Ok((head, Some(report)))
}

fn remove_checkpoints(dir: &Path) -> Result<(), PipelineError> {
    let checkpoints = dir.join(file::CHECKPOINTS);
    match fs::remove_dir_all(&checkpoints) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PipelineError::io("removing", &checkpoints)(error))
        }
        _ => Ok(()),
    }
}

/// Labelled solutions of an epoch; whole problems may make it a few more.
pub(super) fn solutions(config: &CriticConfig, data: &Dataset) -> usize {
    match config.max_solutions {
        0 => data.report().documents,
        most => most.min(data.report().documents),
    }
}

/// Optimizer steps of the value stage on `data`.
pub(super) fn planned_steps(config: &CriticConfig, data: &Dataset, seed: u64, micro_batch: usize) -> usize {
    let of_epoch = |epoch| {
        data.epoch_by_problem(seed, epoch, config.batch, micro_batch, config.max_solutions)
            .len()
    };
    let planned: usize = (0..config.epochs).map(of_epoch).sum();
    match config.max_steps {
        0 => planned,
        most => most.min(planned),
    }
}

/// The value head that the recipe names, if it names one.
pub(super) fn given_value_head(request: &Request, model_hash: &str) -> Result<Option<ValueHead>, PipelineError> {
    let critic = request.recipe.scorer.models_needed().value;
    let Some(path) = critic.and_then(|critic| critic.value_head.as_ref()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let path = if path.is_dir() {
        path.join(file::VALUE_HEAD)
    } else {
        path
    };
    // The stage that made it leaves a report beside it, which names its content.
    let report = path.with_file_name("report.json");
    let text = fs::read_to_string(&report).unwrap_or_default();
    let report_json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(stated) = report_json["value_head_sha256"].as_str() {
        let found = FileHash::of(&path).map_err(PipelineError::io("reading", &path))?.sha256;
        if found != stated {
            return Err(PipelineError::Setting(format!(
                "`{}` is damaged: its SHA-256 is {found}, and `{}` says {stated}; copy both again",
                path.display(),
                report.display()
            )));
        }
    }
    Ok(Some(ValueHead::load(&path, model_hash, &request.device)?))
}
