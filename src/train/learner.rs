//! The module that is trained, with the scorer that weighs its tokens.

use super::{
    LossConfig,
    grads::{self, accumulate},
    loss::{HeadStates, head_ce, loss_rows, rows_of, term_weights, to_f32, token_ce, weighted_loss},
    value::joint_value_loss,
};
use crate::{
    data::{Batch, Tokenizer},
    scorer::{CriticConfig, Normaliser, Policy, ScoreInput, Scorer, ScorerError, WeightGroup, WeightsReport},
};
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, ExecutionError, Tensor},
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep},
};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use wmtp_model::{AttentionContext, MtpLlama, Packed, ValueHead};

/// Everything that one optimizer step is computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct StepBatch {
    /// The micro-batches, in order.
    pub micro: Vec<Batch>,
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

/// What a step computed, all on the host.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// The weighted loss; of a validation step the unweighted one.
    pub loss: f64,
    /// Unweighted mean cross-entropy in nats of each head, over its targets with a weight above 0.
    pub ce_heads: Vec<f64>,
    /// Response tokens (the denominator).
    pub response_tokens: usize,
    /// Tokens read.
    pub tokens: usize,
    /// Mean, smallest and largest weight and the entropy of their distribution, divided by that of
    /// equal weights. None in validation.
    pub weights: Option<WeightStats>,
    /// Groups whose scores were not finite, with the first one's place.
    pub fallbacks: usize,
    /// Groups that were weighed.
    pub groups: usize,
    /// Where the first fallback happened: "document mbpp/601/reference, token 17".
    pub first_fallback: Option<String>,
    /// The value head's loss, where it is trained along.
    pub value_loss: Option<f64>,
    /// An error that ended the step early; everything else is then meaningless.
    pub failure: Option<String>,
}

/// Statistics of a step's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightStats {
    /// Mean, 1 up to 1e-4.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Entropy of w / sum w over the log of their number: 1 for equal weights.
    pub entropy: f64,
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

/// What a checkpoint holds beside the weights.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
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

/// A value head that learns along with the model (`critic.value: joint`).
#[derive(Clone, Debug)]
pub struct JointValue {
    /// The critic's settings: discount, spread, loss weight.
    pub config: CriticConfig,
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

    fn scorer(&self) -> MutexGuard<'_, Box<dyn Scorer>> {
        self.scorer.lock().unwrap_or_else(PoisonError::into_inner)
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
    weigher: Weigher,
    #[module(skip)]
    assets: Arc<Assets>,
}

/// One forward pass through the trunk, from which heads are taken.
struct Forward<'a> {
    model: &'a MtpLlama,
    trunk: Tensor<3>,
    context: AttentionContext,
    /// The embedded tokens `[B * S, D]` where they are a leaf of the graph.
    embedded: Option<Tensor<2>>,
}

impl<'a> Forward<'a> {
    /// With `cut`, the graph starts at the embedded tokens: their gradient is added to the
    /// embedding's afterwards, in place, where autodiff would make a second matrix of its size.
    fn of(model: &'a MtpLlama, batch: &Batch, device: &Device, cut: bool) -> Self {
        let input = packed(batch, device);
        let context = model.context(&input);
        let embedded = cut.then(|| model.embedded(&input).require_grad());
        let trunk = match &embedded {
            Some(rows) => model.trunk_of(rows.clone(), &context),
            None => model.trunk(&input, &context),
        };
        Self {
            model,
            trunk,
            context,
            embedded,
        }
    }

    fn head(&self, k: usize, rows: Vec<usize>) -> HeadStates {
        HeadStates::at(self.model, k, self.trunk.clone(), &self.context, rows)
    }
}

/// `batch` as `model` computes it at the least cost: without padding where attention goes document by
/// document, as it is elsewhere.
pub fn unpadded<'a>(model: &MtpLlama, batch: &'a Batch) -> Cow<'a, Batch> {
    if model.attends_by_document() {
        Cow::Owned(batch.without_padding())
    } else {
        Cow::Borrowed(batch)
    }
}

