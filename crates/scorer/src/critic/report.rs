//! How good a value head is, on problems that it was not trained on.

use super::{
    targets::value_tokens,
    values::{returns, token_rewards},
};
use crate::{CriticConfig, CriticLoss};
use wmtp_data::Batch;

pub use wmtp_base::statistics::auroc;

/// Figures of a value head on held-out solutions.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CriticReport {
    /// Solutions.
    pub documents: usize,
    /// Tokens with a value: responses and last prompt tokens.
    pub tokens: usize,
    /// Mean squared error of V against the return. None with `loss: pairwise`, which leaves V without
    /// a scale.
    pub value_loss: Option<f64>,
    /// `-log sigmoid(mean V(right) - mean V(wrong))`, the mean over all pairs of one problem. With
    /// `loss: pairwise` only.
    pub pairwise_loss: Option<f64>,
    /// `1 - Var(return - V) / Var(return)`: 1 perfect, 0 no better than a constant. None if the
    /// return is the same everywhere, or with `loss: pairwise`.
    pub explained_variance: Option<f64>,
    /// Area under the ROC curve of the response's mean V against the label; 0.5 is chance. None
    /// without both labels.
    pub auroc_mean: Option<f64>,
    /// The same of V at the last token.
    pub auroc_last: Option<f64>,
    /// Share of the pairs of a right and a wrong solution of one problem in which the right one has
    /// the larger mean V; equal ones count one half. None without a pair.
    pub within_mean: Option<f64>,
    /// The same of V at the last token.
    pub within_last: Option<f64>,
    /// The AUROC of minus the model's own mean cross-entropy of the response, which costs no
    /// training: what a value head has to beat.
    pub auroc_ce: Option<f64>,
    /// The share of pairs that it orders.
    pub within_ce: Option<f64>,
}

impl CriticReport {
    /// Whether mean V tells right from wrong better than the model's own likelihood, which costs no training: within
    /// problems where there are pairs, else across them. None without both figures.
    pub fn beats_likelihood(&self) -> Option<bool> {
        let within = self.within_mean.zip(self.within_ce);
        let (value, likelihood) = within.or(self.auroc_mean.zip(self.auroc_ce))?;
        Some(value > likelihood)
    }
}

/// One solution.
#[derive(Clone, Debug)]
struct Seen {
    problem: u32,
    label: Option<bool>,
    mean: f64,
    last: f64,
    minus_ce: f64,
}

/// Collects values and labels of held-out solutions.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    values: Vec<f64>,
    returns: Vec<f64>,
    solutions: Vec<Seen>,
}

impl Observations {
    /// Adds a micro-batch: values and the model's cross-entropy of token j, `[B * S]` both, and the
    /// reward R of each document. The label for AUROC and pairs is the verified one; documents
    /// without one are left out of those.
    pub fn add(&mut self, batch: &Batch, values: &[f32], ce: &[f32], rewards: &[f32], config: &CriticConfig) {
        for (document, &reward) in batch.documents.iter().zip(rewards) {
            let Some(tokens) = value_tokens(document, batch.seq_len) else {
                continue;
            };
            let Some([prompt, response @ ..]) = values.get(tokens) else {
                continue;
            };
            let own = std::iter::once(prompt).chain(response).map(|&v| f64::from(v));
            self.values.extend(own);
            let spread = token_rewards(f64::from(reward), response.len(), config.spread, config.gamma);
            self.returns.extend(returns(&spread, config.gamma));
            let mean = |of: &[f32]| of.iter().map(|&v| f64::from(v)).sum::<f64>() / of.len().max(1) as f64;
            let ce: Vec<f32> = batch.trained(document).filter_map(|i| ce.get(i)).copied().collect();
            self.solutions.push(Seen {
                problem: document.problem,
                label: document.reward.map(|r| r > 0.5),
                mean: mean(response),
                last: response.last().map_or(0.0, |&v| f64::from(v)),
                minus_ce: -mean(&ce),
            });
        }
    }

    /// Appends what `others` collected.
    pub fn append(&mut self, others: &Self) {
        self.values.extend(&others.values);
        self.returns.extend(&others.returns);
        self.solutions.extend(others.solutions.iter().cloned());
    }

    /// The figures; None if nothing was added.
    pub fn report(&self, config: &CriticConfig) -> Option<CriticReport> {
        if self.values.is_empty() {
            return None;
        }
        let has_scale = config.loss != CriticLoss::Pairwise;
        let errors: Vec<f64> = self.returns.iter().zip(&self.values).map(|(r, v)| r - v).collect();
        let value_loss = errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64;
        let spread = variance(&self.returns);
        let area = |score: fn(&Seen) -> f64| {
            let labelled = self.solutions.iter();
            let labelled: Vec<(f64, bool)> = labelled.filter_map(|s| Some((score(s), s.label?))).collect();
            auroc(&labelled)
        };
        let pairs = |of: fn(&Seen) -> f64, figure: fn(f64) -> f64| self.over_pairs(of, figure);
        Some(CriticReport {
            documents: self.solutions.len(),
            tokens: self.values.len(),
            value_loss: has_scale.then_some(value_loss),
            pairwise_loss: (!has_scale).then(|| pairs(|s| s.mean, softplus_of_minus)).flatten(),
            explained_variance: (has_scale && spread > 0.0).then(|| 1.0 - variance(&errors) / spread),
            auroc_mean: area(|s| s.mean),
            auroc_last: area(|s| s.last),
            within_mean: pairs(|s| s.mean, ordered),
            within_last: pairs(|s| s.last, ordered),
            auroc_ce: area(|s| s.minus_ce),
            within_ce: pairs(|s| s.minus_ce, ordered),
        })
    }

    /// The mean of `figure` of the difference right less wrong, over all pairs of one problem.
    fn over_pairs(&self, score: fn(&Seen) -> f64, figure: fn(f64) -> f64) -> Option<f64> {
        let of = |label: bool| self.solutions.iter().filter(move |s| s.label == Some(label));
        let (mut sum, mut pairs) = (0.0, 0usize);
        for right in of(true) {
            for wrong in of(false).filter(|wrong| wrong.problem == right.problem) {
                sum += figure(score(right) - score(wrong));
                pairs += 1;
            }
        }
        (pairs > 0).then(|| sum / pairs as f64)
    }
}

/// 1 if the right solution is above, one half if both are equal.
fn ordered(difference: f64) -> f64 {
    match difference.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Equal) => 0.5,
        _ => 0.0,
    }
}

/// `-log sigmoid(x)`.
fn softplus_of_minus(x: f64) -> f64 {
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

fn variance(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
}
