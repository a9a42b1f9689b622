//! What each prediction head is worth on a text that no model was trained on: cross-entropy,
//! accuracy, calibration, and its share of all errors.
//!
//! The text is cut into windows; every head predicts inside a window only. Head k at position t is
//! judged by token t + k.

use super::PipelineError;
use crate::data::Tokenizer;
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::Serialize;
use wmtp_model::{CausalLm, Packed};

/// Bins of the reliability table, equally wide.
pub const BINS: usize = 15;

/// Positions whose logits are made at a time.
const ROWS: usize = 64;

/// All heads on one text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadsReport {
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens of a window at most.
    pub window: usize,
    /// Head 1 first.
    pub heads: Vec<HeadFigures>,
}

/// One head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadFigures {
    /// From 1.
    pub head: usize,
    /// Positions with a token k further on in their window.
    pub predictions: usize,
    /// Mean cross-entropy in nats.
    pub ce: f64,
    /// e to the mean cross-entropy.
    pub perplexity: f64,
    /// Share of predictions whose most probable token was right.
    pub top1: f64,
    /// Share with the right token among the five most probable.
    pub top5: f64,
    /// Expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599): the mean
    /// difference between confidence and accuracy over the bins, by their counts.
    pub ece: f64,
    /// This head's share of all heads' wrong most probable tokens.
    pub error_share: f64,
    /// This head's share of the sum of all heads' mean cross-entropies.
    pub ce_share: f64,
    /// Predictions by the probability of their most probable token.
    pub reliability: Vec<Bin>,
}

/// Predictions of similar confidence: above `from`, up to `to`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Lower bound of the confidence.
    pub from: f64,
    /// Upper bound.
    pub to: f64,
    /// Predictions.
    pub count: usize,
    /// Mean probability of the most probable token; 0 of none.
    pub confidence: f64,
    /// Share of right ones; 0 of none.
    pub accuracy: f64,
}

/// One prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prediction {
    ce: f64,
    /// Tokens before the right one.
    rank: usize,
    /// Probability of the most probable token.
    confidence: f64,
}

impl Prediction {
    /// Of `logits` for `target`. Among equal logits the lower id comes first.
    fn of(logits: &[f32], target: usize) -> Self {
        let top = logits.iter().fold(f64::NEG_INFINITY, |a, b| a.max(f64::from(*b)));
        let total: f64 = logits.iter().map(|x| (f64::from(*x) - top).exp()).sum();
        let own = logits.get(target).copied().unwrap_or(f32::NEG_INFINITY);
        let before = |(id, x): (usize, &f32)| *x > own || (*x == own && id < target);
        Self {
            ce: total.ln() + top - f64::from(own),
            rank: logits.iter().enumerate().filter(|(id, x)| before((*id, x))).count(),
            confidence: 1.0 / total,
        }
    }
}

/// The figures of heads 1, 2, ... from their predictions.
fn figures(heads: &[Vec<Prediction>]) -> Vec<HeadFigures> {
    let wrong = |head: &Vec<Prediction>| head.iter().filter(|p| p.rank > 0).count();
    let all_wrong: usize = heads.iter().map(wrong).sum();
    let ce = |head: &Vec<Prediction>| mean(head.iter().map(|p| p.ce));
    let all_ce: f64 = heads.iter().map(ce).sum();
    let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 0.0 };
    heads
        .iter()
        .enumerate()
        .map(|(i, head)| {
            let reliability = reliability(head);
            let n = head.len() as f64;
            let gap = |bin: &Bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
            HeadFigures {
                head: i + 1,
                predictions: head.len(),
                ce: ce(head),
                perplexity: ce(head).exp(),
                top1: share(head.iter().filter(|p| p.rank < 1).count() as f64, n),
                top5: share(head.iter().filter(|p| p.rank < 5).count() as f64, n),
                ece: share(reliability.iter().map(gap).sum(), n),
                error_share: share(wrong(head) as f64, all_wrong as f64),
                ce_share: share(ce(head), all_ce),
                reliability,
            }
        })
        .collect()
}

