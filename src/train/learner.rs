//! The module that is trained, with the scorer that weighs its tokens.

use super::{
    HeadOrder, LossConfig, StepOutput,
    forward::{Forward, unpadded},
    grads::{self, accumulate},
    loss::{HeadStates, head_ce, loss_rows, rows_of, term_weights, token_ce, weighted_loss},
    tally::Tally,
    value::JointValue,
};
use crate::{
    data::Batch,
    scorer::{Normaliser, Policy, ScoreInput, Scorer, ScorerError, WeightGroup, WeightsReport},
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Gradients, Tensor},
    train::{InferenceStep, TrainOutput, TrainStep},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wmtp_model::{Companions, MtpLlama, ValueHead};

/// Everything that one optimizer step is computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepBatch {
    /// The micro-batches, in order.
    pub micro: Vec<Batch>,
    /// Labelled solutions, right and wrong ones, for the value loss; empty where no value head learns.
    pub labelled: Vec<Batch>,
    /// Only heads 2..H learn from it (`train.head_warmup`).
    pub heads_only: bool,
}

impl StepBatch {
    /// The loss's denominator: response tokens of all micro-batches.
    pub fn response_tokens(&self) -> usize {
        self.micro.iter().map(Batch::response_tokens).sum()
    }

    /// Tokens that the model reads, prompts included, padding not.
    pub fn tokens(&self) -> usize {
        self.micro.iter().flat_map(|b| &b.documents).map(|d| d.len).sum()
    }
}

/// What a checkpoint holds beside the weights.
#[derive(Clone, Debug)]
pub struct Assets {
    /// Tokenizer, chat template and generation settings of the base model, as files.
    pub companions: Companions,
    /// Hash of the model that the value head belongs to.
    pub model_hash: String,
    /// Set if low-rank adapters are trained.
    pub lora: Option<LoraAssets>,
}

/// What an adapter's configuration says.
#[derive(Clone, Debug)]
pub struct LoraAssets {
    /// The base model's directory or URI, as the recipe names it.
    pub base: String,
    /// Rank.
    pub rank: usize,
    /// Scale numerator.
    pub alpha: f64,
}

/// The scorer, the normaliser and the loss's settings, shared by all clones of the module.
#[derive(Clone)]
pub struct Weigher {
    scorer: Arc<Mutex<Box<dyn Scorer>>>,
    normaliser: Normaliser,
    over: WeightGroup,
    loss: LossConfig,
    joint: Option<JointValue>,
}

impl std::fmt::Debug for Weigher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weigher")
            .field("over", &self.over)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

impl Weigher {
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

    /// The value head's part, where it learns along.
    pub(super) fn joint(&self) -> Option<&JointValue> {
        self.joint.as_ref()
    }

    fn scorer(&self) -> MutexGuard<'_, Box<dyn Scorer>> {
        self.scorer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weights of micro-batches from their scores, which are put in the scorer's order for the group.
    pub(super) fn weights(&self, policy: &Policy, batches: &[Batch], scores: &mut [Vec<f32>]) -> WeightsReport {
        self.scorer().rearrange(batches, scores);
        self.normaliser.weights(policy, batches, scores)
    }
}

/// A multi-token Llama under training, with any [`Scorer`].
#[derive(Module, Debug)]
pub struct WeightedMtp {
    /// The model.
    pub model: MtpLlama,
    /// The value head, if it is part of what is trained.
    pub value: Option<ValueHead>,
    #[module(skip)]
    pub(super) weigher: Weigher,
    #[module(skip)]
    heads: HeadOrder,
    #[module(skip)]
    assets: Arc<Assets>,
}

impl WeightedMtp {
    /// A module that trains `model` (and `value`, if given) with the weigher's weights.
    pub fn new(model: MtpLlama, value: Option<ValueHead>, weigher: Weigher, assets: Assets) -> Self {
        Self {
            model,
            value,
            weigher,
            heads: HeadOrder::Together,
            assets: Arc::new(assets),
        }
    }

    /// The same with heads in this order.
    pub fn with_heads(mut self, heads: HeadOrder) -> Self {
        self.heads = heads;
        self
    }

