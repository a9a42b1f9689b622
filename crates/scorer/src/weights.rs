//! The normaliser: from scores to weights with mean 1 and fixed bounds (algorithms, section 4).
//!
//! All arithmetic is f64. A group with a non-finite score gets weight 1 throughout and is reported;
//! no score of any kind can make a weight that is not finite.

use super::{ScorerError, WeightPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::statistics::quantile;
use wmtp_base::validate::{Check, Validate, in_unit, positive};
use wmtp_data::{Batch, Document};

/// Smallest divisor of the z-score.
const MIN_STD: f64 = 1e-6;
/// Width of the step by which [`WeightPolicy::Lift`] lifts the top share.
const LIFT_WIDTH: f64 = 0.25;

/// From scores to weights, recipe section `weights` (algorithms, section 4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// Over which tokens the mean is 1.
    pub over: WeightGroup,
    /// Standardise scores within the group first.
    pub zscore: bool,
    /// Temperature T.
    pub temperature: f64,
    /// Smallest weight, below 1.
    pub eps: f64,
    /// Largest weight, above 1.
    pub w_max: f64,
    /// Above this share of groups with a non-finite score, the run stops.
    pub max_fallback_share: f64,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Self {
            over: WeightGroup::Document,
            zscore: true,
            temperature: 0.7,
            eps: 0.05,
            w_max: 3.0,
            max_fallback_share: 0.1,
        }
    }
}

/// The group over which weights have mean 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightGroup {
    /// The response tokens of one document.
    #[default]
    Document,
    /// Those of the whole optimizer step.
    Step,
}

impl Validate for WeightsConfig {
    fn check(&self, check: &mut Check) {
        check.when(!positive(self.temperature), "temperature", "must be above 0");
        check.when(
            !(self.eps > 0.0 && self.eps < 1.0),
            "eps",
            "must be above 0 and below 1",
        );
        check.when(
            !(self.w_max > 1.0 && self.w_max.is_finite()),
            "w_max",
            "must be above 1",
        );
        check.when(
            !in_unit(self.max_fallback_share),
            "max_fallback_share",
            "must be from 0 to 1",
        );
    }
}

/// Turns scores into weights, one policy and one recipe section for all scorers.
#[derive(Clone, Debug, PartialEq)]
pub struct Normaliser {
    config: WeightsConfig,
}

/// A group whose weights are 1 because a score was not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Name of the document with the first such score.
    pub document: String,
    /// Position of that token within its document, prompt included, from 0.
    pub position: usize,
}

/// The weights of an optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightsReport {
    /// One vector `[B * S]` a micro-batch; 1 for tokens outside responses.
    pub weights: Vec<Vec<f32>>,
    /// Groups normalised, those that fell back included.
    pub groups: usize,
    /// Groups that fell back to weight 1.
    pub fallbacks: Vec<Fallback>,
}

/// Statistics of the weights of some response tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightStats {
    /// Mean, 1 up to 1e-4.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Entropy of w / sum w over the log of their number: 1 for equal weights, near 0 if few tokens
    /// carry all.
    pub entropy: f64,
}

impl WeightStats {
    /// Statistics of `weights`; None if there are none.
    pub fn of(weights: &[f32]) -> Option<Self> {
        if weights.is_empty() {
            return None;
        }
        let n = weights.len() as f64;
        let w = || weights.iter().map(|&w| f64::from(w));
        let sum: f64 = w().sum();
        let entropy: f64 = w().filter(|&w| w > 0.0).map(|w| -(w / sum) * (w / sum).ln()).sum();
        Some(Self {
            mean: sum / n,
            min: w().fold(f64::INFINITY, f64::min),
            max: w().fold(f64::NEG_INFINITY, f64::max),
            entropy: if n > 1.0 { entropy / n.ln() } else { 1.0 },
        })
    }
}

/// One document of the step: which micro-batch, and where.
struct Member<'a> {
    number: usize,
    batch: &'a Batch,
    document: &'a Document,
}

impl Member<'_> {
    /// Flat indices of the tokens that are trained.
    fn trained(&self) -> impl Iterator<Item = usize> {
        self.batch.trained(self.document)
    }
}

