//! A control: scores that know where a token stands and nothing of what it says.

use super::{Needs, Parts, ScoreInput, Scorer, ScorerError, config::ScorerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};

/// Settings of `kind: position`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PositionConfig {}

impl Validate for PositionConfig {
    fn check(&self, _check: &mut Check) {}
}

impl ScorerKind for PositionConfig {
    fn name(&self) -> &'static str {
        "position"
    }

    fn build(&self, _parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        Ok(Box::new(Position))
    }
}

/// `kind: position`: the token's index in its response, from 0. What a merely positional critic
/// would give; a control.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position;

impl Scorer for Position {
    fn name(&self) -> &str {
        "position"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let batch = input.batch;
        let mut scores = vec![0.0; batch.tokens.len()];
        for document in &batch.documents {
            let slots = scores.get_mut(document.response(batch.seq_len)).unwrap_or_default();
            for (index, score) in slots.iter_mut().enumerate() {
                *score = index as f32;
            }
        }
        Ok(scores)
    }
}
