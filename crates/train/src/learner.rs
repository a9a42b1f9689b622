//! The module that is trained, and the gradients of one optimizer step of it.

use super::{
    HeadOrder, StepBatch, StepOutput, TokenWeighting,
    forward::Forward,
    grads::{self, accumulate},
    loss::{HeadHidden, HeadTargets, LossTerms, head_ce, weighted_loss},
    step::train_output,
    tally::Tally,
    tensors,
    weighting::FrozenHead,
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Gradients, Tensor},
    train::{InferenceStep, TrainOutput, TrainStep},
};
use std::{slice, sync::Arc};
use wmtp_data::Batch;
use wmtp_model::{CausalLm, Companions, MtpLlama, ValueHead};
use wmtp_scorer::{ScoreInput, Scorer, ScorerError, WeightGroup};

/// What a checkpoint holds in addition to the weights.
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

impl Assets {
    /// True if low-rank adapters are trained instead of the model.
    pub fn is_lora(&self) -> bool {
        self.lora.is_some()
    }
}

/// A multi-token Llama under training, with any scorer.
#[derive(Module, Debug)]
pub struct WeightedMtp {
    /// The model.
    pub model: MtpLlama,
    /// The value head, if it is part of what is trained.
    pub value: Option<ValueHead>,
    #[module(skip)]
    pub(super) weighting: TokenWeighting,
    #[module(skip)]
    heads: HeadOrder,
    #[module(skip)]
    assets: Arc<Assets>,
}

impl WeightedMtp {
    /// A module that trains `model` (and `value`, if given) with the weights of `weighting`.
    pub fn new(model: MtpLlama, value: Option<ValueHead>, weighting: TokenWeighting, assets: Assets) -> Self {
        Self {
            model,
            value,
            weighting,
            heads: HeadOrder::Together,
            assets: Arc::new(assets),
        }
    }

    /// The same with heads in this order.
    pub fn with_heads(mut self, heads: HeadOrder) -> Self {
        self.heads = heads;
        self
    }

    /// What a checkpoint holds in addition to the weights.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Gradients and figures of one optimizer step, accumulated over its micro-batches: score, weigh,
    /// loss, backward.
    fn gradients(&self, step: &StepBatch) -> Result<(GradientsParams, StepOutput), ScorerError> {
        let mut tally = Tally::new(self.model.n_heads(), step);
        let mut grads = GradientsParams::new();
        if tally.output.response_tokens == 0 {
            return Ok((grads, tally.output));
        }
        self.renew_value();
        let model = if step.heads_only {
            self.model.clone().only_extra_heads_learn()
        } else {
            self.model.clone()
        };
        let mut step_weights = match self.weighting.over {
            WeightGroup::Document => None,
            WeightGroup::Step => {
                let plain = self.model.valid();
                let report = self.weighting.weights_of_step(&plain, &step.micro_batches, step.step)?;
                tally.add_weights(&report, &step.micro_batches);
                Some(report.weights.into_iter())
            }
        };
        for batch in &step.micro_batches {
            let targets = HeadTargets::of_heads(batch, model.n_heads());
            let mut forward = self.forward(&model, batch, step);
            let (weights, head_1) = match &mut step_weights {
                Some(weights) => (weights.next().unwrap_or_default(), None),
                None => self.score_and_weigh(&forward, batch, step, &targets[0], &mut tally)?,
            };
            let terms = LossTerms::new(batch, targets, &weights, &self.weighting.loss);
            self.loss_and_backward(&mut forward, batch, step, &terms, head_1, &mut tally, &mut grads)?;
        }
        if let (Some(value), Some(joint)) = (&self.value, &self.weighting.joint) {
            let cut = self.cuts_at_embedding(step);
            tally.output.value_loss = joint.learn(&model, value, &step.labelled, cut, |all, embedded, batch| {
                self.collect(all, embedded, batch, &mut grads);
            })?;
        }
        Ok((grads, tally.finish()))
    }

    /// Hands the scorer the value head as it is at this step.
    pub(super) fn renew_value(&self) {
        if let (Some(value), Some(joint)) = (&self.value, &self.weighting.joint) {
            joint.current.set(value.valid());
        }
    }

