//! How good a value head is, on problems that it was not trained on.

use super::{
    targets::value_tokens,
    values::{returns, token_rewards},
};
use crate::{data::Batch, scorer::CriticConfig};

/// Figures of a value head on held-out solutions.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CriticReport {
    /// Solutions.
    pub documents: usize,
    /// Tokens with a value: responses and last prompt tokens.
    pub tokens: usize,
    /// Mean squared error of V against the return.
    pub value_loss: f64,
    /// `1 - Var(return - V) / Var(return)`: 1 perfect, 0 no better than a constant. None if the
    /// return is the same everywhere.
    pub explained_variance: Option<f64>,
    /// Area under the ROC curve of the response's mean V against the label; 0.5 is chance. None
    /// without both labels.
    pub auroc_mean: Option<f64>,
    /// The same of V at the last token.
    pub auroc_last: Option<f64>,
}

/// Collects values and labels of held-out solutions.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    values: Vec<f64>,
    returns: Vec<f64>,
    means: Vec<f64>,
    lasts: Vec<f64>,
    labels: Vec<Option<bool>>,
}

impl Observations {
    /// Adds a micro-batch: values `[B * S]` and the reward R of each document. The label for AUROC
    /// is the verified one; documents without one are left out of AUROC alone.
    pub fn add(&mut self, batch: &Batch, values: &[f32], rewards: &[f32], config: &CriticConfig) {
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
            let sum: f64 = response.iter().map(|&v| f64::from(v)).sum();
            self.means.push(sum / response.len().max(1) as f64);
            self.lasts.push(response.last().map_or(0.0, |&v| f64::from(v)));
            self.labels.push(document.reward.map(|r| r > 0.5));
        }
    }

    /// The figures; None if nothing was added.
    pub fn report(&self) -> Option<CriticReport> {
        if self.values.is_empty() {
            return None;
        }
        let errors: Vec<f64> = self.returns.iter().zip(&self.values).map(|(r, v)| r - v).collect();
        let value_loss = errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64;
        let spread = variance(&self.returns);
        let labelled = |scores: &[f64]| -> Vec<(f64, bool)> {
            scores
                .iter()
                .zip(&self.labels)
                .filter_map(|(&s, label)| Some((s, (*label)?)))
                .collect()
        };
        Some(CriticReport {
            documents: self.means.len(),
            tokens: self.values.len(),
            value_loss,
            explained_variance: (spread > 0.0).then(|| 1.0 - variance(&errors) / spread),
            auroc_mean: auroc(&labelled(&self.means)),
            auroc_last: auroc(&labelled(&self.lasts)),
        })
    }
}

fn variance(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
}

/// The probability that a positive scores above a negative, ties counting one half: the
/// Mann-Whitney statistic from average ranks. None without both, or with a score that is NaN.
pub fn auroc(scores: &[(f64, bool)]) -> Option<f64> {
    let mut sorted = scores.to_vec();
    if sorted.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut rank_sum, mut positives) = (0usize, 0.0, 0usize);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let hits = tied.iter().filter(|(_, positive)| *positive).count();
        // Ranks below + 1 ..= below + tied.len(), all replaced by their average.
        rank_sum += hits as f64 * (below as f64 + (tied.len() + 1) as f64 / 2.0);
        positives += hits;
        below += tied.len();
    }
    let (p, n) = (positives as f64, (sorted.len() - positives) as f64);
    (p > 0.0 && n > 0.0).then(|| (rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}
