//! Stage 1's loop: steps over labelled solutions, figures on held-out ones along the way.

use super::{PipelineError, critic::planned_steps};
use crate::{
    data::{Batch, Dataset},
    scorer::{
        CriticConfig, CriticLoss, SequenceReward,
        critic::{CriticReport, Observations, loss},
    },
    stop::Stop,
    track::RunDir,
    train::{
        GradientScale, OptimConfig, Progress, ValueStep, adamw, assign_stable_ids, clip_factor, grads, learning_rate,
        loss::{HeadStates, to_f32, token_ce},
        packed, rates, unpadded,
    },
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use serde_json::json;
use wmtp_model::{MtpLlama, ValueHead};

/// A line a step and one a held-out evaluation, in the run's directory.
pub(super) const METRICS: &str = "critic/metrics.jsonl";

/// What is learned from, and with.
pub(super) struct Stage<'a> {
    pub config: &'a CriticConfig,
    /// Frozen, without autodiff.
    pub model: &'a MtpLlama,
    pub rewards: Box<dyn SequenceReward>,
    pub device: Device,
    pub micro_batch: usize,
    pub stop: &'a Stop,
    pub progress: &'a dyn Progress,
    pub run: &'a RunDir,
}

/// A head that has learned.
pub(super) struct Learned {
    pub head: ValueHead,
    /// The loss of every step.
    pub losses: Vec<f64>,
    /// The step that the head is of.
    pub step: usize,
    /// Figures of this head; None without held-out solutions.
    pub held_out: Option<CriticReport>,
}

/// The best head so far, and how long ago it was.
#[derive(Default)]
struct Best {
    kept: Option<(ValueHead, usize, CriticReport)>,
    since: usize,
}

impl Best {
    /// True if the order of right and wrong solutions is better than before.
    fn add(&mut self, head: &ValueHead, step: usize, report: &CriticReport) -> bool {
        let order = |report: &CriticReport| report.within_mean.or(report.auroc_mean).unwrap_or(f64::NEG_INFINITY);
        let improved = self.kept.as_ref().is_none_or(|(.., best)| order(report) > order(best));
        if improved {
            self.kept = Some((head.clone(), step, report.clone()));
            self.since = 0;
        } else {
            self.since += 1;
        }
        improved
    }
}

