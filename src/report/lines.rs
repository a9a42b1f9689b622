//! The lines of a run's files, as far as reports read them. A field that is absent is no error: a run of
//! another version may not have it.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A step's line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StepLine {
    /// Optimizer step, from 1.
    pub step: usize,
    /// Tokens read so far.
    #[serde(default)]
    pub tokens: u64,
    /// The weighted loss; None if it was not finite.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Smallest and largest weight, and the entropy of their distribution.
    #[serde(default)]
    pub weight_min: Option<f64>,
    /// See `weight_min`.
    #[serde(default)]
    pub weight_max: Option<f64>,
    /// See `weight_min`.
    #[serde(default)]
    pub weight_entropy: Option<f64>,
    /// Groups whose scores were not finite.
    #[serde(default)]
    pub weight_fallbacks: usize,
    /// The value head's loss, where it is trained along.
    #[serde(default)]
    pub value_loss: Option<f64>,
    /// Before clipping.
    #[serde(default)]
    pub grad_norm: Option<f64>,
    /// Learning rate.
    #[serde(default)]
    pub lr: f64,
    /// Whether the model was updated.
    #[serde(default = "yes")]
    pub applied: bool,
    /// Tokens a second.
    #[serde(default)]
    pub tok_s: f64,
    /// Peak memory so far in bytes.
    #[serde(default)]
    pub mem: Option<u64>,
    /// What else the line has: `ce_head_1`, ….
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl StepLine {
    /// Head k's cross-entropy in nats.
    pub fn ce(&self, head: usize) -> Option<f64> {
        self.other.get(&format!("ce_head_{head}")).and_then(Value::as_f64)
    }
}

/// A validation's line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ValidLine {
    /// After so many steps.
    pub step: usize,
    /// Unweighted, mean over heads.
    pub valid_loss: Option<f64>,
    /// Each head's.
    #[serde(default)]
    pub valid_ce_heads: Vec<Option<f64>>,
}

/// A line of `events.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct EventLine {
    /// Seconds since 1970.
    #[serde(default)]
    pub time: u64,
    /// Optimizer step.
    #[serde(default)]
    pub step: usize,
    /// `skip`, `rollback`, ….
    pub event: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// A histogram of `weights.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HistogramLine {
    /// Optimizer step.
    pub step: usize,
    /// Weights in each bin.
    pub counts: Vec<f64>,
}

/// A document at one moment, a line of `tokens.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TokensLine {
    /// After so many steps.
    pub step: usize,
    /// `train` or `valid`.
    #[serde(default)]
    pub split: String,
    /// Text of every token.
    pub tokens: Vec<String>,
    /// What was recorded of them.
    #[serde(flatten)]
    pub seen: crate::train::Observed,
}
