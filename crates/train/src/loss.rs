//! The weighted multi-token loss (algorithms, section 3), on top of the fused kernel.

use super::{LambdaMode, LossConfig, WeightBy};
use burn::tensor::{DType, Int, Tensor, TensorData};
use wmtp_data::Batch;
use wmtp_device::{ReadError, to_f32};
use wmtp_kernels::{Accuracy, WeightedCrossEntropy, weighted_linear_cross_entropy_in};
use wmtp_model::{AttentionContext, CausalLm, Compute};

/// What one head has to predict in a micro-batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadTargets {
    /// The flat positions `b * S + t` from which the head has a target (`valid_k`), rising.
    pub positions: Vec<usize>,
    /// The token that it has to predict from each of them.
    pub targets: Vec<i32>,
}

impl HeadTargets {
    /// Head `k`'s, from 1.
    pub fn of(batch: &Batch, k: usize) -> Self {
        let targets = batch.targets(k).into_iter().enumerate();
        let (positions, targets) = targets.filter(|&(_, target)| target != Batch::NO_TARGET).unzip();
        Self { positions, targets }
    }

    /// Those of heads 1 to `heads`.
    pub fn of_heads(batch: &Batch, heads: usize) -> Vec<Self> {
        (1..=heads).map(|k| Self::of(batch, k)).collect()
    }

    /// The target at each of `positions`, which rise; [`Batch::NO_TARGET`] where there is none.
    fn at(&self, positions: &[usize]) -> Vec<i32> {
        let mut own = self.positions.iter().zip(&self.targets).peekable();
        let target = |&position: &usize| {
            while own.next_if(|(at, _)| **at < position).is_some() {}
            own.next_if(|(at, _)| **at == position)
                .map_or(Batch::NO_TARGET, |(_, &target)| target)
        };
        positions.iter().map(target).collect()
    }
}

/// The weight of the term CE_k(b, t) before it is divided, for every head and position:
/// `[H * B * S]`, head by head. `weights` are those of the tokens, `[B * S]`.
pub fn term_weights(batch: &Batch, weights: &[f32], heads: usize, config: &LossConfig) -> Vec<f64> {
    let strength = |w: f32| match config.lambda_mode {
        LambdaMode::Mix => 1.0 - config.lambda + config.lambda * f64::from(w),
        LambdaMode::Scale => config.lambda * f64::from(w),
    };
    let mut terms = Vec::with_capacity(heads * batch.tokens.len());
    for k in 1..=heads {
        let ahead = match config.weight_by {
            WeightBy::Position => 1,
            WeightBy::Target => k,
        };
        // Where t + ahead leaves the row there is no target either, so the weight is never used.
        terms.extend((0..batch.tokens.len()).map(|i| {
            let inside = i % batch.seq_len + ahead < batch.seq_len;
            if inside { strength(weights[i + ahead]) } else { 0.0 }
        }));
    }
    terms
}

/// The terms of a micro-batch's loss: what every head has to predict, and what each prediction weighs.
#[derive(Clone, Debug)]
pub struct LossTerms {
    targets: Vec<HeadTargets>,
    /// See [`term_weights`].
    weights: Vec<f64>,
    /// B * S.
    positions: usize,
}

impl LossTerms {
    /// From the targets of all heads and the tokens' weights, `[B * S]`.
    pub fn new(batch: &Batch, targets: Vec<HeadTargets>, weights: &[f32], config: &LossConfig) -> Self {
        Self {
            weights: term_weights(batch, weights, targets.len(), config),
            targets,
            positions: batch.tokens.len(),
        }
    }

    /// The positions whose terms are in head `k`'s loss: a target, and a weight that is not 0.
    pub fn positions(&self, k: usize) -> Vec<usize> {
        let weights = self.weights(k);
        let positions = self.targets[k - 1].positions.iter().copied();
        positions.filter(|&i| weights[i] != 0.0).collect()
    }

    /// Whether each of `positions`, which rise, is among those of [`LossTerms::positions`].
    pub(super) fn counted(&self, k: usize, positions: &[usize]) -> Vec<bool> {
        let weights = self.weights(k);
        let targets = self.targets[k - 1].at(positions).into_iter().zip(positions);
        targets
            .map(|(target, &i)| target != Batch::NO_TARGET && weights[i] != 0.0)
            .collect()
    }

    fn weights(&self, k: usize) -> &[f64] {
        &self.weights[(k - 1) * self.positions..k * self.positions]
    }
}

/// A head's hidden states at some positions.
#[derive(Clone, Debug)]
pub struct HeadHidden {
    /// Which head, from 1.
    pub k: usize,
    /// Hidden states after the final norm, `[R, D]`.
    pub hidden: Tensor<2>,
    /// The flat position `b * S + t` of each.
    pub positions: Vec<usize>,
}