impl Stage<'_> {
    /// Learns from `train` and is looked at with `held_out`, twice an epoch and at the end.
    pub fn learn(&self, train: &Dataset, held_out: &Dataset, seed: u64) -> Result<Learned, PipelineError> {
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
        let total = planned_steps(self.config, train, seed, self.micro_batch);
        self.progress.message(&format!(
            "value stage: {} labelled solutions, {total} steps",
            train.report().documents
        ));
        let every = total.div_ceil(2 * self.config.epochs.max(1)).max(1);
        let mut losses = Vec::with_capacity(total);
        let (mut best, mut last) = (Best::default(), None);
        'epochs: for epoch in 0..self.config.epochs {
            let steps = train.epoch_by_problem(seed, epoch, self.config.batch, self.micro_batch);
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
                let lr = learning_rate(&settings, losses.len(), total);
                let rates = rates(lr, None).map_err(PipelineError::Setting)?;
                let learned = optimizer.step(rates, current, gradients);
                losses.push(value);
                let step = losses.len();
                let line = json!({"step": step, "loss": value, "grad_norm": norm, "lr": lr});
                self.run.append(METRICS, &line)?;
                self.progress.value_step(&ValueStep {
                    step,
                    total,
                    loss: value,
                    norm,
                    lr,
                });
                if step.is_multiple_of(every) || step == total {
                    last = self.look(&learned.valid(), held_out, step)?;
                    if let Some(report) = &last
                        && !best.add(&learned.valid(), step, report)
                        && self.config.patience > 0
                        && best.since >= self.config.patience
                    {
                        self.progress.message(&format!(
                            "value stage: stopped at step {step}, {} evaluations without improvement",
                            best.since
                        ));
                        head = Some(learned);
                        break 'epochs;
                    }
                }
                head = Some(learned);
            }
        }
        if losses.is_empty() {
            return Err(PipelineError::Setting(
                "the value stage has no step to learn from: no problem has both a right and a wrong solution".into(),
            ));
        }
        self.result(head.map(|head| head.valid()), losses, best, last, held_out)
    }

    /// The head to go on with: the last one, or with `scorer.patience` the best.
    fn result(
        &self,
        head: Option<ValueHead>,
        losses: Vec<f64>,
        best: Best,
        last: Option<CriticReport>,
        held_out: &Dataset,
    ) -> Result<Learned, PipelineError> {
        let step = losses.len();
        if self.config.patience > 0
            && let Some((head, step, report)) = best.kept
        {
            return Ok(Learned {
                head,
                losses,
                step,
                held_out: Some(report),
            });
        }
        let head = head.ok_or_else(|| PipelineError::Setting("the value stage lost its head".into()))?;
        let held_out = match last {
            // Where steps had nothing to compare, the last one may come before its turn.
            None => self.look(&head, held_out, step)?,
            seen => seen,
        };
        Ok(Learned {
            head,
            losses,
            step,
            held_out,
        })
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
            let hidden = self.hidden(batch);
            let ce = self.rewards.needs().ce.then(|| self.ce(&hidden, batch));
            rewards.push(self.rewards.rewards(batch, ce.as_deref())?);
            values.push(head.forward(Tensor::from_inner(hidden).to_device(autodiff)));
        }
        Ok(loss::of_step(values, batches, &rewards, self.config))
    }

    /// Head 1's hidden states, `[B, S, D]`.
    fn hidden(&self, batch: &Batch) -> Tensor<3> {
        let input = packed(batch, &self.device);
        let context = self.model.context(&input);
        self.model.head(1, self.model.trunk(&input, &context), &context)
    }

    /// Head 1's cross-entropy of token j, `[B * S]`.
    fn ce(&self, hidden: &Tensor<3>, batch: &Batch) -> Vec<f32> {
        let head = HeadStates::everywhere(1, hidden.clone());
        token_ce(head, self.model.unembedding(), batch, self.model.compute())
    }

    /// Figures on held-out solutions, written down and printed; None without any.
    fn look(&self, head: &ValueHead, data: &Dataset, step: usize) -> Result<Option<CriticReport>, PipelineError> {
        let mut seen = Observations::default();
        for batch in data.in_order(self.micro_batch) {
            let batch = unpadded(self.model, &batch);
            let hidden = self.hidden(&batch);
            let ce = self.ce(&hidden, &batch);
            let rewards = self.rewards.rewards(&batch, Some(&ce))?;
            let values = to_f32(head.forward(hidden).flatten(0, 1));
            seen.add(&batch, &values, &ce, &rewards, self.config);
        }
        let report = seen.report(self.config);
        if let Some(report) = &report {
            self.run.append(METRICS, &json!({"step": step, "held_out": report}))?;
            self.show(step, report);
        }
        Ok(report)
    }

    fn show(&self, step: usize, report: &CriticReport) {
        let or_dash = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
        let loss = match self.config.loss {
            CriticLoss::Pairwise => format!("pairwise loss {}", or_dash(report.pairwise_loss)),
            CriticLoss::Mse | CriticLoss::Huber => format!(
                "squared error {}, explained variance {}",
                or_dash(report.value_loss),
                or_dash(report.explained_variance)
            ),
        };
        self.progress.message(&format!(
            "value step {step:>4}  on {} held-out solutions: {loss}; AUROC of mean V {}, of last V {}, of minus the model's own CE {}; pairs of one problem in order {}, {}, {}",
            report.documents,
            or_dash(report.auroc_mean),
            or_dash(report.auroc_last),
            or_dash(report.auroc_ce),
            or_dash(report.within_mean),
            or_dash(report.within_last),
            or_dash(report.within_ce),
        ));
    }
}
