//! The weighted multi-token loss (algorithms, section 3), on top of the fused kernel.

use super::{LambdaMode, LossConfig, WeightBy};
use crate::data::Batch;
use burn::tensor::{DType, Int, Tensor, TensorData};
use wmtp_kernels::{Accuracy, WeightedCrossEntropy, weighted_linear_cross_entropy_in};
use wmtp_model::{AttentionContext, Compute, MtpLlama};

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

/// What a head makes of some positions.
#[derive(Clone, Debug)]
pub struct HeadStates {
    /// Which head, from 1.
    pub k: usize,
    /// States after the final norm, `[R, D]`.
    pub states: Tensor<2>,
    /// The flat index `b * S + t` of each.
    pub rows: Vec<usize>,
}

impl HeadStates {
    /// Head `k` at `rows`, flat indices in order. Nothing that only other positions need is computed.
    pub fn at(model: &MtpLlama, k: usize, trunk: Tensor<3>, context: &AttentionContext, mut rows: Vec<usize>) -> Self {
        let [batch, seq, _] = trunk.dims();
        if rows.len() == batch * seq {
            return Self::everywhere(k, model.head(k, trunk, context));
        }
        if rows.is_empty() {
            // A tensor without rows is more than some backends take; nothing will ask for this one.
            rows.push(0);
        }
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices = Tensor::from_data(TensorData::new(indices, [rows.len()]), &trunk.device());
        Self {
            k,
            states: model.head_at(k, trunk, context, indices),
            rows,
        }
    }

    /// States `[B, S, D]` of head `k` at all positions.
    pub fn everywhere(k: usize, states: Tensor<3>) -> Self {
        let [batch, seq, _] = states.dims();
        Self {
            k,
            states: states.flatten(0, 1),
            rows: (0..batch * seq).collect(),
        }
    }
}

/// The positions from which a head has something to predict, `valid_k`, as flat indices.
pub fn rows_of(valid: &[bool]) -> Vec<usize> {
    (0..valid.len()).filter(|&i| valid[i]).collect()
}

/// The positions whose terms are in head k's loss: a target, and a weight that is not 0. `terms` are
/// those of [`term_weights`].
pub fn loss_rows(batch: &Batch, terms: &[f64], k: usize) -> Vec<usize> {
    let n = batch.tokens.len();
    let valid = batch.valid(k);
    (0..n).filter(|&i| valid[i] && terms[(k - 1) * n + i] != 0.0).collect()
}

/// `sum over b, t, valid k of weight(b, t, k) * CE_k(b, t) / (H * denominator)`.
///
/// `heads` holds the states of all heads, or of those whose part of the sum is asked for, at their
/// [`loss_rows`] at least; the result's `ce` is that of their rows, head by head, 0 where a position has
/// no target or no weight. `terms` are those of [`term_weights`] for all H heads, `denominator` the number of response tokens of the whole optimizer step.
pub fn weighted_loss(
    heads: Vec<HeadStates>,
    unembedding: Tensor<2>,
    batch: &Batch,
    terms: &[f64],
    denominator: usize,
    config: &LossConfig,
    compute: Compute,
) -> WeightedCrossEntropy {
    let device = unembedding.device();
    let dtype = heads.first().map_or(DType::F32, |head| head.states.dtype());
    let n = batch.tokens.len();
    let all_heads = terms.len() / n.max(1);
    let scale = 1.0 / (all_heads as f64 * denominator.max(1) as f64);
    let (mut targets, mut scaled) = (Vec::new(), Vec::new());
    for head in &heads {
        let terms = &terms[(head.k - 1) * n..head.k * n];
        let of_head = batch.targets(head.k);
        targets.extend(head.rows.iter().map(|&row| of_head[row]));
        scaled.extend(head.rows.iter().map(|&row| terms[row] * scale));
    }
    let rows = targets.len();
    let states = Tensor::cat(heads.into_iter().map(|head| head.states).collect(), 0);
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
    let terms = Tensor::<1>::from_data(TensorData::new(scaled, [rows]).convert_dtype(dtype), (&device, dtype));
    weighted_linear_cross_entropy_in(accuracy(compute, config.filter), states, unembedding, targets, terms)
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
/// valid_1(j - 1) does not hold. No gradient. Head 1 is needed where `valid_1` holds.
pub fn token_ce(head1: HeadStates, unembedding: Tensor<2>, batch: &Batch, compute: Compute) -> Vec<f32> {
    let ce = head_ce(head1, unembedding, batch, compute);
    let mut of_token = vec![0.0; ce.len()];
    for i in 0..ce.len() {
        if i % batch.seq_len + 1 < batch.seq_len {
            of_token[i + 1] = ce[i];
        }
    }
    of_token
}

/// CE_k at every position, `[B * S]`, 0 where valid_k does not hold. No gradient. Head k is needed
/// where it does hold.
pub fn head_ce(head: HeadStates, unembedding: Tensor<2>, batch: &Batch, compute: Compute) -> Vec<f32> {
    let device = unembedding.device();
    let HeadStates { k, states, rows } = head;
    let of_head = batch.targets(k);
    let targets: Vec<i32> = rows.iter().map(|&row| of_head[row]).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows.len()]), &device);
    let ones = Tensor::<1>::ones([rows.len()], (&device, states.dtype()));
    let out = weighted_linear_cross_entropy_in(accuracy(compute, 0.0), states, unembedding, targets, ones);
    let mut ce = vec![0.0; of_head.len()];
    for (row, value) in rows.into_iter().zip(to_f32(out.ce)) {
        ce[row] = value;
    }
    ce
}

/// A one-dimensional tensor's values on the host.
pub fn to_f32(tensor: Tensor<1>) -> Vec<f32> {
    let n = tensor.dims()[0];
    // `convert` makes the type right, so reading can't fail; a wrong length would show in tests.
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .unwrap_or_else(|_| vec![f32::NAN; n])
}