impl WeightedMtp {
    /// A module that trains `model` (and `value`, if given) with the weigher's weights.
    pub fn new(model: MtpLlama, value: Option<ValueHead>, weigher: Weigher, assets: Assets) -> Self {
        Self {
            model,
            value,
            weigher,
            assets: Arc::new(assets),
        }
    }

    /// What a checkpoint holds beside the weights.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Where head 1 has to be known before the weights are: everywhere, where it has a target, or not
    /// at all.
    fn rows_before_weights(&self, batch: &Batch, scores_are_known: bool) -> Option<Vec<usize>> {
        let needs = self.weigher.scorer().needs();
        if self.weigher.joint.is_some() || (needs.hidden && !scores_are_known) {
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
        Ok((scorer.score(&input)?, scorer.policy()))
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
            let forward = Forward::of(&model, batch, &device, cut);
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
                        rows: head.rows.clone(),
                    });
                    let (scores, policy) = self.score(batch, detached, unembedding.clone().inner())?;
                    own = self
                        .weigher
                        .normaliser
                        .weights(&policy, std::slice::from_ref(batch), &[scores]);
                    tally.add_weights(&own, std::slice::from_ref(batch));
                    &own.weights[0]
                }
            };
            let value_loss = match (&self.value, &self.weigher.joint, &head1) {
                (Some(value), Some(joint), Some(head1)) => {
                    let size = model.config().hidden_size;
                    let hidden = head1.states.clone().reshape([batch.rows, batch.seq_len, size]);
                    Some(joint_value_loss(value, hidden, batch, &joint.config, denominator)?)
                }
                _ => None,
            };
            let terms = term_weights(batch, weights, model.n_heads(), &self.weigher.loss);
            let heads: Vec<HeadStates> = (1..=model.n_heads())
                .map(|k| match head1.take() {
                    Some(head1) => head1,
                    None => forward.head(k, loss_rows(batch, &terms, k)),
                })
                .collect();
            let rows: Vec<Vec<usize>> = heads.iter().map(|head| head.rows.clone()).collect();
            let out = weighted_loss(
                heads,
                unembedding,
                batch,
                &terms,
                denominator,
                &self.weigher.loss,
                model.compute(),
            );
            tally.add_loss(batch, &terms, &rows, out.loss.clone(), out.ce);
            let embedded = forward.embedded;
            let mut total = out.loss;
            if let (Some(loss), Some(joint)) = (value_loss, &self.weigher.joint) {
                tally.add_value(loss.clone());
                total = total + loss.mul_scalar(joint.config.value_weight);
            }
            let mut all = total.backward();
            let rows = embedded.and_then(|embedded| embedded.grad_remove(&mut all));
            let mut fresh = GradientsParams::from_grads(all, self);
            if let Some(rows) = rows {
                let ids = batch.tokens_tensor(&rows.device()).flatten(0, 1);
                grads::add_embedded(&mut fresh, &model, ids, rows);
            }
            accumulate(self, &mut grads, fresh);
        }
        if let Some(report) = &ahead {
            tally.add_weights(report, &self.unpadded(step));
        }
        Ok((grads, tally.finish()))
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
        Ok(self.weigher.normaliser.weights(&policy, &batches, &scores))
    }

    /// All micro-batches of a step as [`unpadded`] makes them.
    fn unpadded(&self, step: &StepBatch) -> Vec<Batch> {
        let batches = step.micro.iter();
        batches.map(|batch| unpadded(&self.model, batch).into_owned()).collect()
    }
}

/// A batch's tensors on a device.
pub fn packed(batch: &Batch, device: &Device) -> Packed {
    Packed {
        tokens: batch.tokens_tensor(device),
        positions: batch.positions_tensor(device),
        docs: batch.docs_tensor(device),
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
                let ce = head_ce(head, self.model.unembedding(), batch, k, self.model.compute());
                tally.add_ce(k - 1, rows.into_iter().map(|row| ce[row]));
            }
        }
        let heads = self.model.n_heads() as f64;
        let denominator = tally.output.response_tokens.max(1) as f64;
        tally.output.loss = tally.ce_sums.iter().sum::<f64>() / heads / denominator;
        tally.finish()
    }
}