impl Normaliser {
    /// With the recipe's section `weights`.
    ///
    /// # Errors
    /// Settings that break a rule of [`WeightsConfig`].
    pub fn new(config: WeightsConfig) -> Result<Self, ScorerError> {
        config.check_section("weights").map_err(|e| ScorerError::Setup {
            scorer: "weights".into(),
            problem: e.problem,
        })?;
        Ok(Self { config })
    }

    /// Weights of the micro-batches of one optimizer step from their scores, `[B * S]` each. A
    /// score that is missing counts as one that is not finite.
    pub fn weights(&self, policy: &WeightPolicy, batches: &[Batch], scores: &[Vec<f32>]) -> WeightsReport {
        let mut weights: Vec<Vec<f32>> = batches.iter().map(|b| vec![1.0; b.tokens.len()]).collect();
        let members = batches.iter().enumerate().flat_map(|(number, batch)| {
            batch.documents.iter().map(move |document| Member {
                number,
                batch,
                document,
            })
        });
        let members: Vec<Member> = members.filter(|m| m.trained().next().is_some()).collect();
        let groups: Vec<&[Member]> = match self.config.over {
            WeightGroup::Document => members.chunks(1).collect(),
            WeightGroup::Step if members.is_empty() => Vec::new(),
            WeightGroup::Step => vec![&members],
        };
        let mut fallbacks = Vec::new();
        for group in &groups {
            match self.group(policy, group, scores) {
                Ok(group_weights) => scatter(group, &group_weights, &mut weights),
                Err(fallback) => fallbacks.push(fallback),
            }
        }
        WeightsReport {
            groups: groups.len(),
            fallbacks,
            weights,
        }
    }

    fn group(&self, policy: &WeightPolicy, group: &[Member], scores: &[Vec<f32>]) -> Result<Vec<f64>, Fallback> {
        let mut all = Vec::new();
        for member in group {
            let document = member.document;
            let first = document.row * member.batch.seq_len + document.start;
            for index in member.trained() {
                let score = scores.get(member.number).and_then(|s| s.get(index)).copied();
                match score.filter(|s| s.is_finite()) {
                    Some(score) => all.push(f64::from(score)),
                    None => {
                        return Err(Fallback {
                            document: document.name.clone(),
                            position: index.saturating_sub(first),
                        });
                    }
                }
            }
        }
        let place = || Fallback {
            document: group.first().map(|m| m.document.name.clone()).unwrap_or_default(),
            position: group.first().map(|m| m.document.prompt_len).unwrap_or_default(),
        };
        let weights = normalise(&all, policy, &self.config);
        match weights.iter().all(|w| w.is_finite()) {
            true => Ok(weights),
            false => Err(place()),
        }
    }
}

/// Writes a group's weights, in order of its tokens, to where the tokens are.
fn scatter(group: &[Member], values: &[f64], weights: &mut [Vec<f32>]) {
    let places = group.iter().flat_map(|m| m.trained().map(|i| (m.number, i)));
    for ((batch, index), &value) in places.zip(values) {
        if let Some(slot) = weights.get_mut(batch).and_then(|w| w.get_mut(index)) {
            *slot = value as f32;
        }
    }
}

/// Weights of one group from its finite scores (section 4; the modes of rho1, section 5).
pub(super) fn normalise(scores: &[f64], policy: &WeightPolicy, config: &WeightsConfig) -> Vec<f64> {
    match *policy {
        WeightPolicy::Select { top_p } => return select(scores, top_p),
        WeightPolicy::Given { mean_one } => return given(scores, mean_one),
        WeightPolicy::Softmax | WeightPolicy::Lift { .. } => {}
    }
    let z = if config.zscore {
        zscores(scores)
    } else {
        scores.to_vec()
    };
    let mut logits: Vec<f64> = z.iter().map(|z| z / config.temperature).collect();
    if let WeightPolicy::Lift { top_p, emphasis } = *policy {
        let mut sorted = z.clone();
        sorted.sort_by(f64::total_cmp);
        let q = quantile(&sorted, 1.0 - top_p);
        for (logit, z) in logits.iter_mut().zip(&z) {
            let sigmoid = 1.0 / (1.0 + (-(z - q) / LIFT_WIDTH).exp());
            *logit += (1.0 + (emphasis - 1.0) * sigmoid).ln();
        }
    }
    bounded(&logits, config.eps, config.w_max)
}

