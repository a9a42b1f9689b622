//! Adds up a step's figures in f64 on the host.

use super::{StepBatch, StepOutput, histogram, loss::LossTerms};
use wmtp_data::Batch;
use wmtp_device::{ReadError, to_f32};
use wmtp_kernels::WeightedCrossEntropy;
use wmtp_scorer::{WeightStats, WeightsReport};

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

    /// Adds the loss of some heads, each given by its number and the positions in whose order the
    /// cross-entropies of `found` lie. Counted are those with a target and a weight.
    pub fn add_loss(
        &mut self,
        terms: &LossTerms,
        heads: &[(usize, Vec<usize>)],
        found: WeightedCrossEntropy,
    ) -> Result<(), ReadError> {
        self.output.loss += to_f32(found.loss)?.iter().map(|&l| f64::from(l)).sum::<f64>();
        let ce = to_f32(found.ce)?;
        let mut ce = ce.into_iter();
        for (k, positions) in heads {
            let counted = terms.counted(*k, positions);
            let of_head: Vec<f32> = counted
                .into_iter()
                .zip(ce.by_ref())
                .filter_map(|(counted, ce)| counted.then_some(ce))
                .collect();
            self.add_ce(k - 1, of_head.into_iter());
        }
        Ok(())
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
        self.output.weights = WeightStats::of(&self.weights);
        if !self.weights.is_empty() {
            self.output.weight_counts = histogram::counts(&self.weights);
        }
        self.output
    }
}