impl HeadHidden {
    /// Head `k` at `positions`, in order. Nothing that only other positions need is computed.
    pub fn at(
        model: &dyn CausalLm,
        k: usize,
        trunk: Tensor<3>,
        context: &AttentionContext,
        mut positions: Vec<usize>,
    ) -> Self {
        let [batch, seq, _] = trunk.dims();
        if positions.len() == batch * seq {
            return Self::everywhere(k, model.head(k, trunk, context));
        }
        if positions.is_empty() {
            // Some backends refuse a tensor without rows; nothing reads this one.
            positions.push(0);
        }
        let indices: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
        let indices = Tensor::from_data(TensorData::new(indices, [positions.len()]), &trunk.device());
        Self {
            k,
            hidden: model.head_at(k, trunk, context, indices),
            positions,
        }
    }

    /// Hidden states `[B, S, D]` of head `k` at all positions.
    pub fn everywhere(k: usize, hidden: Tensor<3>) -> Self {
        let [batch, seq, _] = hidden.dims();
        Self {
            k,
            hidden: hidden.flatten(0, 1),
            positions: (0..batch * seq).collect(),
        }
    }

    /// The same outside of the autodiff graph.
    pub(super) fn detached(&self) -> Self {
        Self {
            k: self.k,
            hidden: self.hidden.clone().inner(),
            positions: self.positions.clone(),
        }
    }
}

/// `sum over b, t, valid k of weight(b, t, k) * CE_k(b, t) / (H * denominator)`.
///
/// `heads` holds the hidden states of all heads, or of those whose part of the sum is asked for, at
/// their [`LossTerms::positions`] at least; the result's `ce` is that of their positions, head by head,
/// 0 where a position has no target or no weight. `terms` are those of all H heads, `denominator` the
/// number of response tokens of the whole optimizer step.
pub fn weighted_loss(
    heads: Vec<HeadHidden>,
    unembedding: Tensor<2>,
    terms: &LossTerms,
    denominator: usize,
    config: &LossConfig,
    compute: Compute,
) -> WeightedCrossEntropy {
    let device = unembedding.device();
    let dtype = heads.first().map_or(DType::F32, |head| head.hidden.dtype());
    let scale = 1.0 / (terms.targets.len() as f64 * denominator.max(1) as f64);
    let (mut targets, mut scaled) = (Vec::new(), Vec::new());
    for head in &heads {
        let weights = terms.weights(head.k);
        targets.extend(terms.targets[head.k - 1].at(&head.positions));
        scaled.extend(head.positions.iter().map(|&i| weights[i] * scale));
    }
    let rows = targets.len();
    let hidden = Tensor::cat(heads.into_iter().map(|head| head.hidden).collect(), 0);
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
    let scaled = Tensor::<1>::from_data(TensorData::new(scaled, [rows]).convert_dtype(dtype), (&device, dtype));
    weighted_linear_cross_entropy_in(accuracy(compute, config.filter), hidden, unembedding, targets, scaled)
}

/// Where the loss rounds to bf16 in a model that is computed so, and what its gradient may leave out.
fn accuracy(compute: Compute, filter: f64) -> Accuracy {
    Accuracy {
        factors: compute.precision,
        gradient: compute.gradients,
        filter,
    }
}

/// Head 1's cross-entropy in nats **of token j**, `[B * S]`: CE_1 at position j - 1, 0 where
/// valid_1(j - 1) does not hold. No gradient. Head 1 is needed where it has `targets`.
///
/// # Errors
/// The device failed.
pub fn token_ce(
    head_1: HeadHidden,
    targets: &HeadTargets,
    unembedding: Tensor<2>,
    batch: &Batch,
    compute: Compute,
) -> Result<Vec<f32>, ReadError> {
    let ce = head_ce(head_1, targets, unembedding, batch, compute)?;
    let mut of_token = vec![0.0; ce.len()];
    for i in 0..ce.len() {
        if i % batch.seq_len + 1 < batch.seq_len {
            of_token[i + 1] = ce[i];
        }
    }
    Ok(of_token)
}

