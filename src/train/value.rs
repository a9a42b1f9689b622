//! The value head's loss beside the token loss (`critic.value: joint`).

use super::loss::to_f32;
use crate::{
    data::Batch,
    scorer::{
        CriticConfig, CriticLoss, ScorerError, SequenceReward, Verified,
        critic::{loss, targets},
    },
};
use burn::tensor::Tensor;
use wmtp_model::ValueHead;

/// The value loss of one micro-batch of a training step, divided by the step's response tokens.
/// The gradient reaches the model through `hidden` `[B, S, D]`, which is why the loss has a weight
/// in the recipe.
///
/// # Errors
/// A document without a verified label.
pub fn joint_value_loss(
    head: &ValueHead,
    hidden: Tensor<3>,
    batch: &Batch,
    config: &CriticConfig,
    denominator: usize,
) -> Result<Tensor<1>, ScorerError> {
    let values = head.forward(hidden);
    let rewards = Verified.rewards(batch, None)?;
    let current = to_f32(values.clone().inner().flatten(0, 1));
    let targets = targets(batch, &current, &rewards, config);
    Ok(match config.loss {
        CriticLoss::Huber => loss::huber(values, &targets, denominator),
        CriticLoss::Mse | CriticLoss::Pairwise => loss::mse(values, &targets, denominator),
    })
}
