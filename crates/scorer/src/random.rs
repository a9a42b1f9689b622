//! A control: scores that know nothing at all. Looks at sample numbers only.

use super::{Needs, Parts, ScoreInput, Scorer, ScorerError, config::ScorerKind};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use wmtp_base::validate::{Check, Validate};
use wmtp_data::seeded::generator;

/// Settings of `kind: random`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandomConfig {}

impl Validate for RandomConfig {
    fn check(&self, _check: &mut Check) {}
}

impl ScorerKind for RandomConfig {
    fn name(&self) -> &'static str {
        "random"
    }

    fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        Ok(Box::new(Random::new(parts.seed)))
    }
}

/// `kind: random`: a standard normal for every response token, drawn from (seed, sample) only: the
/// same at every step, in every epoch and in every packing. A control.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// With the run's seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl Scorer for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let batch = input.batch;
        let mut scores = vec![0.0; batch.tokens.len()];
        for document in &batch.documents {
            let mut rng = generator(self.seed, &[0x4a4d, document.sample as u64]);
            for score in scores.get_mut(document.response(batch.seq_len)).unwrap_or_default() {
                // Box and Muller 1958; 1 - u keeps the logarithm's argument above 0.
                let (u, v): (f64, f64) = (rng.random(), rng.random());
                *score = ((-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()) as f32;
            }
        }
        Ok(scores)
    }
}
