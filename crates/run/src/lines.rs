//! The lines of a run's JSON Lines files. A field that is absent is no error when read: a run of another
//! version may not have it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap};

/// A step's line of `metrics.jsonl`. Figures that are not finite are null.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepLine {
    /// Optimizer step, from 1.
    pub step: usize,
    /// Tokens read so far.
    #[serde(default)]
    pub tokens: u64,
    /// The weighted loss.
    #[serde(default)]
    pub loss: Option<f64>,
    /// What else the line has: the cross-entropy of each head, `ce_head_1`, ….
    #[serde(flatten)]
    pub other: Map<String, Value>,
    /// Mean, smallest and largest weight, and the entropy of their distribution.
    #[serde(default)]
    pub weight_mean: Option<f64>,
    /// See `weight_mean`.
    #[serde(default)]
    pub weight_min: Option<f64>,
    /// See `weight_mean`.
    #[serde(default)]
    pub weight_max: Option<f64>,
    /// See `weight_mean`.
    #[serde(default)]
    pub weight_entropy: Option<f64>,
    /// Groups whose scores were not finite.
    #[serde(default)]
    pub weight_fallbacks: usize,
    /// The value head's loss, where it is trained jointly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    /// Before clipping.
    #[serde(default)]
    pub grad_norm: Option<f64>,
    /// Learning rate.
    #[serde(default)]
    pub lr: f64,
    /// Learning rate of the value head, where it is trained jointly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Whether the model was updated.
    #[serde(default = "yes")]
    pub applied: bool,
    /// Tokens a second.
    #[serde(default)]
    pub tok_s: f64,
    /// Peak memory so far in bytes.
    #[serde(default)]
    pub mem: Option<u64>,
}

fn yes() -> bool {
    true
}

impl StepLine {
    /// Cross-entropies of the heads as fields of the line.
    pub fn heads(ce: &[f64]) -> Map<String, Value> {
        let named = ce.iter().zip(1..).map(|(&ce, k)| (ce_head(k), ce.into()));
        named.collect()
    }

    /// Head k's cross-entropy in nats.
    pub fn ce(&self, head: usize) -> Option<f64> {
        self.other.get(&ce_head(head)).and_then(Value::as_f64)
    }
}

fn ce_head(k: usize) -> String {
    format!("ce_head_{k}")
}

/// A validation's line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ValidLine {
    /// Optimizer steps before it.
    pub step: usize,
    /// Unweighted, mean over heads.
    pub valid_loss: Option<f64>,
    /// Each head's.
    #[serde(default)]
    pub valid_ce_heads: Vec<Option<f64>>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug)]
pub enum MetricsLine {
    /// Of a step.
    Step(Box<StepLine>),
    /// Of a validation.
    Valid(ValidLine),
}

impl MetricsLine {
    /// Reads a line.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(line: Value) -> serde_json::Result<Self> {
        if line.get("valid_loss").is_some() {
            serde_json::from_value(line).map(Self::Valid)
        } else {
            serde_json::from_value(line).map(|step| Self::Step(Box::new(step)))
        }
    }
}

/// Something that happened to a run.
#[derive(Clone, Debug)]
pub struct Event {
    /// Optimizer step.
    pub step: usize,
    /// Name of the event: `skip`, `rollback`, `resume`, `checkpoint`, ...
    pub event: &'static str,
    /// Why, for people.
    pub reason: String,
}

/// A line of `events.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Seconds since 1970.
    #[serde(default)]
    pub time: u64,
    /// Optimizer step.
    #[serde(default)]
    pub step: usize,
    /// `skip`, `rollback`, ….
    pub event: Cow<'static, str>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// The first line of `weights.jsonl`: the edges of the bins, rising.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EdgesLine {
    /// One more than there are bins.
    pub edges: Vec<f64>,
}

/// A histogram of `weights.jsonl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HistogramLine {
    /// Optimizer step.
    pub step: usize,
    /// Weights in each bin.
    pub counts: Vec<u64>,
}

/// A document at one moment, a line of `tokens.jsonl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TokensLine {
    /// Optimizer steps before it.
    pub step: usize,
    /// `train` or `valid`.
    #[serde(default)]
    pub split: String,
    /// Text of every token.
    pub tokens: Vec<String>,
    /// What was recorded of them.
    #[serde(flatten)]
    pub observed: Observed,
}

/// One document, token by token. All vectors of figures are over the response's tokens in order, null where
/// a figure is not finite or there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// The document's name.
    pub document: String,
    /// How many tokens are the prompt.
    pub prompt_tokens: usize,
    /// Every token's weight.
    pub weight: Vec<Option<f64>>,
    /// The scorer's `score`, and what it is made of.
    pub scores: BTreeMap<String, Vec<Option<f64>>>,
    /// Cross-entropy in nats of every token by each head, from head 1: that of head k is predicted from
    /// k tokens before.
    pub ce: Vec<Vec<Option<f64>>>,
    /// Why there are neither weights nor scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
