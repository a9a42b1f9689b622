//! The critic's value stage: a value head learns from labelled solutions, the model is frozen.
//!
//! It runs on the same loop as the weighted stage ([`super::train`]): checkpoints, the rule for steps that
//! are not finite, and exact resumption are the loop's.

use super::{
    StepBatch, StepOutput, Trainable, Validation, assign_stable_ids, forward::Forward, hidden_cache::HiddenCache,
    joint_value::head_1_ce, step::train_output,
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
    train::{InferenceStep, TrainOutput, TrainStep},
};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use wmtp_data::Batch;
use wmtp_device::to_f32;
use wmtp_model::{CausalLm, ModelError, MtpLlama, ValueHead};
use wmtp_run::file::VALUE_HEAD;
use wmtp_scorer::{
    CriticConfig, ScorerError, SequenceReward,
    critic::{CriticReport, Observations, loss},
};

/// A value head under training, on a frozen model.
#[derive(Module, Debug)]
pub struct ValueLearner {
    value: ValueHead,
    #[module(skip)]
    frozen: Frozen,
}

/// What does not learn.
#[derive(Clone)]
struct Frozen {
    /// Without autodiff.
    model: MtpLlama,
    model_hash: String,
    config: CriticConfig,
    rewards: Arc<Mutex<Box<dyn SequenceReward>>>,
    /// The model's device with autodiff.
    autodiff: Device,
    /// Of the documents that are learned from, if they come more than once.
    learned: Option<Arc<Mutex<HiddenCache>>>,
    /// Of the held-out ones.
    held_out: Arc<Mutex<HiddenCache>>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ValueLearner {
    /// A fresh head, drawn from `seed`, for `model`, which is without autodiff and whose hash is
    /// `model_hash`.
    pub fn new(
        model: MtpLlama,
        model_hash: String,
        config: CriticConfig,
        rewards: Box<dyn SequenceReward>,
        seed: u64,
    ) -> Self {
        let autodiff = model.device().autodiff();
        assign_stable_ids(Self {
            value: ValueHead::init(model.config().hidden_size, seed, &autodiff),
            frozen: Frozen {
                model,
                model_hash,
                config,
                rewards: Arc::new(Mutex::new(rewards)),
                autodiff,
                learned: None,
                held_out: Arc::default(),
            },
        })
    }

    /// Keeps the hidden states of documents that come again in later epochs, up to 1 GiB.
    pub fn keep_hidden_states(&mut self) {
        self.frozen.learned = Some(Arc::default());
    }

    /// Computes the hidden states of micro-batches that an interrupted stage saw in its first epoch, as it did
    /// then, so that it ends bit for bit as one that was not interrupted.
    ///
    /// # Errors
    /// The device fails.
    pub fn see(&self, batches: &[Batch]) -> Result<(), ScorerError> {
        batches.iter().try_for_each(|batch| self.hidden_again(batch).map(drop))
    }

    /// Hidden states to learn from, `[B, S, D]`: kept ones if all are there, else computed, and kept.
    fn hidden_again(&self, batch: &Batch) -> Result<Tensor<3>, ScorerError> {
        let Some(cache) = &self.frozen.learned else {
            return Ok(self.hidden(batch));
        };
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.frozen.model.config().hidden_size;
        if let Some((kept, _)) = cache.get(batch, size) {
            return Ok(self.tensor(kept, batch, size));
        }
        let hidden = self.hidden(batch);
        if cache.has_room(batch, size) {
            cache.keep(batch, size, &to_f32(hidden.clone())?, &[]);
        }
        Ok(hidden)
    }

    /// Hidden states and head 1's cross-entropy of held-out documents; as [`Self::hidden_again`].
    fn held_out(&self, batch: &Batch) -> Result<(Tensor<3>, Vec<f32>), ScorerError> {
        let mut cache = self.frozen.held_out.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.frozen.model.config().hidden_size;
        if let Some((kept, ce)) = cache.get(batch, size) {
            return Ok((self.tensor(kept, batch, size), ce));
        }
        let hidden = self.hidden(batch);
        let ce = head_1_ce(&self.frozen.model, hidden.clone(), batch)?;
        if cache.has_room(batch, size) {
            cache.keep(batch, size, &to_f32(hidden.clone())?, &ce);
        }
        Ok((hidden, ce))
    }

    fn tensor(&self, values: Vec<f32>, batch: &Batch, size: usize) -> Tensor<3> {
        let shape = [batch.rows, batch.seq_len, size];
        Tensor::from_data(TensorData::new(values, shape), &self.frozen.model.device())
    }

    /// The loss of one step over all its micro-batches; None if it has nothing to compare.
    fn loss(&self, batches: &[Batch]) -> Result<Option<Tensor<1>>, ScorerError> {
        let rewards = self.frozen.rewards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = Vec::with_capacity(batches.len());
        let mut all_rewards = Vec::with_capacity(batches.len());
        for batch in batches {
            // Minus the cross-entropy as reward needs the hidden states of all tokens.
            let needs_ce = rewards.needs().ce;
            let hidden = if needs_ce {
                self.hidden(batch)
            } else {
                self.hidden_again(batch)?
            };
            let ce = needs_ce
                .then(|| head_1_ce(&self.frozen.model, hidden.clone(), batch))
                .transpose()?;
            all_rewards.push(rewards.rewards(batch, ce.as_deref())?);
            let hidden = Tensor::from_inner(hidden).to_device(&self.frozen.autodiff);
            values.push(self.value.forward(hidden));
        }
        Ok(loss::of_step(values, batches, &all_rewards, &self.frozen.config)?)
    }

    fn gradients(&self, step: &StepBatch) -> Result<(GradientsParams, StepOutput), ScorerError> {
        let mut output = StepOutput {
            response_tokens: step.response_tokens(),
            tokens: step.tokens(),
            ..StepOutput::default()
        };
        let Some(loss) = self.loss(&step.micro_batches)? else {
            output.nothing_to_compare = true;
            return Ok((GradientsParams::new(), output));
        };
        output.loss = to_f32(loss.clone().inner())?.iter().map(|&l| f64::from(l)).sum();
        Ok((GradientsParams::from_grads(loss.backward(), self), output))
    }

    /// Head 1's hidden states, `[B, S, D]`.
    fn hidden(&self, batch: &Batch) -> Tensor<3> {
        let model = &self.frozen.model;
        Forward::of(model, batch, &model.device(), false).head_1_everywhere()
    }

    /// Values on held-out solutions.
    fn observations(&self, batches: &[Batch]) -> Result<Observations, ScorerError> {
        let rewards = self.frozen.rewards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Observations::default();
        for batch in batches {
            let (hidden, ce) = self.held_out(batch)?;
            let rewards = rewards.rewards(batch, Some(&ce))?;
            let values = to_f32(self.value.forward(hidden))?;
            seen.add(batch, &values, &ce, &rewards, &self.frozen.config);
        }
        Ok(seen)
    }
}

impl TrainStep for ValueLearner {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, item: StepBatch) -> TrainOutput<StepOutput> {
        train_output(self.gradients(&item))
    }
}

