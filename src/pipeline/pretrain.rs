//! The unweighted stage of a model that starts from random weights: every token weighs 1. What a value head
//! learns from, and what rho1 compares with, is the model that it leaves.
//!
//! `pretrain/checkpoints/last` is that model, a model directory like every checkpoint. The stage resumes at
//! its newest checkpoint, and is not done again once its report is written.

use super::{
    PipelineError,
    model_dirs::ModelDir,
    request::{Prepared, Request},
    start::companions,
    steps::{TrainSteps, ValidSteps},
    value_stage::newest,
};
use crate::{
    run::{CheckpointStore, Event, RunDir, TrainerState, file},
    scorer::{Normaliser, ScorerConfig, WeightsConfig},
    settings::Pipeline,
    train::{
        Assets, CheckpointConfig, EarlyStoppingConfig, LossConfig, OptimConfig, Plan, Samples, SessionSetup, Stage,
        StepLoader, TokenWeighting, TrainConfig, TrainError, WeightedMtp, assign_stable_ids, train,
    },
};
use serde::Serialize;
use std::{fs, sync::Arc};
use wmtp_model::{CausalLm, MtpLlama};

/// What the stage did.
#[derive(Clone, Debug, Serialize)]
pub struct PretrainReport {
    /// Optimizer steps.
    pub steps: usize,
    /// Last validation loss (unweighted, mean over heads, nats).
    pub valid_loss: Option<f64>,
    /// Tokens read.
    pub tokens: u64,
}

/// Trains `model` without weights, resumes that where it was interrupted, or finds it done. Returns the
/// directory of the model that it left.
pub(super) fn pretrain(
    request: &Request,
    prepared: &Prepared,
    model: MtpLlama,
    model_hash: &str,
    run: &RunDir,
    recipe_id: &str,
) -> Result<ModelDir, PipelineError> {
    let dir = run.file(file::PRETRAIN);
    let checkpoints = dir.join(file::CHECKPOINTS);
    let left = ModelDir {
        dir: checkpoints.join(file::LAST),
        base: None,
    };
    if run.file(file::PRETRAIN_REPORT).is_file() {
        return Ok(left);
    }
    fs::create_dir_all(&dir).map_err(PipelineError::io("making", &dir))?;
    let recipe = &request.recipe;
    let total_steps = recipe.train.pretrain.steps;
    let of = match request.pipeline {
        Pipeline::Rho1 if request.model_dirs.reference.is_none() => "the reference model",
        _ => "the model",
    };
    request
        .progress
        .message(&format!("pretraining: {of}, unweighted, {total_steps} steps"));
    let store = CheckpointStore::open(checkpoints)?;
    let data = &prepared.splits.train;
    let fresh = TrainerState::new(recipe_id.into(), data.hash().into());
    let (start, resume) = newest(run, "pretrain", &store, fresh)?;
    let ragged = model.attends_by_document();
    let scorer = ScorerConfig::default().build(Default::default())?;
    let normaliser = Normaliser::new(WeightsConfig::default())?;
    let loss = LossConfig {
        lambda: 0.0,
        ..recipe.loss.clone()
    };
    let weighting = TokenWeighting::new(scorer, normaliser, recipe.weights.over, loss, None);
    let assets = Assets {
        companions: companions(request, &prepared.tokenizer)?,
        model_hash: model_hash.to_owned(),
        lora: None,
    };
    let module = WeightedMtp::new(model, None, weighting, assets).with_heads(recipe.train.heads);
    let steps_of_epoch = data.epoch(request.seed(), 0, prepared.shape).len().max(1);
    let setup = SessionSetup {
        plan: Plan {
            stage: Stage::Pretrain,
            optim: OptimConfig {
                lr: recipe.train.pretrain.lr.unwrap_or(recipe.optim.lr),
                ..recipe.optim.clone()
            },
            train: TrainConfig {
                checkpoint: CheckpointConfig {
                    every: 0,
                    last_every: recipe.train.checkpoint.last_every,
                    best: false,
                    ..CheckpointConfig::default()
                },
                early_stopping: EarlyStoppingConfig::default(),
                head_warmup: Default::default(),
                ..recipe.train.clone()
            },
            fallback: recipe.fallback.clone(),
            value_lr: None,
            total_steps,
            max_epochs: None,
            scorer: "uniform".into(),
            max_fallback_share: 0.0,
        },
        loader: StepLoader::new(Arc::new(TrainSteps {
            data: data.clone(),
            labelled: None,
            seed: request.seed(),
            shape: prepared.shape,
            ragged,
        })),
        valid: StepLoader::new(Arc::new(ValidSteps::new(
            &prepared.splits.valid,
            recipe.train.validate_documents,
            prepared.shape.micro_batch,
            ragged,
        ))),
        run: run.clone(),
        store,
        start,
        resume,
        progress: request.progress.clone(),
        stop: request.stop.clone(),
        samples: Samples::default(),
        names: Default::default(),
    };
    let state = train(assign_stable_ids(module), setup, total_steps.div_ceil(steps_of_epoch))?;
    if !state.finished {
        return Err(PipelineError::Stopped { run: run.path().into() });
    }
    if let Some(problem) = state.failed {
        return Err(TrainError::Failed {
            step: state.step,
            problem,
        }
        .into());
    }
    let report = PretrainReport {
        steps: state.step,
        valid_loss: state.valid_loss,
        tokens: state.tokens,
    };
    run.write_json(file::PRETRAIN_REPORT, &report)?;
    run.event(&Event {
        step: 0,
        event: "pretrain",
        reason: format!("{of} learned without weights in {} steps", report.steps),
    })?;
    Ok(left)
}
