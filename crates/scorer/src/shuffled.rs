//! `kind: shuffled`: another scorer's weights in an order without information. A control.
//!
//! The normaliser treats the tokens of a group alike, so permuting scores permutes weights: the
//! group has the same weights, on other tokens. (With `rho1.mode: select` and equal scores, which
//! of the equal ones is kept follows position after the permutation; the weights are the same
//! still.) With `weights.over: document` scores are permuted within each document. With
//! `weights.over: step` they are permuted over all response tokens of the optimizer step, whatever
//! the size of its micro-batches.

use super::{
    Explained, ModelsNeeded, Needs, Parts, ScoreInput, Scorer, ScorerConfig, ScorerError, WeightGroup, WeightPolicy,
    config::ScorerKind,
};
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};
use wmtp_data::Batch;
use wmtp_data::seeded::generator;

/// Settings of `kind: shuffled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShuffledConfig {
    /// The scorer whose weights are permuted.
    pub of: Box<ScorerConfig>,
}

impl Validate for ShuffledConfig {
    fn check(&self, check: &mut Check) {
        match self.of.as_ref() {
            ScorerConfig::Shuffled(_) => check.when(true, "of", "must be a scorer that is not `shuffled` itself"),
            of => check.section("of", of),
        }
    }
}

impl ScorerKind for ShuffledConfig {
    fn name(&self) -> &'static str {
        "shuffled"
    }

    fn models_needed(&self) -> ModelsNeeded<'_> {
        self.of.models_needed()
    }

    fn inner(&self) -> Option<&ScorerConfig> {
        Some(&self.of)
    }

    fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        let (over, seed) = (parts.over, parts.seed);
        Ok(Box::new(Shuffled::new(self.of.build(parts)?, over, seed)))
    }
}

/// Permutes the scores of the scorer inside it.
pub struct Shuffled {
    of: Box<dyn Scorer>,
    over: WeightGroup,
    seed: u64,
    name: String,
}

impl Shuffled {
    /// Permutes the scores of `of` inside the groups that the weights are normalised over. The
    /// permutation is drawn from the seed and the samples, never from the step.
    pub fn new(of: Box<dyn Scorer>, over: WeightGroup, seed: u64) -> Self {
        let name = format!("shuffled {}", of.name());
        Self { of, over, seed, name }
    }
}

impl Scorer for Shuffled {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Needs {
        self.of.needs()
    }

    fn policy(&self) -> WeightPolicy {
        self.of.policy()
    }

    /// Over a step, the scores stay where they are until [`Scorer::rearrange`].
    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let mut scores = self.of.score(input)?;
        self.permute_documents(input.batch, &mut scores);
        Ok(scores)
    }

    /// With the scores where they were before, and what they were made of.
    fn explain(&mut self, input: &ScoreInput<'_>) -> Result<Explained, ScorerError> {
        let Explained {
            mut scores,
            mut figures,
        } = self.of.explain(input)?;
        figures.insert(0, ("score_before", scores.clone()));
        self.permute_documents(input.batch, &mut scores);
        Ok(Explained { scores, figures })
    }

    fn rearrange(&mut self, batches: &[Batch], scores: &mut [Vec<f32>]) {
        self.of.rearrange(batches, scores);
        if self.over == WeightGroup::Step {
            self.permute(batches, scores);
        }
    }
}

impl Shuffled {
    /// Permutes the scores of each document, if the groups are documents.
    fn permute_documents(&self, batch: &Batch, scores: &mut [f32]) {
        if self.over == WeightGroup::Step {
            return;
        }
        for document in &batch.documents {
            let places: Vec<usize> = batch.trained(document).collect();
            let values = places.iter().filter_map(|&i| scores.get(i).copied()).collect();
            for (place, value) in places.into_iter().zip(self.drawn(values, &[document.sample])) {
                if let Some(score) = scores.get_mut(place) {
                    *score = value;
                }
            }
        }
    }

    /// Permutes the scores of all trained tokens of `batches`.
    fn permute(&self, batches: &[Batch], scores: &mut [Vec<f32>]) {
        let documents = batches
            .iter()
            .enumerate()
            .flat_map(|(b, batch)| batch.documents.iter().map(move |document| (b, batch, document)));
        let samples: Vec<usize> = documents.clone().map(|(.., document)| document.sample).collect();
        let places: Vec<(usize, usize)> = documents
            .flat_map(|(b, batch, document)| batch.trained(document).map(move |i| (b, i)))
            .filter(|&(b, i)| scores.get(b).is_some_and(|scores| i < scores.len()))
            .collect();
        let values = places.iter().map(|&(b, i)| scores[b][i]).collect();
        for ((b, i), value) in places.into_iter().zip(self.drawn(values, &samples)) {
            scores[b][i] = value;
        }
    }

    /// `values` in the order that seed and samples draw.
    fn drawn(&self, mut values: Vec<f32>, samples: &[usize]) -> Vec<f32> {
        let samples = samples.iter().map(|&sample| sample as u64);
        let purpose: Vec<u64> = std::iter::once(0x5f1e).chain(samples).collect();
        values.shuffle(&mut generator(self.seed, &purpose));
        values
    }
}