/// Adds up a step's figures in f64 on the host.
struct Tally {
    output: StepOutput,
    ce_sums: Vec<f64>,
    ce_counts: Vec<usize>,
    weights: Vec<f32>,
}

impl Tally {
    fn new(heads: usize, step: &StepBatch) -> Self {
        let output = StepOutput {
            response_tokens: step.response_tokens(),
            tokens: step.tokens(),
            ..StepOutput::default()
        };
        Self {
            output,
            ce_sums: vec![0.0; heads],
            ce_counts: vec![0; heads],
            weights: Vec::new(),
        }
    }

    fn add_ce(&mut self, head: usize, ce: impl Iterator<Item = f32>) {
        for ce in ce {
            self.ce_sums[head] += f64::from(ce);
            self.ce_counts[head] += 1;
        }
    }

    /// `rows` are those of each head, in whose order `ce` lies.
    fn add_loss(&mut self, batch: &Batch, terms: &[f64], rows: &[Vec<usize>], loss: Tensor<1>, ce: Tensor<1>) {
        self.output.loss += to_f32(loss).iter().map(|&l| f64::from(l)).sum::<f64>();
        let ce = to_f32(ce);
        let mut ce = ce.iter();
        for ((rows, terms), k) in rows.iter().zip(terms.chunks(batch.tokens.len().max(1))).zip(1..) {
            let valid = batch.valid(k);
            let of_head = rows.iter().zip(ce.by_ref());
            let kept: Vec<f32> = of_head
                .filter_map(|(&row, &ce)| (valid[row] && terms[row] != 0.0).then_some(ce))
                .collect();
            self.add_ce(k - 1, kept.into_iter());
        }
    }

    fn add_value(&mut self, loss: Tensor<1>) {
        let loss = to_f32(loss).iter().map(|&l| f64::from(l)).sum::<f64>();
        *self.output.value_loss.get_or_insert(0.0) += loss;
    }

    fn add_weights(&mut self, report: &WeightsReport, batches: &[Batch]) {
        self.output.groups += report.groups;
        self.output.fallbacks += report.fallbacks.len();
        if self.output.first_fallback.is_none() {
            self.output.first_fallback = report
                .fallbacks
                .first()
                .map(|f| format!("{}, token {}", f.document, f.position));
        }
        for (batch, weights) in batches.iter().zip(&report.weights) {
            let response = batch.response.iter().zip(weights);
            self.weights.extend(response.filter_map(|(&r, &w)| r.then_some(w)));
        }
    }

    fn finish(mut self) -> StepOutput {
        self.output.ce_heads = self
            .ce_sums
            .iter()
            .zip(&self.ce_counts)
            .map(|(sum, &n)| if n == 0 { 0.0 } else { sum / n as f64 })
            .collect();
        if !self.weights.is_empty() {
            self.output.weights = Some(WeightStats::of(&self.weights));
        }
        self.output
    }
}

impl WeightStats {
    /// Statistics of some weights; of none, all 0.
    pub fn of(weights: &[f32]) -> Self {
        let n = weights.len() as f64;
        let w = || weights.iter().map(|&w| f64::from(w));
        let sum: f64 = w().sum();
        let entropy: f64 = w().filter(|&w| w > 0.0).map(|w| -(w / sum) * (w / sum).ln()).sum();
        Self {
            mean: if n > 0.0 { sum / n } else { 0.0 },
            min: w().fold(f64::INFINITY, f64::min),
            max: w().fold(f64::NEG_INFINITY, f64::max),
            entropy: if n > 1.0 { entropy / n.ln() } else { 1.0 },
        }
    }
}
