//! The value head that learns along with the model (`scorer.value: joint`).
//!
//! Each optimizer step has labelled solutions of its own, right and wrong ones: from references alone,
//! whose reward is always 1, a head would learn the constant 1. The value loss is stage 1's
//! ([`loss::of_step`]) over all of them, times `scorer.value_weight`; its gradient reaches the head and,
//! through head 1's hidden states, the model.

use super::{
    forward::Forward,
    loss::{HeadHidden, HeadTargets, token_ce},
};
use burn::{
    module::Module,
    tensor::{Gradients, Tensor},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wmtp_data::Batch;
use wmtp_device::to_f32;
use wmtp_model::{CausalLm, MtpLlama, ValueHead};
use wmtp_scorer::{CriticConfig, ScorerError, SequenceReward, critic::loss};

/// The value head of this moment, which the scorer reads and training renews.
#[derive(Clone, Debug)]
pub struct CurrentHead(Arc<Mutex<ValueHead>>);

impl CurrentHead {
    /// `head` must be outside of autodiff.
    pub fn new(head: ValueHead) -> Self {
        Self(Arc::new(Mutex::new(head)))
    }

    /// The head.
    pub fn get(&self) -> ValueHead {
        self.lock().clone()
    }

    /// Replaces it by a newer head, outside of autodiff as well.
    pub fn set(&self, head: ValueHead) {
        *self.lock() = head;
    }

    fn lock(&self) -> MutexGuard<'_, ValueHead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the value loss of a training step is made with.
#[derive(Clone)]
pub struct JointValue {
    /// The critic's settings: loss, discount, spread, weight of the loss.
    pub config: CriticConfig,
    /// The head that the scorer reads.
    pub current: CurrentHead,
    rewards: Arc<Mutex<Box<dyn SequenceReward>>>,
}

impl JointValue {
    /// `rewards` says how good the labelled solutions are, as `scorer.reward` wants it.
    pub fn new(config: CriticConfig, current: CurrentHead, rewards: Box<dyn SequenceReward>) -> Self {
        Self {
            config,
            current,
            rewards: Arc::new(Mutex::new(rewards)),
        }
    }

    fn rewards(&self) -> MutexGuard<'_, Box<dyn SequenceReward>> {
        self.rewards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value loss over a step's labelled solutions; None without any, or with nothing to compare. The
    /// gradients of `scorer.value_weight` times it go to `collect`, with the embedded tokens where the graph
    /// is cut there (see [`Forward::of`]).
    ///
    /// The loss is a function of the values of all micro-batches (pairs lie in several). Their
    /// derivative comes first, from values alone; then each micro-batch goes forward and backward by
    /// itself, so that only one's activations are in memory at a time. That costs a second forward pass.
    pub(super) fn learn(
        &self,
        model: &MtpLlama,
        value: &ValueHead,
        labelled: &[Batch],
        cut_at_embedding: bool,
        mut collect: impl FnMut(Gradients, Option<&Tensor<2>>, &Batch),
    ) -> Result<Option<f64>, ScorerError> {
        let device = model.unembedding().device();
        let Some((loss, slopes)) = self.slopes(&model.valid(), &value.valid(), labelled)? else {
            return Ok(None);
        };
        for (batch, slope) in labelled.iter().zip(slopes) {
            let forward = Forward::of(model, batch, &device, cut_at_embedding);
            let values = value.forward(forward.head_1_everywhere());
            // A tensor outside of any graph is a constant of the other's.
            let part = (values * slope).sum().mul_scalar(self.config.value_weight);
            collect(part.backward(), forward.embedded.as_ref(), batch);
        }
        Ok(Some(loss))
    }

    /// The value loss, and its derivative by the value of every token, `[B, S]` for each micro-batch,
    /// outside of autodiff, as `model` and `value` are.
    fn slopes(
        &self,
        model: &MtpLlama,
        value: &ValueHead,
        batches: &[Batch],
    ) -> Result<Option<(f64, Vec<Tensor<2>>)>, ScorerError> {
        let device = model.unembedding().device();
        let rewards = self.rewards();
        let mut leaves = Vec::with_capacity(batches.len());
        let mut all_rewards = Vec::with_capacity(batches.len());
        for batch in batches {
            let hidden = Forward::of(model, batch, &device, false).head_1_everywhere();
            let ce = rewards
                .needs()
                .ce
                .then(|| head_1_ce(model, hidden.clone(), batch))
                .transpose()?;
            all_rewards.push(rewards.rewards(batch, ce.as_deref())?);
            leaves.push(Tensor::from_inner(value.forward(hidden)).require_grad());
        }
        let Some(loss) = loss::of_step(leaves.clone(), batches, &all_rewards, &self.config)? else {
            return Ok(None);
        };
        let figure = to_f32(loss.clone().inner())?.iter().map(|&l| f64::from(l)).sum();
        let mut gradients = loss.backward();
        let slopes = leaves.into_iter().map(|leaf| match leaf.grad_remove(&mut gradients) {
            Some(slope) => slope,
            // Nothing in this micro-batch is compared with anything.
            None => leaf.inner().zeros_like(),
        });
        Ok(Some((figure, slopes.collect())))
    }
}

/// Cross-entropy of token j by head 1 of a frozen model, `[B * S]`, from its hidden states `[B, S, D]`.
pub(super) fn head_1_ce(model: &dyn CausalLm, hidden: Tensor<3>, batch: &Batch) -> Result<Vec<f32>, ScorerError> {
    let head = HeadHidden::everywhere(1, hidden);
    let targets = HeadTargets::of(batch, 1);
    Ok(token_ce(head, &targets, model.unembedding(), batch, model.compute())?)
}
