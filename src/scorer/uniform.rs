//! The baseline: no token matters more than another. Looks at nothing.

use super::{Needs, ScoreInput, Scorer, ScorerError};

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
