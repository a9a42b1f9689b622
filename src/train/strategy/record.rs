//! What a session writes down: a line of metrics a step, and events with their reasons.

use super::{TrainError, Trainable, session::Session};
use crate::{
    track::Event,
    train::{StepOutput, TrainStepDone},
};
use serde::Serialize;

/// One line of `metrics.jsonl`.
#[derive(Serialize)]
struct MetricsLine {
    step: usize,
    tokens: u64,
    loss: Option<f64>,
    #[serde(flatten)]
    ce: serde_json::Map<String, serde_json::Value>,
    weight_mean: Option<f64>,
    weight_min: Option<f64>,
    weight_max: Option<f64>,
    weight_entropy: Option<f64>,
    weight_fallbacks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_loss: Option<f64>,
    grad_norm: Option<f64>,
    lr: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_lr: Option<f64>,
    applied: bool,
    tok_s: f64,
    mem: Option<u64>,
}

/// The learning rates of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// The model's.
    pub lr: f64,
    /// The value head's, where it is trained along.
    pub value_lr: Option<f64>,
}

impl<M: Trainable> Session<'_, M> {
    pub(super) fn record(
        &self,
        item: &StepOutput,
        norm: f64,
        Rates { lr, value_lr }: Rates,
        applied: bool,
        seconds: f64,
    ) -> Result<(), TrainError> {
        let finite = |x: f64| x.is_finite().then_some(x);
        let ce = item
            .ce_heads
            .iter()
            .enumerate()
            .map(|(k, &ce)| (format!("ce_head_{}", k + 1), ce.into()))
            .collect();
        let line = MetricsLine {
            step: self.state.step,
            tokens: self.state.tokens,
            loss: finite(item.loss),
            ce,
            weight_mean: item.weights.map(|w| w.mean),
            weight_min: item.weights.map(|w| w.min),
            weight_max: item.weights.map(|w| w.max),
            weight_entropy: item.weights.map(|w| w.entropy),
            weight_fallbacks: item.fallbacks,
            value_loss: item.value_loss.and_then(finite),
            grad_norm: finite(norm),
            lr,
            value_lr,
            applied,
            tok_s: item.tokens as f64 / seconds,
            mem: crate::track::peak_memory(),
        };
        self.strategy.progress.step(&TrainStepDone {
            step: self.state.step,
            total: self.strategy.plan.total_steps,
            item,
            norm,
            lr,
            tok_s: line.tok_s,
            memory: line.mem,
        });
        Ok(self.strategy.run.metrics(self.state.step, &line)?)
    }

    pub(super) fn log(&self, event: &'static str, reason: String) -> Result<(), TrainError> {
        self.strategy.progress.event(event, &reason);
        Ok(self.strategy.run.event(&Event {
            step: self.state.step,
            event,
            reason,
        })?)
    }
}
