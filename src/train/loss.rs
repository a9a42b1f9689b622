//! The weighted multi-token loss (algorithms, section 3), on top of the fused kernel.

use super::{LambdaMode, LossConfig, WeightBy};
use crate::data::Batch;
use burn::tensor::{DType, Int, Tensor, TensorData};
use wmtp_kernels::{Accuracy, WeightedCrossEntropy, weighted_linear_cross_entropy_in};
use wmtp_model::Compute;

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

/// `sum over b, t, valid k of weight(b, t, k) * CE_k(b, t) / (H * denominator)`.
///
/// `hidden` holds each head's states after the final norm, `[B, S, D]`; the result's `ce` is
/// `[H * B * S]`, head by head, 0 where a position has no target or no weight.
/// `denominator` is the number of response tokens of the whole optimizer step.
pub fn weighted_loss(
    hidden: Vec<Tensor<3>>,
    unembedding: Tensor<2>,
    batch: &Batch,
    weights: &[f32],
    config: &LossConfig,
    denominator: usize,
    compute: Compute,
) -> WeightedCrossEntropy {
    let heads = hidden.len();
    let device = unembedding.device();
    let dtype = hidden.first().map_or(DType::F32, Tensor::dtype);
    let scale = 1.0 / (heads as f64 * denominator.max(1) as f64);
    let terms: Vec<f64> = term_weights(batch, weights, heads, config)
        .into_iter()
        .map(|w| w * scale)
        .collect();
    let targets: Vec<i32> = (1..=heads).flat_map(|k| batch.targets(k)).collect();
    let rows = targets.len();

    let hidden = Tensor::cat(hidden.into_iter().map(|h| h.flatten::<2>(0, 1)).collect(), 0);
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
    let terms = Tensor::<1>::from_data(TensorData::new(terms, [rows]).convert_dtype(dtype), (&device, dtype));
    weighted_linear_cross_entropy_in(accuracy(compute), hidden, unembedding, targets, terms)
}

/// Where the loss rounds to bf16 in a model that is computed so.
fn accuracy(compute: Compute) -> Accuracy {
    Accuracy {
        factors: compute.precision,
        gradient: compute.gradients,
        filter: 0.0,
    }
}

/// Head 1's cross-entropy in nats **of token j**, `[B * S]`: CE_1 at position j - 1, 0 where
/// valid_1(j - 1) does not hold. No gradient.
pub fn token_ce(hidden: Tensor<3>, unembedding: Tensor<2>, batch: &Batch, compute: Compute) -> Vec<f32> {
    let ce = head_ce(hidden, unembedding, batch, 1, compute);
    let mut of_token = vec![0.0; ce.len()];
    for i in 0..ce.len() {
        if i % batch.seq_len + 1 < batch.seq_len {
            of_token[i + 1] = ce[i];
        }
    }
    of_token
}

/// CE_k at every position, `[B * S]`, 0 where valid_k does not hold. No gradient.
pub fn head_ce(hidden: Tensor<3>, unembedding: Tensor<2>, batch: &Batch, k: usize, compute: Compute) -> Vec<f32> {
    let device = unembedding.device();
    let targets = batch.targets(k);
    let rows = targets.len();
    let dtype = hidden.dtype();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
    let ones = Tensor::<1>::ones([rows], (&device, dtype));
    let out =
        weighted_linear_cross_entropy_in(accuracy(compute), hidden.flatten::<2>(0, 1), unembedding, targets, ones);
    to_f32(out.ce)
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