impl InferenceStep for ValueLearner {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, item: StepBatch) -> StepOutput {
        match self.observations(&item.micro_batches) {
            Ok(observations) => StepOutput {
                observations: Some(observations),
                ..StepOutput::default()
            },
            Err(error) => StepOutput::failed(error),
        }
    }
}

impl Trainable for ValueLearner {
    fn write(&self, dir: &Path) -> Result<(), ModelError> {
        let file = dir.join(VALUE_HEAD);
        self.value.valid().save(&file, &self.frozen.model_hash)
    }

    fn read(mut self, dir: &Path) -> Result<Self, ModelError> {
        let (hash, device) = (&self.frozen.model_hash, &self.frozen.autodiff);
        let value = ValueHead::load(&dir.join(VALUE_HEAD), hash, device)?;
        self.value = value.trainable(device);
        Ok(assign_stable_ids(self))
    }

    fn validation(&self, outputs: &[StepOutput]) -> Option<Validation> {
        let mut all = Observations::default();
        for observations in outputs.iter().filter_map(|out| out.observations.as_ref()) {
            all.append(observations);
        }
        all.report(&self.frozen.config)
            .map(|report| Validation::Values(Box::new(report)))
    }
}

/// What a value stage's metrics say of it as a whole, number for number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueMetrics {
    /// The losses of the steps, in order.
    pub losses: Vec<f64>,
    /// The figures on held-out solutions, each with its step.
    pub held_out: Vec<(usize, CriticReport)>,
}

impl ValueMetrics {
    /// From the text of `critic/metrics.jsonl`.
    pub fn read(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines() {
            if line.contains("\"held_out\":") {
                let step = number(line, "step").map_or(0, |step| step as usize);
                metrics.held_out.push((step, report(line)));
            } else {
                metrics.losses.extend(number(line, "loss"));
            }
        }
        metrics
    }
}

/// The number of a key in a line of JSON. `serde_json` reads floats to within a unit in the last place
/// only; what is parsed from the text itself is what was written.
fn number(line: &str, key: &str) -> Option<f64> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    rest.split([',', '}']).next()?.parse().ok()
}

fn report(line: &str) -> CriticReport {
    let count = |key| number(line, key).map_or(0, |count| count as usize);
    CriticReport {
        documents: count("documents"),
        tokens: count("tokens"),
        value_loss: number(line, "value_loss"),
        pairwise_loss: number(line, "pairwise_loss"),
        explained_variance: number(line, "explained_variance"),
        auroc_mean: number(line, "auroc_mean"),
        auroc_last: number(line, "auroc_last"),
        within_mean: number(line, "within_mean"),
        within_last: number(line, "within_last"),
        auroc_ce: number(line, "auroc_ce"),
        within_ce: number(line, "within_ce"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metrics_are_read_back_to_the_last_digit() {
        let held_out = CriticReport {
            documents: 16,
            tokens: 1302,
            value_loss: Some(0.243_184_279_102_345_67),
            pairwise_loss: None,
            explained_variance: Some(-0.012_345_678_901_234_567),
            auroc_mean: Some(2.0 / 3.0),
            auroc_last: Some(1.0),
            within_mean: Some(1e-7),
            within_last: None,
            auroc_ce: Some(0.1 + 0.2),
            within_ce: Some(0.0),
        };
        let (first, second) = (0.1 + 0.7, 1.0 / 3.0);
        let lines = [
            json!({"step": 1, "loss": first, "grad_norm": 0.5, "lr": 1e-3}),
            json!({"step": 2, "loss": f64::NAN, "grad_norm": f64::NAN, "lr": 1e-3, "applied": false}),
            json!({"step": 2, "held_out": held_out}),
            json!({"step": 3, "loss": second, "grad_norm": 0.5, "lr": 5e-4}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let expected = ValueMetrics {
            losses: vec![first, second],
            held_out: vec![(2, held_out)],
        };
        assert_eq!(ValueMetrics::read(&text), expected);
    }
}
