//! Weights that come with the data: a row's `weight`, a message's, or those of `spans`.

use super::{Needs, Parts, ScoreInput, Scorer, ScorerError, WeightPolicy, config::ScorerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};

/// Settings of `kind: given`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GivenConfig {
    /// Scale the weights of each group (`weights.over`) to mean 1. Without it they are used as they are, and a
    /// document with twice the weight has twice the gradient.
    pub normalise: bool,
}

impl Validate for GivenConfig {
    fn check(&self, _check: &mut Check) {}
}

impl ScorerKind for GivenConfig {
    fn name(&self) -> &'static str {
        "given"
    }

    fn build(&self, _parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        Ok(Box::new(Given {
            normalise: self.normalise,
        }))
    }
}

/// `kind: given`: the weights of the data, 1 where they say nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    normalise: bool,
}

impl Scorer for Given {
    fn name(&self) -> &str {
        "given"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        Ok(input.batch.given.clone())
    }

    fn policy(&self) -> WeightPolicy {
        WeightPolicy::Given {
            mean_one: self.normalise,
        }
    }
}
