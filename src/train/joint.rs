//! The value loss's part of a step's gradient.

use super::{
    StepBatch, WeightedMtp,
    forward::{Forward, unpadded},
    loss::{HeadStates, to_f32, token_ce},
    value::JointValue,
};
use crate::{
    data::Batch,
    scorer::{ScorerError, critic::loss},
};
use burn::{module::Module, optim::GradientsParams, tensor::Tensor};
use wmtp_model::{MtpLlama, ValueHead};

impl WeightedMtp {
    /// The scorer reads the head as it is at this step.
    pub(super) fn renew_value(&self) {
        if let (Some(value), Some(joint)) = (&self.value, self.weigher.joint()) {
            joint.current.set(value.valid());
        }
    }

    /// Adds the gradient of `scorer.value_weight` times the value loss over the step's labelled
    /// solutions to `grads`, and returns the loss; None without labelled solutions, or with nothing
    /// to compare. With `cut` as in [`Forward::of`].
    ///
    /// The loss is a function of the values of all micro-batches (pairs lie in several). Their
    /// derivative comes first, from values alone; then each micro-batch goes forward and backward by
    /// itself, so that one's activations are there at a time. That costs a second forward pass.
    pub(super) fn learn_value(
        &self,
        model: &MtpLlama,
        step: &StepBatch,
        cut: bool,
        grads: &mut GradientsParams,
    ) -> Result<Option<f64>, ScorerError> {
        let (Some(value), Some(joint)) = (&self.value, self.weigher.joint()) else {
            return Ok(None);
        };
        let device = model.unembedding().device();
        let labelled = step.labelled.iter();
        let batches: Vec<Batch> = labelled.map(|batch| unpadded(model, batch).into_owned()).collect();
        let Some((loss, slopes)) = self.slopes(joint, value, &batches)? else {
            return Ok(None);
        };
        for (batch, slope) in batches.iter().zip(slopes) {
            let forward = Forward::of(model, batch, &device, cut);
            let values = value.forward(everywhere(&forward, batch));
            // A tensor outside of any graph is a constant of the other's.
            let part = (values * slope).sum().mul_scalar(joint.config.value_weight);
            self.collect(part.backward(), forward.embedded.as_ref(), batch, grads);
        }
        Ok(Some(loss))
    }

    /// The value loss, and its derivative by the value of every token, `[B, S]` for each micro-batch,
    /// outside of autodiff.
    fn slopes(
        &self,
        joint: &JointValue,
        value: &ValueHead,
        batches: &[Batch],
    ) -> Result<Option<(f64, Vec<Tensor<2>>)>, ScorerError> {
        let (plain, value) = (self.model.valid(), value.valid());
        let inner = plain.unembedding().device();
        let rewards = joint.rewards();
        let mut leaves = Vec::with_capacity(batches.len());
        let mut all_rewards = Vec::with_capacity(batches.len());
        for batch in batches {
            let forward = Forward::of(&plain, batch, &inner, false);
            let hidden = everywhere(&forward, batch);
            let ce = rewards.needs().ce.then(|| {
                let head = HeadStates::everywhere(1, hidden.clone());
                token_ce(head, plain.unembedding(), batch, plain.compute())
            });
            all_rewards.push(rewards.rewards(batch, ce.as_deref())?);
            leaves.push(Tensor::from_inner(value.forward(hidden)).require_grad());
        }
        let Some(loss) = loss::of_step(leaves.clone(), batches, &all_rewards, &joint.config) else {
            return Ok(None);
        };
        let figure = to_f32(loss.clone().inner()).iter().map(|&l| f64::from(l)).sum();
        let mut gradients = loss.backward();
        let slopes = leaves.into_iter().map(|leaf| match leaf.grad_remove(&mut gradients) {
            Some(slope) => slope,
            // Nothing in this micro-batch is compared with anything.
            None => leaf.inner().zeros_like(),
        });
        Ok(Some((figure, slopes.collect())))
    }
}

/// Head 1's hidden states at all positions, `[B, S, D]`.
fn everywhere(forward: &Forward<'_>, batch: &Batch) -> Tensor<3> {
    let states = forward.head(1, (0..batch.tokens.len()).collect()).states;
    let size = states.dims()[1];
    states.reshape([batch.rows, batch.seq_len, size])
}