fn reliability(head: &[Prediction]) -> Vec<Bin> {
    let width = 1.0 / BINS as f64;
    let index = |p: &Prediction| ((p.confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
    (0..BINS)
        .map(|i| {
            let within: Vec<&Prediction> = head.iter().filter(|p| index(p) == i).collect();
            let right = |p: &&Prediction| if p.rank == 0 { 1.0 } else { 0.0 };
            Bin {
                from: i as f64 * width,
                to: (i + 1) as f64 * width,
                count: within.len(),
                confidence: mean(within.iter().map(|p| p.confidence)),
                accuracy: mean(within.iter().map(right)),
            }
        })
        .collect()
}

/// 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), x| (sum + x, count + 1));
    sum / count.max(1) as f64
}

/// Judges all heads of `model` on `text`, in windows of `window` tokens.
///
/// # Errors
/// A text too short for the last head, a window that is too short for it or longer than the model's
/// positions; a text that the tokenizer cannot encode.
pub fn judge_heads(
    model: &dyn CausalLm,
    tokenizer: &Tokenizer,
    text: &str,
    window: usize,
) -> Result<HeadsReport, PipelineError> {
    let heads = model.n_heads();
    let limit = model.config().max_position_embeddings;
    if window <= heads || window > limit {
        return Err(PipelineError::Setting(format!(
            "a window of {window} tokens does not fit: the model has {heads} heads and {limit} positions, so take more than the one and at most the other"
        )));
    }
    let ids = tokenizer.document(text)?;
    if ids.len() <= heads {
        return Err(PipelineError::Setting(format!(
            "the text has {} tokens, too few for a model with {heads} heads; give a longer one",
            ids.len()
        )));
    }
    let mut predictions = vec![Vec::new(); heads];
    for window in ids.chunks(window) {
        let input = Packed::from_documents(&[window.to_vec()], &model.device());
        let context = model.context(&input);
        let trunk = model.trunk(&input, &context);
        for (k, predictions) in (1..).zip(&mut predictions) {
            let count = window.len().saturating_sub(k);
            for first in (0..count).step_by(ROWS) {
                let rows = first..(first + ROWS).min(count);
                let indices: Vec<i64> = rows.clone().map(|t| t as i64).collect();
                let indices = TensorData::new(indices, [rows.len()]);
                let indices = Tensor::<1, Int>::from_data(indices, &model.device());
                let hidden = model.head_at(k, trunk.clone(), &context, indices);
                let logits: Vec<f32> = model.logits(hidden.unsqueeze()).into_data().iter::<f32>().collect();
                let targets = &window[first + k..];
                let found = logits.par_chunks(logits.len() / rows.len()).zip(targets);
                predictions.par_extend(found.map(|(logits, target)| Prediction::of(logits, *target as usize)));
            }
        }
    }
    Ok(HeadsReport {
        tokens: ids.len(),
        window,
        heads: figures(&predictions),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn a_prediction_worked_out_by_hand() {
        // Probabilities 1/2, 1/8, 1/4, 1/8.
        let logits = [0.5f32, 0.125, 0.25, 0.125].map(f32::ln);
        let of = |target| Prediction::of(&logits, target);
        for (target, rank, p) in [(0, 0, 0.5f64), (2, 1, 0.25), (1, 2, 0.125), (3, 3, 0.125)] {
            assert_eq!(of(target).rank, rank);
            close(of(target).ce, -p.ln());
            close(of(target).confidence, 0.5);
        }
        // Shifted logits are the same distribution.
        let shifted: Vec<f32> = logits.iter().map(|x| x + 300.0).collect();
        assert!((Prediction::of(&shifted, 2).ce - 4f64.ln()).abs() < 1e-4);
    }

    #[test]
    fn figures_worked_out_by_hand() {
        let p = |ce: f64, rank, confidence| Prediction { ce, rank, confidence };
        let first = vec![p(1.0, 0, 0.95), p(2.0, 4, 0.96), p(3.0, 5, 0.05), p(0.0, 0, 1.0)];
        let second = vec![p(3.0, 1, 0.5), p(5.0, 9, 0.5)];
        let found = figures(&[first, second]);
        close(found[0].ce, 1.5);
        close(found[0].perplexity, 4.4816890703);
        close(found[0].top1, 0.5);
        close(found[0].top5, 0.75);
        // Bin 15: confidences 0.95, 0.96, 1 (mean 0.97), two of three right. Bin 1: 0.05, none right.
        close(found[0].ece, (3.0 * (0.97 - 2.0 / 3.0) + 0.05) / 4.0);
        assert_eq!(found[0].reliability.len(), 15);
        let last = &found[0].reliability[14];
        assert_eq!(last.count, 3);
        close(last.confidence, 0.97);
        close(last.accuracy, 2.0 / 3.0);
        close(last.from, 14.0 / 15.0);
        assert_eq!(found[0].reliability[0].count, 1);
        // Two and two of four errors; 1.5 and 4 of 5.5 nats.
        close(found[0].error_share, 0.5);
        close(found[1].error_share, 0.5);
        close(found[0].ce_share, 1.5 / 5.5);
        close(found[1].ce_share, 4.0 / 5.5);
        close(found[1].ece, 0.5);
        assert_eq!((found[1].head, found[1].predictions), (2, 2));
    }

    #[test]
    fn a_confidence_on_a_bound_belongs_to_the_bin_below() {
        let of = |confidence| {
            let bins = reliability(&[Prediction {
                ce: 0.0,
                rank: 0,
                confidence,
            }]);
            bins.iter().position(|bin| bin.count == 1)
        };
        assert_eq!(of(0.2), Some(2));
        assert_eq!(of(0.2001), Some(3));
        assert_eq!(of(1.0), Some(14));
        assert_eq!(of(1e-9), Some(0));
    }
}
