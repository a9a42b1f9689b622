//! From a micro-batch to the weights of its tokens: the scorer and the normaliser behind one lock.

use super::{
    JointValue, LossConfig,
    forward::Forward,
    loss::{HeadHidden, HeadTargets, token_ce},
};
use burn::tensor::Tensor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wmtp_data::Batch;
use wmtp_model::{CausalLm, Compute};
use wmtp_scorer::{Normaliser, ScoreInput, Scorer, ScorerError, WeightGroup, WeightsReport};

/// The scorer, the normaliser and the loss's settings, shared by all clones of the module.
#[derive(Clone)]
pub struct TokenWeighting {
    scorer: Arc<Mutex<Box<dyn Scorer>>>,
    normaliser: Normaliser,
    /// Over which tokens the mean weight is 1.
    pub(super) over: WeightGroup,
    pub(super) loss: LossConfig,
    /// The value head's part, where it learns along.
    pub(super) joint: Option<JointValue>,
}

impl std::fmt::Debug for TokenWeighting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenWeighting")
            .field("over", &self.over)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

/// What turns hidden states into cross-entropies, outside of autodiff.
pub(super) struct FrozenHead {
    /// `[V, D]`.
    pub unembedding: Tensor<2>,
    pub compute: Compute,
}

impl TokenWeighting {
    /// Puts the parts together.
    pub fn new(
        scorer: Box<dyn Scorer>,
        normaliser: Normaliser,
        over: WeightGroup,
        loss: LossConfig,
        joint: Option<JointValue>,
    ) -> Self {
        Self {
            scorer: Arc::new(Mutex::new(scorer)),
            normaliser,
            over,
            loss,
            joint,
        }
    }

    fn scorer(&self) -> MutexGuard<'_, Box<dyn Scorer>> {
        self.scorer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weights of the micro-batches of a group from their scores. The scorer may rearrange the scores of
    /// the group first.
    pub(super) fn weights(&self, batches: &[Batch], scores: &mut [Vec<f32>]) -> WeightsReport {
        let mut scorer = self.scorer();
        scorer.rearrange(batches, scores);
        self.normaliser.weights(&scorer.policy(), batches, scores)
    }

    /// Head 1's hidden states for the scorer: at all positions, where head 1 has a target, or None,
    /// whichever the scorer needs.
    pub(super) fn hidden(&self, forward: &Forward<'_>, targets: &HeadTargets) -> Option<HeadHidden> {
        let needs = self.scorer().needs();
        if needs.hidden {
            Some(forward.head(1, (0..forward.positions()).collect()))
        } else {
            needs.ce.then(|| forward.head(1, targets.positions.clone()))
        }
    }

    /// Calls the scorer with a micro-batch of `step` (optimizer steps from 0) and with what it needs of
    /// head 1, from [`Self::hidden`] and outside of autodiff.
    pub(super) fn with_scorer<T>(
        &self,
        head: FrozenHead,
        batch: &Batch,
        step: usize,
        hidden_detached: Option<HeadHidden>,
        targets: &HeadTargets,
        call: impl FnOnce(&mut dyn Scorer, &ScoreInput<'_>) -> Result<T, ScorerError>,
    ) -> Result<T, ScorerError> {
        let mut scorer = self.scorer();
        let needs = scorer.needs();
        let hidden = hidden_detached.as_ref().filter(|_| needs.hidden).map(|head| {
            let hidden = head.hidden.clone();
            let size = hidden.dims()[1];
            hidden.reshape([batch.rows, batch.seq_len, size])
        });
        let ce = hidden_detached
            .filter(|_| needs.ce)
            .map(|hidden| token_ce(hidden, targets, head.unembedding, batch, head.compute))
            .transpose()?;
        let input = ScoreInput {
            batch,
            hidden,
            ce: ce.as_deref(),
            step,
        };
        call(scorer.as_mut(), &input)
    }

    /// Weights of a step's micro-batches where the whole step is one group: every score is needed before
    /// the first backward pass, which costs a forward pass of its own. `model` is without autodiff.
    pub(super) fn weights_of_step(
        &self,
        model: &dyn CausalLm,
        batches: &[Batch],
        step: usize,
    ) -> Result<WeightsReport, ScorerError> {
        let device = model.unembedding().device();
        let mut scores = Vec::with_capacity(batches.len());
        for batch in batches {
            let targets = HeadTargets::of(batch, 1);
            let needs = self.scorer().needs();
            let hidden = (needs.hidden || needs.ce)
                .then(|| Forward::of(model, batch, &device, false))
                .and_then(|forward| self.hidden(&forward, &targets));
            let head = FrozenHead {
                unembedding: model.unembedding(),
                compute: model.compute(),
            };
            scores.push(self.with_scorer(head, batch, step, hidden, &targets, |scorer, input| scorer.score(input))?);
        }
        Ok(self.weights(batches, &mut scores))
    }
}
