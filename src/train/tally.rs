//! A step's figures.

use super::{StepBatch, histogram, loss::to_f32};
use crate::{data::Batch, scorer::WeightsReport};
use burn::{
    tensor::{ExecutionError, Tensor},
    train::ItemLazy,
};

/// What a step computed, all on the host.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// The weighted loss; of a validation step the unweighted one.
    pub loss: f64,
    /// Unweighted mean cross-entropy in nats of each head, over its targets with a weight above 0.
    pub ce_heads: Vec<f64>,
    /// Response tokens (the denominator).
    pub response_tokens: usize,
    /// Tokens read.
    pub tokens: usize,
    /// Mean, smallest and largest weight and the entropy of their distribution, divided by that of
    /// equal weights. None in validation.
    pub weights: Option<WeightStats>,
    /// How many weights lie in each bin of [`histogram::edges`]. Empty in validation.
    pub weight_counts: Vec<u32>,
    /// Groups whose scores were not finite, with the first one's place.
    pub fallbacks: usize,
    /// Groups that were weighed.
    pub groups: usize,
    /// Where the first fallback happened: "document mbpp/601/reference, token 17".
    pub first_fallback: Option<String>,
    /// The value head's loss, where it is trained along.
    pub value_loss: Option<f64>,
    /// An error that ended the step early; everything else is then meaningless.
    pub failure: Option<String>,
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

/// Statistics of a step's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightStats {
    /// Mean, 1 up to 1e-4.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Entropy of w / sum w over the log of their number: 1 for equal weights.
    pub entropy: f64,
}

/// Adds up a step's figures in f64 on the host.
pub(super) struct Tally {
    pub output: StepOutput,
    pub ce_sums: Vec<f64>,
    ce_counts: Vec<usize>,
    weights: Vec<f32>,
}

impl Tally {
    pub fn new(heads: usize, step: &StepBatch) -> Self {
        let output = StepOutput {
            response_tokens: step.response_tokens(),
            tokens: step.tokens(),
            ..StepOutput::default()
        };
        Self {
            output,
            ce_sums: vec![0.0; heads],
            ce_counts: vec![0; heads],
            weights: Vec::new(),
        }
    }

    pub fn add_ce(&mut self, head: usize, ce: impl Iterator<Item = f32>) {
        for ce in ce {
            self.ce_sums[head] += f64::from(ce);
            self.ce_counts[head] += 1;
        }
    }

    /// `rows` are each head's number and its rows, in whose order `ce` lies.
    pub fn add_loss(
        &mut self,
        batch: &Batch,
        terms: &[f64],
        rows: &[(usize, Vec<usize>)],
        loss: Tensor<1>,
        ce: Tensor<1>,
    ) {
        self.output.loss += to_f32(loss).iter().map(|&l| f64::from(l)).sum::<f64>();
        let ce = to_f32(ce);
        let mut ce = ce.iter();
        let n = batch.tokens.len();
        for (k, rows) in rows {
            let (valid, terms) = (batch.valid(*k), &terms[(k - 1) * n..k * n]);
            let of_head = rows.iter().zip(ce.by_ref());
            let kept: Vec<f32> = of_head
                .filter_map(|(&row, &ce)| (valid[row] && terms[row] != 0.0).then_some(ce))
                .collect();
            self.add_ce(k - 1, kept.into_iter());
        }
    }

    pub fn add_weights(&mut self, report: &WeightsReport, batches: &[Batch]) {
        self.output.groups += report.groups;
        self.output.fallbacks += report.fallbacks.len();
        if self.output.first_fallback.is_none() {
            self.output.first_fallback = report
                .fallbacks
                .first()
                .map(|f| format!("{}, token {}", f.document, f.position));
        }
        for (batch, weights) in batches.iter().zip(&report.weights) {
            let response = batch.response.iter().zip(weights);
            self.weights.extend(response.filter_map(|(&r, &w)| r.then_some(w)));
        }
    }

    pub fn finish(mut self) -> StepOutput {
        self.output.ce_heads = self
            .ce_sums
            .iter()
            .zip(&self.ce_counts)
            .map(|(sum, &n)| if n == 0 { 0.0 } else { sum / n as f64 })
            .collect();
        if !self.weights.is_empty() {
            self.output.weights = Some(WeightStats::of(&self.weights));
            self.output.weight_counts = histogram::counts(&self.weights);
        }
        self.output
    }
}

impl WeightStats {
    /// Statistics of some weights; of none, all 0.
    pub fn of(weights: &[f32]) -> Self {
        let n = weights.len() as f64;
        let w = || weights.iter().map(|&w| f64::from(w));
        let sum: f64 = w().sum();
        let entropy: f64 = w().filter(|&w| w > 0.0).map(|w| -(w / sum) * (w / sum).ln()).sum();
        Self {
            mean: if n > 0.0 { sum / n } else { 0.0 },
            min: w().fold(f64::INFINITY, f64::min),
            max: w().fold(f64::NEG_INFINITY, f64::max),
            entropy: if n > 1.0 { entropy / n.ln() } else { 1.0 },
        }
    }
}
