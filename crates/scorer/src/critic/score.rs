//! Stage 2: from values to scores. Holds no network of its own; values come through a trait.

use super::{
    NAME, SequenceReward,
    targets::value_tokens,
    values::{scores, token_rewards},
};
use crate::{CriticConfig, Explained, Needs, ScoreInput, Scorer, ScorerError, Spread};
use burn::tensor::Tensor;
use wmtp_device::ReadError;

/// Reads values off hidden states.
pub trait Values: Send {
    /// `[B * S]` values, in row order, of head 1's hidden states after the final norm,
    /// `[B, S, D]`.
    ///
    /// # Errors
    /// The device failed.
    fn values(&self, hidden: &Tensor<3>) -> Result<Vec<f32>, ReadError>;
}

/// Stage 2: scores by what each token adds to the value.
pub struct CriticScorer {
    config: CriticConfig,
    values: Box<dyn Values>,
    rewards: Box<dyn SequenceReward>,
}

impl CriticScorer {
    /// `rewards` is asked only if the recipe spreads rewards over tokens: a terminal reward comes
    /// after the last score.
    pub fn new(config: CriticConfig, values: Box<dyn Values>, rewards: Box<dyn SequenceReward>) -> Self {
        Self {
            config,
            values,
            rewards,
        }
    }

    fn spreads(&self) -> bool {
        self.config.spread != Spread::Terminal
    }
}

impl Scorer for CriticScorer {
    fn name(&self) -> &str {
        NAME
    }

    fn needs(&self) -> Needs {
        let ce = self.spreads() && self.rewards.needs().ce;
        Needs { hidden: true, ce }
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        Ok(self.explain(input)?.scores)
    }

    /// With the value after every token.
    fn explain(&mut self, input: &ScoreInput<'_>) -> Result<Explained, ScorerError> {
        let batch = input.batch;
        let missing = |what| ScorerError::Missing {
            scorer: NAME.into(),
            what,
        };
        let hidden = input
            .hidden
            .as_ref()
            .ok_or_else(|| missing("the model's hidden states"))?;
        let values = self.values.values(hidden)?;
        let rewards = match self.spreads() {
            true => self.rewards.rewards(batch, input.ce)?,
            false => vec![0.0; batch.documents.len()],
        };
        let mut out = vec![0.0; batch.tokens.len()];
        for (document, reward) in batch.documents.iter().zip(rewards) {
            let tokens = value_tokens(document, batch.seq_len).ok_or_else(|| ScorerError::Document {
                scorer: NAME.into(),
                document: document.name.clone(),
                problem: "has no prompt or no response; the critic compares each token with the one before".into(),
            })?;
            let own = values.get(tokens).ok_or_else(|| missing("a value for every token"))?;
            let own: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
            let CriticConfig {
                spread,
                gamma,
                initial_value,
                ..
            } = self.config;
            let spread = token_rewards(f64::from(reward), own.len() - 1, spread, gamma);
            let slots = out.get_mut(document.response(batch.seq_len)).unwrap_or_default();
            for (slot, score) in slots.iter_mut().zip(scores(&spread, &own, gamma, initial_value)) {
                *slot = score as f32;
            }
        }
        Ok(Explained {
            scores: out,
            figures: vec![("value", values)],
        })
    }
}
