//! What the training loop needs of a module.

use super::{StepBatch, StepOutput};
use burn::{
    module::Module,
    train::{InferenceStep, TrainStep},
};
use serde_json::{Value, json};
use std::{fmt::Display, path::Path};
use wmtp_data::Batch;
use wmtp_device::ReadError;
use wmtp_model::ModelError;
use wmtp_run::{Observed, ValidLine};
use wmtp_scorer::critic::CriticReport;

/// A module that the training loop can train and checkpoint.
pub trait Trainable:
    TrainStep<Input = StepBatch, Output = StepOutput>
    + InferenceStep<Input = StepBatch, Output = StepOutput>
    + Module
    + Display
    + 'static
{
    /// Writes the module's files into a checkpoint's directory, bit for bit.
    ///
    /// # Errors
    /// A file cannot be written.
    fn write(&self, dir: &Path) -> Result<(), ModelError>;

    /// The module with the weights that [`Trainable::write`] left in a directory.
    ///
    /// # Errors
    /// A file cannot be read, or is another model's.
    fn read(self, dir: &Path) -> Result<Self, ModelError>;

    /// The figures of a validation from the outputs of its steps; None if there is nothing to measure.
    fn validation(&self, outputs: &[StepOutput]) -> Option<Validation>;

    /// What it makes of some documents, token by token, for reports, after `step` optimizer steps. It
    /// changes nothing that later steps depend on.
    ///
    /// # Errors
    /// The device failed.
    fn observe(&self, _batches: &[Batch], _step: usize) -> Result<Vec<Observed>, ReadError> {
        Ok(Vec::new())
    }
}

/// What a validation found.
#[derive(Clone, Debug, PartialEq)]
pub enum Validation {
    /// Of a model: its unweighted loss on held-out documents.
    Loss {
        /// Mean over heads and response tokens, in nats.
        loss: f64,
        /// Each head's cross-entropy in nats.
        ce_heads: Vec<f64>,
    },
    /// Of a value head: its figures on held-out solutions.
    Values(Box<CriticReport>),
}

impl Validation {
    /// The mean over the validation's steps, each weighted by its response tokens.
    pub(super) fn mean_loss(outputs: &[StepOutput]) -> Self {
        let (mut sum, mut tokens) = (0.0, 0usize);
        let mut ce_heads: Vec<f64> = Vec::new();
        for out in outputs {
            let n = out.response_tokens;
            sum += out.loss * n as f64;
            tokens += n;
            ce_heads.resize(out.ce_heads.len(), 0.0);
            let heads = ce_heads.iter_mut().zip(&out.ce_heads);
            heads.for_each(|(sum, ce)| *sum += ce * n as f64);
        }
        ce_heads.iter_mut().for_each(|sum| *sum /= tokens.max(1) as f64);
        Self::Loss {
            loss: sum / tokens.max(1) as f64,
            ce_heads,
        }
    }

    /// What `best` and early stopping compare: lower is better. Of a value head, the order of right and
    /// wrong solutions, negated; the largest number if nothing can be put in order.
    pub(super) fn figure(&self) -> f64 {
        match self {
            Self::Loss { loss, .. } => *loss,
            Self::Values(report) => report
                .within_mean
                .or(report.auroc_mean)
                .map_or(f64::MAX, |order| -order),
        }
    }

    /// Its line of metrics.
    pub(super) fn line(&self, step: usize) -> Value {
        match self {
            Self::Loss { loss, ce_heads } => json!(ValidLine {
                step,
                valid_loss: Some(*loss),
                valid_ce_heads: ce_heads.iter().copied().map(Some).collect(),
            }),
            Self::Values(report) => json!({"step": step, "held_out": report}),
        }
    }
}
