//! The model crate's value head and reward model as the critic's scorer sees them.

use crate::{
    data::Batch,
    scorer::{ScorerError, SequenceReward, Values},
    train::CurrentHead,
};
use burn::tensor::Tensor;
use wmtp_model::RewardModel;

/// A value head, frozen or as it is at each step.
pub struct HeadValues(pub CurrentHead);

impl Values for HeadValues {
    fn values(&self, hidden: &Tensor<3>) -> Vec<f32> {
        let values = self.0.get().forward(hidden.clone());
        crate::train::loss::to_f32(values.flatten(0, 1))
    }
}

/// A Llama with a scalar score head, read at each document's last token.
pub struct ModelReward(pub RewardModel);

impl SequenceReward for ModelReward {
    fn rewards(&self, batch: &Batch, _ce: Option<&[f32]>) -> Result<Vec<f32>, ScorerError> {
        let documents: Vec<Vec<u32>> = batch
            .documents
            .iter()
            .map(|d| {
                let first = d.row * batch.seq_len + d.start;
                batch.tokens[first..first + d.len].to_vec()
            })
            .collect();
        self.0.score(&documents).map_err(|e| ScorerError::Setup {
            scorer: "critic".into(),
            problem: format!("the reward model failed: {e}"),
        })
    }
}
