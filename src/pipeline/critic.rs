//! Stage 1 of the critic: a value head learned from labelled solutions, the model frozen.

use super::{PipelineError, TrainRequest, scoring::reward, train::Prepared};
use crate::{
    data::{Batch, Dataset, Splits},
    scorer::{
        CriticConfig, CriticLoss, SequenceReward,
        critic::{CriticReport, Observations, loss, targets},
    },
    stop::Stop,
    track::{Event, RunDir},
    train::{
        GradientScale, OptimConfig, Progress, ValueStep, adamw, assign_stable_ids, clip_factor, grads, hex,
        loss::{HeadStates, to_f32, token_ce},
        packed, rates, unpadded,
    },
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
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
    };
    let (head, mut report) = stage.learn(&splits.train, request.seed)?;
    report.held_out = stage.observe(&head, &splits.valid)?;
    fs::create_dir_all(&dir).map_err(|source| PipelineError::Io {
        what: "making",
        path: dir.clone(),
        source,
    })?;
    head.save(&file, model_hash)?;
    let bytes = fs::read(&file).map_err(|source| PipelineError::Io {
        what: "reading",
        path: file,
        source,
    })?;
    report.value_head_sha256 = hex(&Sha256::digest(bytes));
    run.write_json("critic/report.json", &report)?;
    run.event(&Event {
        step: 0,
        event: "value-stage",
        reason: format!(
            "value head learned in {} steps: loss {:.4} to {:.4}",
            report.steps, report.first_loss, report.last_loss
        ),
    })?;
    stage.show_report(&report);
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

struct Stage<'a> {
    config: &'a CriticConfig,
    model: &'a MtpLlama,
    rewards: Box<dyn SequenceReward>,
    device: Device,
    micro_batch: usize,
    stop: &'a Stop,
    progress: &'a dyn Progress,
}