/// CE_k at every position, `[B * S]`, 0 where valid_k does not hold. No gradient. Head k is needed
/// where it has `targets`.
///
/// # Errors
/// The device failed.
pub fn head_ce(
    head: HeadHidden,
    targets: &HeadTargets,
    unembedding: Tensor<2>,
    batch: &Batch,
    compute: Compute,
) -> Result<Vec<f32>, ReadError> {
    let device = unembedding.device();
    let HeadHidden { hidden, positions, .. } = head;
    let targets = TensorData::new(targets.at(&positions), [positions.len()]);
    let targets = Tensor::<1, Int>::from_data(targets, &device);
    let ones = Tensor::<1>::ones([positions.len()], (&device, hidden.dtype()));
    let out = weighted_linear_cross_entropy_in(accuracy(compute, 0.0), hidden, unembedding, targets, ones);
    let mut ce = vec![0.0; batch.tokens.len()];
    for (position, value) in positions.into_iter().zip(to_f32(out.ce)?) {
        ce[position] = value;
    }
    Ok(ce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use wmtp_data::{Dataset, Tokenized};

    /// Two rows of four tokens, a document of two prompt tokens in each.
    fn batch() -> Batch {
        let document = |sample: usize| Tokenized {
            sample,
            name: sample.to_string(),
            problem: 0,
            tokens: vec![0, 1, 2, 3],
            prompt_len: 2,
            untrained: Vec::new(),
            given: Vec::new(),
            reward: None,
        };
        let data = Dataset::from_tokenized(vec![document(0), document(1)], 4, true).unwrap();
        data.in_order(2).step(0).unwrap().remove(0)
    }

    const WEIGHTS: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];

    fn config(weight_by: WeightBy, lambda_mode: LambdaMode, lambda: f64) -> LossConfig {
        LossConfig {
            weight_by,
            lambda,
            lambda_mode,
            ..LossConfig::default()
        }
    }

    #[test]
    fn terms_weigh_what_the_definition_says() {
        let of = |weight_by, mode, lambda| term_weights(&batch(), &WEIGHTS, 2, &config(weight_by, mode, lambda));
        // 1 - 0.25 + 0.25 w of the token after the position, for both heads; 0 at the ends of rows.
        let next = [1.0, 1.25, 1.5, 0.0, 2.0, 2.25, 2.5, 0.0];
        let after_next = [1.25, 1.5, 0.0, 0.0, 2.25, 2.5, 0.0, 0.0];
        let mix = |weight_by| of(weight_by, LambdaMode::Mix, 0.25);
        assert_eq!(mix(WeightBy::Position), [next, next].concat());
        assert_eq!(mix(WeightBy::Target), [next, after_next].concat());
        let scaled = of(WeightBy::Target, LambdaMode::Scale, 0.5);
        assert_eq!(scaled[..8], [0.5, 1.0, 1.5, 0.0, 2.5, 3.0, 3.5, 0.0]);
        assert_eq!(scaled[8..], [1.0, 1.5, 0.0, 0.0, 3.0, 3.5, 0.0, 0.0]);
    }

    #[test]
    fn the_loss_is_the_weighted_mean_over_heads_and_tokens() {
        let (batch, device) = (batch(), Device::flex());
        let config = config(WeightBy::Target, LambdaMode::Mix, 1.0);
        let terms = LossTerms::new(&batch, HeadTargets::of_heads(&batch, 2), &WEIGHTS, &config);
        let loss = |heads: &[usize]| {
            // Where all logits are 0, every cross-entropy is ln 4.
            let hidden = |&k: &usize| HeadHidden::everywhere(k, Tensor::zeros([2, 4, 3], &device));
            let unembedding = Tensor::zeros([4, 3], &device);
            let heads = heads.iter().map(hidden).collect();
            let loss = weighted_loss(heads, unembedding, &terms, 5, &config, Compute::default());
            f64::from(to_f32(loss.loss).unwrap()[0]) / 4f64.ln()
        };
        // Head 1 predicts the four response tokens 2, 3 of both rows: weights 2, 3, 6, 7. Head 2 the same from one
        // position earlier. Two heads, denominator 5.
        assert!((loss(&[1]) - 18.0 / 10.0).abs() < 1e-6);
        assert!((loss(&[2]) - 18.0 / 10.0).abs() < 1e-6);
        assert!((loss(&[1, 2]) - 36.0 / 10.0).abs() < 1e-6);
    }

    #[test]
    fn the_filter_reaches_the_kernel() {
        assert_eq!(accuracy(Compute::default(), 0.25).filter, 0.25);
    }

    #[test]
    fn targets_are_found_at_any_positions() {
        let targets = HeadTargets {
            positions: vec![1, 2, 5],
            targets: vec![10, 20, 50],
        };
        assert_eq!(targets.at(&[0, 1, 2, 3, 4, 5, 6]), [-1, 10, 20, -1, -1, 50, -1]);
        assert_eq!(targets.at(&[2, 5]), [20, 50]);
        assert_eq!(targets.at(&[0]), [-1]);
    }
}
