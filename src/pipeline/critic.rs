//! Stage 1 of the critic: a value head learned from labelled solutions, the model frozen.

use super::{
    PipelineError, TrainRequest,
    learn_value::{Learned, METRICS, Stage},
    scoring::reward,
    train::Prepared,
};
use crate::{
    data::{Dataset, Splits},
    scorer::{CriticConfig, critic::CriticReport},
    track::{Event, RunDir},
    train::{Progress, hex},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
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
    /// SHA-256 of the value head's file.
    pub value_head_sha256: String,
}

const FILE: &str = "value_head.safetensors";

/// Learns the value head, or takes the one that this run made before it was interrupted. `model` is frozen and without autodiff.
pub(super) fn value_stage(
    request: &TrainRequest,
    config: &CriticConfig,
    prepared: &Prepared,
    model: &MtpLlama,
    model_hash: &str,
    run: &RunDir,
    progress: &dyn Progress,
) -> Result<(ValueHead, Option<ValueReport>), PipelineError> {
    let dir = run.path().join("critic");
    let file = dir.join(FILE);
    // The report is written after the head, so it says that the head is whole.
    if dir.join("report.json").is_file() {
        return Ok((ValueHead::load(&file, model_hash, &request.device)?, None));
    }
    let splits = Splits::solutions(&prepared.data, &prepared.tokenizer)?;
    let stage = Stage {
        config,
        model,
        rewards: reward(config, request)?,
        device: request.device.clone(),
        micro_batch: prepared.shape.micro_batch,
        stop: &request.stop,
        progress,
        run,
    };
    fs::create_dir_all(&dir).map_err(|source| PipelineError::Io {
        what: "making",
        path: dir.clone(),
        source,
    })?;
    // A stage that was interrupted begins again.
    run.truncate(METRICS, 0)?;
    let Learned {
        head,
        losses,
        step,
        held_out,
    } = stage.learn(&splits.train, &splits.valid, request.seed)?;
    head.save(&file, model_hash)?;
    let bytes = fs::read(&file).map_err(|source| PipelineError::Io {
        what: "reading",
        path: file,
        source,
    })?;
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    let report = ValueReport {
        steps: losses.len(),
        kept_step: step,
        first_loss: losses.first().copied().unwrap_or(f64::NAN),
        last_loss: tail.iter().sum::<f64>() / tail.len().max(1) as f64,
        held_out,
        value_head_sha256: hex(&Sha256::digest(bytes)),
    };
    run.write_json("critic/report.json", &report)?;
    run.event(&Event {
        step: 0,
        event: "value-stage",
        reason: format!(
            "value head learned in {} steps: loss {:.4} to {:.4}",
            report.steps, report.first_loss, report.last_loss
        ),
    })?;
    Ok((head, Some(report)))
}

/// Optimizer steps of the value stage on `data`.
pub(super) fn planned_steps(config: &CriticConfig, data: &Dataset, seed: u64, micro_batch: usize) -> usize {
    let of_epoch = |epoch| data.epoch_by_problem(seed, epoch, config.batch, micro_batch).len();
    let planned: usize = (0..config.epochs).map(of_epoch).sum();
    match config.max_steps {
        0 => planned,
        most => most.min(planned),
    }
}
