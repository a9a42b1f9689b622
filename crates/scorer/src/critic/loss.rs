//! Stage 1's losses, differentiable in the values.
//!
//! Sums over tokens are divided by a count that the caller gives, so that the micro-batches of a
//! step add up to the mean over the step.

use super::{CriticTargets, targets};
use crate::{CriticConfig, CriticLoss};
use burn::tensor::{Tensor, TensorData, activation::log_sigmoid};
use std::collections::BTreeMap;
use wmtp_data::Batch;
use wmtp_device::{ReadError, to_f32};

/// Where Huber's loss turns from square to linear.
const HUBER_DELTA: f32 = 1.0;

/// The loss of one step over all its micro-batches, as `scorer.loss` says: values `[B, S]`, batch and
/// rewards R of its documents for each. `[1]`; None if there is nothing to compare.
///
/// # Errors
/// The values cannot be read, from which targets are made.
pub fn of_step(
    values: Vec<Tensor<2>>,
    batches: &[Batch],
    rewards: &[Vec<f32>],
    config: &CriticConfig,
) -> Result<Option<Tensor<1>>, ReadError> {
    let of_batch = match config.loss {
        CriticLoss::Pairwise => return Ok(pairwise(&values, batches, rewards).map(|(loss, _)| loss)),
        CriticLoss::Huber => huber,
        CriticLoss::Mse => mse,
    };
    let targets: Vec<_> = values
        .iter()
        .zip(batches)
        .zip(rewards)
        .map(|((values, batch), rewards)| {
            let current = to_f32(values.clone().inner())?;
            Ok(targets(batch, &current, rewards, config))
        })
        .collect::<Result<_, ReadError>>()?;
    let denominator = targets.iter().map(count).sum();
    let losses = values.into_iter().zip(&targets);
    Ok(losses
        .map(|(values, targets)| of_batch(values, targets, denominator))
        .reduce(|a, b| a + b))
}

/// Tokens that the loss of a micro-batch runs over.
pub fn count(targets: &CriticTargets) -> usize {
    targets.mask.iter().filter(|&&m| m).count()
}

/// Squared error of values `[B, S]` against `targets`, summed over the mask and divided by
/// `denominator`; `[1]`.
pub fn mse(values: Tensor<2>, targets: &CriticTargets, denominator: usize) -> Tensor<1> {
    let (error, mask) = errors(values, targets);
    (error.clone() * error * mask)
        .sum()
        .div_scalar(denominator.max(1) as f32)
}

/// Huber loss, half the square up to a distance of 1 and linear beyond; otherwise as [`mse`].
pub fn huber(values: Tensor<2>, targets: &CriticTargets, denominator: usize) -> Tensor<1> {
    let (error, mask) = errors(values, targets);
    // With c the error clipped to [-delta, delta]: c * (error - c / 2).
    let clipped = error.clone().clamp(-HUBER_DELTA, HUBER_DELTA);
    let loss = clipped.clone() * (error - clipped.div_scalar(2.0));
    (loss * mask).sum().div_scalar(denominator.max(1) as f32)
}

/// Values less targets, and the mask as 0 and 1, `[B, S]` both.
fn errors(values: Tensor<2>, targets: &CriticTargets) -> (Tensor<2>, Tensor<2>) {
    let device = values.device();
    let shape = values.dims();
    let wanted = TensorData::new(targets.targets.clone(), shape);
    let mask: Vec<f32> = targets.mask.iter().map(|&m| f32::from(u8::from(m))).collect();
    let mask = Tensor::from_data(TensorData::new(mask, shape), &device);
    (values - Tensor::from_data(wanted, &device), mask)
}

/// `-log sigmoid(mean V(correct) - mean V(incorrect))`, the mean over all pairs of a correct and an
/// incorrect solution of one problem within a step. The mean value of a solution runs over its
/// response tokens.
///
/// `values` are `[B, S]` for each of `batches`; `rewards` one for each of its documents. A
/// solution is correct if its reward is above one half. Returns the loss `[1]` and the number of
/// pairs; `None` without a pair.
pub fn pairwise(values: &[Tensor<2>], batches: &[Batch], rewards: &[Vec<f32>]) -> Option<(Tensor<1>, usize)> {
    let mut means: Vec<Tensor<1>> = Vec::new();
    let mut problems: BTreeMap<u32, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    let mut first = 0;
    for ((values, batch), rewards) in values.iter().zip(batches).zip(rewards) {
        means.push(document_means(values.clone(), batch));
        for (index, (document, &reward)) in (first..).zip(batch.documents.iter().zip(rewards)) {
            let (correct, incorrect) = problems.entry(document.problem).or_default();
            if reward > 0.5 { correct } else { incorrect }.push(index);
        }
        first += batch.documents.len();
    }
    let pairs: Vec<(usize, usize)> = problems
        .values()
        .flat_map(|(good, bad)| good.iter().flat_map(|&g| bad.iter().map(move |&b| (g, b))))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let means = Tensor::cat(means, 0);
    let device = means.device();
    // [pairs, documents] with 1 at the correct and -1 at the incorrect solution.
    let mut difference = vec![0.0f32; pairs.len() * first];
    for (row, &(good, bad)) in difference.chunks_mut(first).zip(&pairs) {
        for (index, value) in [(good, 1.0), (bad, -1.0)] {
            if let Some(slot) = row.get_mut(index) {
                *slot = value;
            }
        }
    }
    let difference = Tensor::<2>::from_data(TensorData::new(difference, [pairs.len(), first]), &device);
    let margins: Tensor<1> = difference.matmul(means.unsqueeze_dim::<2>(1)).squeeze_dim(1);
    Some((-log_sigmoid(margins).mean(), pairs.len()))
}

/// Mean over the response of each document, `[documents]`, from values `[B, S]`.
fn document_means(values: Tensor<2>, batch: &Batch) -> Tensor<1> {
    let device = values.device();
    let size = batch.tokens.len();
    let mut average = vec![0.0f32; batch.documents.len() * size];
    for (row, document) in average.chunks_mut(size.max(1)).zip(&batch.documents) {
        let tokens = document.response(batch.seq_len);
        let share = 1.0 / tokens.len().max(1) as f32;
        row.get_mut(tokens).unwrap_or_default().fill(share);
    }
    let average = Tensor::<2>::from_data(TensorData::new(average, [batch.documents.len(), size]), &device);
    average.matmul(values.reshape([size, 1])).squeeze_dim(1)
}