/// `(s - mean) / max(std, 1e-6)` with the population's standard deviation.
pub(super) fn zscores(scores: &[f64]) -> Vec<f64> {
    let n = scores.len().max(1) as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n;
    let std = variance.sqrt().max(MIN_STD);
    scores.iter().map(|s| (s - mean) / std).collect()
}

/// `clip(exp(a + b), eps, w_max)` with the b for which the mean is 1.
///
/// b is sought relative to one token of the group. At the solution some token lies between the
/// bounds (or b may be moved until one touches them), so with that token's logit as the origin b
/// lies in `[ln eps, ln w_max]`, and neither the size of the scores nor their spread costs digits.
fn bounded(logits: &[f64], eps: f64, w_max: f64) -> Vec<f64> {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (Some(&largest), Some(&smallest)) = (sorted.first(), sorted.last()) else {
        return Vec::new();
    };
    if largest == smallest {
        return vec![1.0; logits.len()];
    }
    let (low, high) = (eps.ln(), w_max.ln());
    let weight = |a: f64, pivot: f64, b: f64| ((a - pivot) + b).clamp(low, high).exp().clamp(eps, w_max);
    let mean = |pivot: f64, b: f64| sorted.iter().map(|&a| weight(a, pivot, b)).sum::<f64>() / sorted.len() as f64;
    // The further down the pivot, the larger b: the last token that may reach eps is the one.
    let pivots = sorted.partition_point(|&pivot| mean(pivot, low) <= 1.0);
    let pivot = sorted.get(pivots.saturating_sub(1)).copied().unwrap_or(largest);
    let (mut below, mut above) = (low, high);
    loop {
        let middle = below + (above - below) / 2.0;
        if middle <= below || middle >= above {
            break;
        }
        if mean(pivot, middle) <= 1.0 {
            below = middle;
        } else {
            above = middle;
        }
    }
    logits.iter().map(|&a| weight(a, pivot, below)).collect()
}

/// The weights of the data, 0 or more, as they are or divided by their mean.
fn given(weights: &[f64], mean_one: bool) -> Vec<f64> {
    let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    match mean_one && mean > 0.0 {
        true => weights.iter().map(|w| w / mean).collect(),
        false => weights.to_vec(),
    }
}

/// Of n tokens the `m = max(1, round(p n))` with the highest scores (ties: the earlier) weigh n/m,
/// the rest 0. Halves are rounded up.
fn select(scores: &[f64], top_p: f64) -> Vec<f64> {
    let n = scores.len();
    let m = ((top_p * n as f64).round() as usize).clamp(1, n.max(1));
    let mut order: Vec<usize> = (0..n).collect();
    // Stable: equal scores stay in order of position.
    order.sort_by(|&a, &b| match (scores.get(a), scores.get(b)) {
        (Some(a), Some(b)) => b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal),
        _ => std::cmp::Ordering::Equal,
    });
    let mut weights = vec![0.0; n];
    for index in order.into_iter().take(m) {
        if let Some(weight) = weights.get_mut(index) {
            *weight = n as f64 / m as f64;
        }
    }
    weights
}

/// Counts fallbacks over a run and stops it when they are no exception any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FallbackTally {
    /// Groups seen.
    pub groups: u64,
    /// Groups that fell back to weight 1.
    pub fallbacks: u64,
}

impl FallbackTally {
    /// Adds a step. False if it had fallbacks and their share so far is above `max_share`. Before
    /// 1 / `max_share` groups were seen, one fallback alone is allowed (unless `max_share` is 0): with
    /// `weights.over: step` a run begins with one group a step.
    pub fn add(&mut self, groups: usize, fallbacks: usize, max_share: f64) -> bool {
        self.groups += groups as u64;
        self.fallbacks += fallbacks as u64;
        let allowed = if max_share > 0.0 {
            (max_share * self.groups as f64).max(1.0)
        } else {
            0.0
        };
        fallbacks == 0 || self.fallbacks as f64 <= allowed
    }
}