impl Stage<'_> {
    fn learn(&self, data: &Dataset, seed: u64) -> Result<(ValueHead, ValueReport), PipelineError> {
        let autodiff = self.device.clone().autodiff();
        let size = self.model.config().hidden_size;
        let mut head = Some(assign_stable_ids(ValueHead::init(size, seed, &autodiff)));
        let settings = OptimConfig {
            lr: self.config.lr,
            weight_decay: 0.0,
            ..OptimConfig::default()
        };
        let clip = GradientScale::default();
        let mut optimizer = adamw(&settings, &clip).map_err(PipelineError::Setting)?;
        let total = planned_steps(self.config, data, seed, self.micro_batch);
        self.progress.message(&format!(
            "value stage: {} labelled solutions, {total} steps",
            data.report().documents
        ));
        let mut losses = Vec::with_capacity(total);
        'epochs: for epoch in 0..self.config.epochs {
            let steps = data.epoch_by_problem(seed, epoch, self.config.batch, self.micro_batch);
            for index in 0..steps.len() {
                if losses.len() >= total {
                    break 'epochs;
                }
                if self.stop.is_asked() {
                    return Err(PipelineError::Stopped);
                }
                let Some(current) = head.take() else { break 'epochs };
                let Some(loss) = self.loss(&current, &self.batches(steps.step(index)), &autodiff)? else {
                    head = Some(current);
                    continue;
                };
                let value = to_f32(loss.clone().inner()).iter().map(|&l| f64::from(l)).sum::<f64>();
                let gradients = GradientsParams::from_grads(loss.backward(), &current);
                let norm = grads::global_norm(&current, &gradients);
                if !(value.is_finite() && norm.is_finite()) {
                    return Err(PipelineError::Setting(format!(
                        "the value stage's loss is {value} and its gradient norm {norm} at step {}; lower `scorer.lr`",
                        losses.len()
                    )));
                }
                clip.set(clip_factor(norm, 1.0));
                let lr = crate::train::learning_rate(&settings, losses.len(), total);
                let rates = rates(lr, None).map_err(PipelineError::Setting)?;
                head = Some(optimizer.step(rates, current, gradients));
                losses.push(value);
                self.progress.value_step(&ValueStep {
                    step: losses.len(),
                    total,
                    loss: value,
                    norm,
                    lr,
                });
            }
        }
        let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
        let report = ValueReport {
            steps: losses.len(),
            first_loss: losses.first().copied().unwrap_or(f64::NAN),
            last_loss: tail.iter().sum::<f64>() / tail.len().max(1) as f64,
            held_out: None,
            value_head_sha256: String::new(),
        };
        let head = head
            .map(|head| head.valid())
            .ok_or_else(|| PipelineError::Setting("the value stage lost its head".into()))?;
        Ok((head, report))
    }

    fn batches(&self, step: Vec<Batch>) -> Vec<Batch> {
        let batches = step.iter();
        batches.map(|batch| unpadded(self.model, batch).into_owned()).collect()
    }

    /// The loss of one step over all its micro-batches; None if it has nothing to compare.
    fn loss(&self, head: &ValueHead, batches: &[Batch], autodiff: &Device) -> Result<Option<Tensor<1>>, PipelineError> {
        let mut values = Vec::with_capacity(batches.len());
        let mut rewards = Vec::with_capacity(batches.len());
        for batch in batches {
            let (hidden, reward) = self.hidden_and_rewards(batch)?;
            values.push(head.forward(Tensor::from_inner(hidden).to_device(autodiff)));
            rewards.push(reward);
        }
        if self.config.loss == CriticLoss::Pairwise {
            return Ok(loss::pairwise(&values, batches, &rewards).map(|(loss, _)| loss));
        }
        let targets: Vec<_> = values
            .iter()
            .zip(batches)
            .zip(&rewards)
            .map(|((v, batch), r)| targets(batch, &to_f32(v.clone().inner().flatten(0, 1)), r, self.config))
            .collect();
        let denominator = targets.iter().map(loss::count).sum();
        let of = if self.config.loss == CriticLoss::Huber {
            loss::huber
        } else {
            loss::mse
        };
        let losses = values.into_iter().zip(&targets).map(|(v, t)| of(v, t, denominator));
        Ok(losses.reduce(|a, b| a + b))
    }

    fn hidden_and_rewards(&self, batch: &Batch) -> Result<(Tensor<3>, Vec<f32>), PipelineError> {
        let input = packed(batch, &self.device);
        let context = self.model.context(&input);
        let hidden = self.model.head(1, self.model.trunk(&input, &context), &context);
        let ce = self
            .rewards
            .needs()
            .ce
            .then(|| HeadStates::everywhere(1, hidden.clone()))
            .map(|head| token_ce(head, self.model.unembedding(), batch, self.model.compute()));
        let rewards = self.rewards.rewards(batch, ce.as_deref())?;
        Ok((hidden, rewards))
    }

    fn observe(&self, head: &ValueHead, data: &Dataset) -> Result<Option<CriticReport>, PipelineError> {
        let mut seen = Observations::default();
        for batch in data.in_order(self.micro_batch) {
            let batch = unpadded(self.model, &batch);
            let (hidden, rewards) = self.hidden_and_rewards(&batch)?;
            seen.add(
                &batch,
                &to_f32(head.forward(hidden).flatten(0, 1)),
                &rewards,
                self.config,
            );
        }
        Ok(seen.report())
    }

    fn show_report(&self, report: &ValueReport) {
        if let Some(r) = &report.held_out {
            let or_dash = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
            self.progress.message(&format!(
                "value head on {} held-out solutions: loss {:.4}, explained variance {}, AUROC of mean V {}, of last V {}",
                r.documents,
                r.value_loss,
                or_dash(r.explained_variance),
                or_dash(r.auroc_mean),
                or_dash(r.auroc_last)
            ));
        }
    }
}