    /// What a checkpoint holds beside the weights.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Where head 1 has to be known before the weights are: everywhere, where it has a target, or not
    /// at all.
    pub(super) fn rows_before_weights(&self, batch: &Batch, scores_are_known: bool) -> Option<Vec<usize>> {
        let needs = self.weigher.scorer().needs();
        if needs.hidden && !scores_are_known {
            Some((0..batch.tokens.len()).collect())
        } else {
            (needs.ce && !scores_are_known).then(|| rows_of(&batch.valid(1)))
        }
    }

    /// Scores of one micro-batch from head 1's states (no gradient) at [`Self::rows_before_weights`],
    /// with the scorer's policy.
    fn score(
        &self,
        batch: &Batch,
        head1: Option<HeadStates>,
        unembedding: Tensor<2>,
    ) -> Result<(Vec<f32>, Policy), ScorerError> {
        self.ask(batch, head1, unembedding, |scorer, input| {
            Ok((scorer.score(input)?, scorer.policy()))
        })
    }

    /// Gives the scorer a micro-batch with what it needs of head 1's states (no gradient) at
    /// [`Self::rows_before_weights`].
    pub(super) fn ask<T>(
        &self,
        batch: &Batch,
        head1: Option<HeadStates>,
        unembedding: Tensor<2>,
        what: impl FnOnce(&mut dyn Scorer, &ScoreInput<'_>) -> Result<T, ScorerError>,
    ) -> Result<T, ScorerError> {
        let mut scorer = self.weigher.scorer();
        let needs = scorer.needs();
        let hidden = head1.as_ref().filter(|_| needs.hidden).map(|head| {
            let states = head.states.clone();
            let size = states.dims()[1];
            states.reshape([batch.rows, batch.seq_len, size])
        });
        let ce = head1
            .filter(|_| needs.ce)
            .map(|head| token_ce(head, unembedding, batch, self.model.compute()));
        let input = ScoreInput {
            batch,
            hidden,
            ce: ce.as_deref(),
            step: 0,
        };
        what(scorer.as_mut(), &input)
    }

    /// Gradients and figures of one optimizer step, all micro-batches of it.
    fn gradients(&self, step: &StepBatch) -> Result<(GradientsParams, StepOutput), ScorerError> {
        let device = self.model.unembedding().device();
        let denominator = step.response_tokens();
        let mut tally = Tally::new(self.model.n_heads(), step);
        let mut grads = GradientsParams::new();
        if denominator == 0 {
            return Ok((grads, tally.output));
        }
        self.renew_value();
        let model = if step.heads_only {
            self.model.clone().only_extra_heads_learn()
        } else {
            self.model.clone()
        };
        // Over the whole step, weights need every score before the first backward pass.
        let ahead = match self.weigher.over {
            WeightGroup::Step => Some(self.step_weights(step)?),
            WeightGroup::Document => None,
        };
        // Adapters change the embedding inside of the graph.
        let cut = !step.heads_only && !self.assets.is_lora();
        for (i, batch) in step.micro.iter().enumerate() {
            let batch = &*unpadded(&model, batch);
            let mut forward = Forward::of(&model, batch, &device, cut);
            let groups: Vec<Vec<usize>> = match self.heads {
                HeadOrder::Together => vec![(1..=model.n_heads()).collect()],
                HeadOrder::InTurn => {
                    forward = forward.with_heads_in_turn(!step.heads_only);
                    (1..=model.n_heads()).map(|k| vec![k]).collect()
                }
            };
            let unembedding = model.unembedding();
            let mut head1 = self
                .rows_before_weights(batch, ahead.is_some())
                .map(|rows| forward.head(1, rows));
            let own;
            let weights = match &ahead {
                Some(report) => &report.weights[i],
                None => {
                    let detached = head1.as_ref().map(|head| HeadStates {
                        states: head.states.clone().inner(),
                        ..head.clone()
                    });
                    let (scores, policy) = self.score(batch, detached, unembedding.clone().inner())?;
                    own = self
                        .weigher
                        .weights(&policy, std::slice::from_ref(batch), &mut [scores]);
                    tally.add_weights(&own, std::slice::from_ref(batch));
                    &own.weights[0]
                }
            };
            let terms = term_weights(batch, weights, model.n_heads(), &self.weigher.loss);
            for group in groups {
                // Head 1 with the trunk at rest has nothing to learn.
                let learns = !step.heads_only || group.iter().any(|&k| k > 1);
                let heads: Vec<HeadStates> = group
                    .into_iter()
                    .map(|k| {
                        let known = if k == 1 { head1.take() } else { None };
                        known.unwrap_or_else(|| forward.head(k, loss_rows(batch, &terms, k)))
                    })
                    .collect();
                let rows: Vec<_> = heads.iter().map(|head| (head.k, head.rows.clone())).collect();
                let out = weighted_loss(
                    heads,
                    unembedding.clone(),
                    batch,
                    &terms,
                    denominator,
                    &self.weigher.loss,
                    model.compute(),
                );
                tally.add_loss(batch, &terms, &rows, out.loss.clone(), out.ce);
                if learns {
                    let mut all = out.loss.backward();
                    forward.take(&mut all);
                    self.collect(all, forward.embedded.as_ref(), batch, &mut grads);
                }
            }
            if let Some(all) = forward.backward() {
                self.collect(all, forward.embedded.as_ref(), batch, &mut grads);
            }
        }
        tally.output.value_loss = self.learn_value(&model, step, cut, &mut grads)?;
        if let Some(report) = &ahead {
            tally.add_weights(report, &self.unpadded(step));
        }
        Ok((grads, tally.finish()))
    }

    /// Adds what a backward pass found to `grads`; the embedded tokens' part goes to the embedding.
    pub(super) fn collect(
        &self,
        mut all: Gradients,
        embedded: Option<&Tensor<2>>,
        batch: &Batch,
        grads: &mut GradientsParams,
    ) {
        let rows = embedded.and_then(|embedded| embedded.grad_remove(&mut all));
        let mut fresh = GradientsParams::from_grads(all, self);
        if let Some(rows) = rows {
            let ids = batch.tokens_tensor(&rows.device()).flatten(0, 1);
            grads::add_embedded(&mut fresh, &self.model, ids, rows);
        }
        accumulate(self, grads, fresh);
    }

    fn step_weights(&self, step: &StepBatch) -> Result<WeightsReport, ScorerError> {
        let plain = self.valid();
        let device = plain.model.unembedding().device();
        let mut scores = Vec::with_capacity(step.micro.len());
        let mut policy = Policy::Softmax;
        let batches = self.unpadded(step);
        for batch in &batches {
            let head1 = plain
                .rows_before_weights(batch, false)
                .map(|rows| Forward::of(&plain.model, batch, &device, false).head(1, rows));
            let (of_batch, of_scorer) = plain.score(batch, head1, plain.model.unembedding())?;
            scores.push(of_batch);
            policy = of_scorer;
        }
        Ok(self.weigher.weights(&policy, &batches, &mut scores))
    }

    /// All micro-batches of a step as [`unpadded`] makes them.
    fn unpadded(&self, step: &StepBatch) -> Vec<Batch> {
        let batches = step.micro.iter();
        batches.map(|batch| unpadded(&self.model, batch).into_owned()).collect()
    }
}

impl TrainStep for WeightedMtp {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, item: StepBatch) -> TrainOutput<StepOutput> {
        let (grads, item) = self.gradients(&item).unwrap_or_else(|error| {
            let failed = StepOutput {
                failure: Some(error.to_string()),
                ..StepOutput::default()
            };
            (GradientsParams::new(), failed)
        });
        TrainOutput { grads, item }
    }
}

impl InferenceStep for WeightedMtp {
    type Input = StepBatch;
    type Output = StepOutput;

    /// The unweighted loss, so that arms with different scorers can be compared.
    fn step(&self, item: StepBatch) -> StepOutput {
        let device = self.model.unembedding().device();
        let mut tally = Tally::new(self.model.n_heads(), &item);
        for batch in &item.micro {
            let batch = &*unpadded(&self.model, batch);
            let forward = Forward::of(&self.model, batch, &device, false);
            for k in 1..=self.model.n_heads() {
                let rows = rows_of(&batch.valid(k));
                let head = forward.head(k, rows.clone());
                let ce = head_ce(head, self.model.unembedding(), batch, self.model.compute());
                tally.add_ce(k - 1, rows.into_iter().map(|row| ce[row]));
            }
        }
        let heads = self.model.n_heads() as f64;
        let denominator = tally.output.response_tokens.max(1) as f64;
        tally.output.loss = tally.ce_sums.iter().sum::<f64>() / heads / denominator;
        tally.finish()
    }
}