    /// The forward pass of a micro-batch through the trunk.
    fn forward<'a>(&self, model: &'a MtpLlama, batch: &Batch, step: &StepBatch) -> Forward<'a> {
        let device = model.unembedding().device();
        let forward = Forward::of(model, batch, &device, self.cuts_at_embedding(step));
        match self.heads {
            HeadOrder::Together => forward,
            HeadOrder::Sequential => forward.with_sequential_heads(!step.heads_only),
        }
    }

    /// Whether the graph may start at the embedded tokens (see [`Forward::of`]): adapters change the
    /// embedding inside of the graph, and while only extra heads learn it has no gradient.
    fn cuts_at_embedding(&self, step: &StepBatch) -> bool {
        !step.heads_only && !self.assets.is_lora()
    }

    /// The weights of a micro-batch's tokens `[B * S]`, each document a group of its own, and head 1's
    /// hidden states with their graph if the scorer needed them.
    fn score_and_weigh(
        &self,
        forward: &Forward<'_>,
        batch: &Batch,
        step: &StepBatch,
        targets: &HeadTargets,
        tally: &mut Tally,
    ) -> Result<(Vec<f32>, Option<HeadHidden>), ScorerError> {
        let head_1 = self.weighting.hidden(forward, targets);
        let hidden_detached = head_1.as_ref().map(HeadHidden::detached);
        let head = FrozenHead {
            unembedding: self.model.unembedding().inner(),
            compute: self.model.compute(),
        };
        let score = |scorer: &mut dyn Scorer, input: &ScoreInput<'_>| scorer.score(input);
        let scores = self
            .weighting
            .with_scorer(head, batch, step.step, hidden_detached, targets, score)?;
        let batches = slice::from_ref(batch);
        let mut report = self.weighting.weights(batches, &mut [scores]);
        tally.add_weights(&report, batches);
        Ok((report.weights.pop().unwrap_or_default(), head_1))
    }

    /// Adds the gradients of a micro-batch's loss to `grads`: one backward pass for all heads, or one for
    /// each and then the trunk's.
    #[allow(clippy::too_many_arguments)]
    fn loss_and_backward(
        &self,
        forward: &mut Forward<'_>,
        batch: &Batch,
        step: &StepBatch,
        terms: &LossTerms,
        mut head_1: Option<HeadHidden>,
        tally: &mut Tally,
        grads: &mut GradientsParams,
    ) -> Result<(), ScorerError> {
        let heads: Vec<usize> = (1..=self.model.n_heads()).collect();
        let heads_of_a_pass = match self.heads {
            HeadOrder::Together => heads.len(),
            HeadOrder::Sequential => 1,
        };
        for heads in heads.chunks(heads_of_a_pass.max(1)) {
            // Head 1 with the trunk at rest has nothing to learn.
            let learns = !step.heads_only || heads.iter().any(|&k| k > 1);
            let hidden: Vec<HeadHidden> = heads
                .iter()
                .map(|&k| {
                    let scored = if k == 1 { head_1.take() } else { None };
                    scored.unwrap_or_else(|| forward.head(k, terms.positions(k)))
                })
                .collect();
            let positions: Vec<_> = hidden.iter().map(|head| (head.k, head.positions.clone())).collect();
            let found = weighted_loss(
                hidden,
                forward.unembedding(),
                terms,
                tally.output.response_tokens,
                &self.weighting.loss,
                self.model.compute(),
            );
            let loss = found.loss.clone();
            tally.add_loss(terms, &positions, found)?;
            if learns {
                let mut all = loss.backward();
                forward.collect_trunk_gradient(&mut all);
                self.collect(all, forward.embedded.as_ref(), batch, grads);
            }
        }
        if let Some(all) = forward.trunk_backward() {
            self.collect(all, forward.embedded.as_ref(), batch, grads);
        }
        Ok(())
    }

    /// Adds what a backward pass found to `grads`; the embedded tokens' part goes to the embedding.
    fn collect(&self, mut all: Gradients, embedded: Option<&Tensor<2>>, batch: &Batch, grads: &mut GradientsParams) {
        let embedded_gradient = embedded.and_then(|embedded| embedded.grad_remove(&mut all));
        let mut fresh = GradientsParams::from_grads(all, self);
        if let Some(gradient) = embedded_gradient {
            let ids = tensors::tokens(batch, &gradient.device()).flatten(0, 1);
            grads::add_embedded(&mut fresh, &self.model, ids, gradient);
        }
        accumulate(self, grads, fresh);
    }

    /// The unweighted loss, so that arms with different scorers can be compared.
    fn unweighted(&self, step: &StepBatch) -> Result<StepOutput, ScorerError> {
        let device = self.model.unembedding().device();
        let mut tally = Tally::new(self.model.n_heads(), step);
        for batch in &step.micro_batches {
            let forward = Forward::of(&self.model, batch, &device, false);
            for (k, targets) in (1..).zip(HeadTargets::of_heads(batch, self.model.n_heads())) {
                let head = forward.head(k, targets.positions.clone());
                let ce = head_ce(head, &targets, self.model.unembedding(), batch, self.model.compute())?;
                tally.add_ce(k - 1, targets.positions.into_iter().map(|position| ce[position]));
            }
        }
        let heads = self.model.n_heads() as f64;
        let denominator = tally.output.response_tokens.max(1) as f64;
        tally.output.loss = tally.ce_sums.iter().sum::<f64>() / heads / denominator;
        Ok(tally.finish())
    }
}

impl TrainStep for WeightedMtp {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, item: StepBatch) -> TrainOutput<StepOutput> {
        train_output(self.gradients(&item))
    }
}

impl InferenceStep for WeightedMtp {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, item: StepBatch) -> StepOutput {
        self.unweighted(&item).unwrap_or_else(StepOutput::failed)
    }
}
