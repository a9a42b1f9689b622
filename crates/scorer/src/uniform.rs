//! The baseline: no token matters more than another. Looks at nothing.

use super::{Needs, Parts, ScoreInput, Scorer, ScorerError, config::ScorerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};

/// Settings of `kind: uniform`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UniformConfig {}

impl Validate for UniformConfig {
    fn check(&self, _check: &mut Check) {}
}

impl ScorerKind for UniformConfig {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn build(&self, _parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        Ok(Box::new(Uniform))
    }
}

/// `kind: uniform`: s = 0, so every weight is 1. The baseline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform;

impl Scorer for Uniform {
    fn name(&self) -> &str {
        "uniform"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        Ok(vec![0.0; input.batch.tokens.len()])
    }
}
