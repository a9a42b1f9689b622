//! Sequence rewards R: how good a whole response is. The reward model, a network of its own, comes
//! in through the same trait from outside.

use crate::{Needs, ScorerError};
use wmtp_data::Batch;

/// Says how good a whole response is: R.
pub trait SequenceReward: Send {
    /// R of each of `batch.documents`, in their order. `ce` is the model's cross-entropy of token
    /// j, `[B * S]`, present if [`SequenceReward::needs`] asks for it.
    ///
    /// # Errors
    /// A document without what the reward is made from.
    fn rewards(&self, batch: &Batch, ce: Option<&[f32]>) -> Result<Vec<f32>, ScorerError>;

    /// What has to be computed first.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// `reward: verified`: the label that came with the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified;

impl SequenceReward for Verified {
    fn rewards(&self, batch: &Batch, _: Option<&[f32]>) -> Result<Vec<f32>, ScorerError> {
        let reward = |d: &wmtp_data::Document| {
            d.reward.ok_or_else(|| ScorerError::Document {
                scorer: "critic".into(),
                document: d.name.clone(),
                problem: "has no verified label; take data with labels or another `scorer.reward`".into(),
            })
        };
        batch.documents.iter().map(reward).collect()
    }
}

/// `reward: pseudo`: minus the mean cross-entropy of the response, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pseudo;

impl SequenceReward for Pseudo {
    fn rewards(&self, batch: &Batch, ce: Option<&[f32]>) -> Result<Vec<f32>, ScorerError> {
        let ce = ce.ok_or(ScorerError::Missing {
            scorer: "critic".into(),
            what: "the model's cross-entropy, which `reward: pseudo` is made from",
        })?;
        let reward = |d: &wmtp_data::Document| {
            let own: Vec<f64> = batch
                .trained(d)
                .filter_map(|i| ce.get(i))
                .map(|&c| f64::from(c))
                .collect();
            (-own.iter().sum::<f64>() / own.len().max(1) as f64) as f32
        };
        Ok(batch.documents.iter().map(reward).collect())
    }

    fn needs(&self) -> Needs {
        Needs {
            hidden: false,
            ce: true,
        }
    }
}
