//! The value head that learns along with the model (`scorer.value: joint`).
//!
//! Each optimizer step has labelled solutions of its own, right and wrong ones: from references alone,
//! whose reward is always 1, a head would learn the constant 1. The value loss is stage 1's
//! ([`loss::of_step`]) over all of them, times `scorer.value_weight`; its gradient reaches the head and,
//! through head 1's hidden states, the model.

use crate::scorer::{CriticConfig, SequenceReward};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wmtp_model::ValueHead;

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

    /// Puts a newer head in its place, outside of autodiff as well.
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

    pub(super) fn rewards(&self) -> MutexGuard<'_, Box<dyn SequenceReward>> {
        self.rewards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
