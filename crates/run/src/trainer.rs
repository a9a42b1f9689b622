//! `trainer.json` of a checkpoint.

use serde::{Deserialize, Serialize};

/// Everything in addition to weights and optimizer state that a resumed run needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerState {
    /// Layout of this file.
    pub format: u32,
    /// Optimizer steps done, skipped ones included.
    pub step: usize,
    /// Epoch of the next step, from 0.
    pub epoch: usize,
    /// Steps of that epoch already done.
    pub step_in_epoch: usize,
    /// Tokens read.
    pub tokens: u64,
    /// Steps that were not applied.
    pub skipped: usize,
    /// Of those, how many in a row just now.
    pub skipped_in_a_row: usize,
    /// The same without an end at a return to a checkpoint: steps since the last one that was applied.
    #[serde(skip_serializing_if = "is_zero")]
    pub unapplied: usize,
    /// Returns to an earlier checkpoint.
    pub rollbacks: usize,
    /// Factor on the learning rate, halved by every rollback.
    pub lr_scale: f64,
    /// Groups weighed, and those among them that fell back to weight 1.
    pub groups: u64,
    /// See `groups`.
    pub fallbacks: u64,
    /// Best validation loss.
    pub best_loss: Option<f64>,
    /// Newest validation loss.
    pub valid_loss: Option<f64>,
    /// Validations since the best one.
    pub validations_without_improvement: usize,
    /// Size of `metrics.jsonl` when this was saved; a resumed run cuts it back to that.
    pub metrics_bytes: u64,
    /// What had been recorded in addition to the metrics; None in checkpoints older than this field.
    pub recorded: Option<Recorded>,
    /// True once training has ended.
    pub finished: bool,
    /// Why a run whose steps are all done failed: none of them was applied, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Names under which this checkpoint is kept as well. A run that ended before it was kept does so when resumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_as: Vec<String>,
    /// SHA-256 of the resolved recipe: another recipe does not continue this run.
    pub recipe: String,
    /// SHA-256 of the tokenised training data.
    pub data: String,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// How far `weights.jsonl` and `tokens.jsonl` were; a resumed run cuts them back to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Size of `weights.jsonl`.
    pub weights_bytes: u64,
    /// Size of `tokens.jsonl`.
    pub tokens_bytes: u64,
    /// Size of `steps.jsonl`.
    #[serde(default)]
    pub steps_bytes: u64,
    /// Step of its newest lines.
    pub step: usize,
    /// Tokens that had been read then.
    pub tokens: u64,
}

impl TrainerState {
    /// The state before the first step.
    pub fn new(recipe: String, data: String) -> Self {
        Self {
            format: 1,
            lr_scale: 1.0,
            recipe,
            data,
            ..Self::default()
        }
    }
}
