//! `kind: shuffled`: another scorer's weights in an order without information. A control.
//!
//! The normaliser treats the tokens of a group alike, so permuting scores permutes weights: the
//! group has the same weights, on other tokens. (With `rho1.mode: select` and equal scores, which
//! of the equal ones is kept follows position after the permutation; the weights are the same
//! still.) With `weights.over: document` scores are permuted within each document. With
//! `weights.over: step` the group is wider than a scorer sees, and scores are permuted over all
//! response tokens of the micro-batch.

use super::{Explained, Needs, Policy, ScoreInput, Scorer, ScorerError, WeightGroup};
use crate::data::Batch;
use crate::data::seeded::generator;
use rand::seq::SliceRandom;

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

    fn policy(&self) -> Policy {
        self.of.policy()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let scores = self.of.score(input)?;
        Ok(self.permuted(scores, input.batch))
    }

    /// With the scores where they were before, and what they were made of.
    fn explain(&mut self, input: &ScoreInput<'_>) -> Result<Explained, ScorerError> {
        let Explained { scores, mut figures } = self.of.explain(input)?;
        figures.insert(0, ("score_before", scores.clone()));
        Ok(Explained {
            scores: self.permuted(scores, input.batch),
            figures,
        })
    }
}

impl Shuffled {
    fn permuted(&self, mut scores: Vec<f32>, batch: &Batch) -> Vec<f32> {
        let groups: Vec<_> = match self.over {
            WeightGroup::Document => batch.documents.chunks(1).collect(),
            WeightGroup::Step => vec![batch.documents.as_slice()],
        };
        for group in groups {
            let places: Vec<usize> = group.iter().flat_map(|d| d.response(batch.seq_len)).collect();
            let mut values: Vec<f32> = places.iter().filter_map(|&i| scores.get(i).copied()).collect();
            let purpose: Vec<u64> = std::iter::once(0x5f1e)
                .chain(group.iter().map(|d| d.sample as u64))
                .collect();
            values.shuffle(&mut generator(self.seed, &purpose));
            for (index, value) in places.into_iter().zip(values) {
                if let Some(score) = scores.get_mut(index) {
                    *score = value;
                }
            }
        }
        scores
    }
}
