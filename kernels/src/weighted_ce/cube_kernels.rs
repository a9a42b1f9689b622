//! The two passes over a chunk of logits.
#![allow(missing_docs)] // the attribute generates items that can't carry comments

use crate::cube::reduce::{cube_max, cube_sum};
use cubecl::prelude::*;

/// Columns of the statistics that the first pass leaves for the second.
pub(super) const STATISTICS: usize = 2;

/// Cross-entropy of one row a cube, reading the row once.
///
/// * `logits`: `[r, V]`, contiguous, V a multiple of N
/// * `rows`: `[r, 2]`, the target of each row and where its cross-entropy goes
/// * `weights`: `[r]`
/// * `ce`: `[n]`, nats, written for the chunk's rows only
/// * `terms`: `[r]`, weight times cross-entropy
/// * `statistics`: `[r, 2]`, the largest logit and the sum of `exp(logit - largest)`; separate, because their
///   logarithmic sum at 1e4 would be off by 1e-3 in f32
#[cube(launch, create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy<F: Float, N: Size>(
    logits: &Tensor<Vector<F, N>>,
    rows: &Tensor<u32>,
    weights: &Tensor<f32>,
    ce: &mut Tensor<f32>,
    terms: &mut Tensor<f32>,
    statistics: &mut Tensor<f32>,
    #[comptime] units: u32,
    #[comptime] planes: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let vectors = logits.shape(1) / logits.vector_size();
    let start = row * vectors;
    let mut largest = f32::min_value();
    let mut sum = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < vectors {
        let values = Vector::<f32, N>::cast_from(logits[start + at]);
        #[unroll]
        for i in 0..logits.vector_size() {
            // One exponential a logit: of what is added, or of what the sum so far shrinks by. A
            // logit that is not a number makes the sum so.
            let value = values.extract(i);
            let ahead = value - largest;
            let shrunk = (-ahead.abs()).exp();
            sum = select(ahead > 0.0f32, sum * shrunk + 1.0f32, sum + shrunk);
            largest = max(largest, value);
        }
        at += units as usize;
    }
    let row_largest = cube_max(largest, units, planes);
    let row_sum = cube_sum(sum * (largest - row_largest).exp(), units, planes);
    if UNIT_POS == 0 {
        let target = rows[2 * row] as usize;
        let place = rows[2 * row + 1] as usize;
        let near = logits[start + target / logits.vector_size()];
        let label = f32::cast_from(near.extract_dynamic(target % logits.vector_size()));
        let found = row_sum.ln() - (label - row_largest);
        ce[place] = found;
        terms[row] = weights[row] * found;
        statistics[2 * row] = row_largest;
        statistics[2 * row + 1] = row_sum;
    }
}

/// The logits replaced by their gradient, `weight * (softmax - onehot)`, a row a cube; arguments as
/// for [`cross_entropy()`].
#[cube(launch, create_dummy_kernel)]
pub fn gradient<F: Float, N: Size>(
    logits: &mut Tensor<Vector<F, N>>,
    rows: &Tensor<u32>,
    weights: &Tensor<f32>,
    statistics: &Tensor<f32>,
    #[comptime] units: u32,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let vectors = logits.shape(1) / logits.vector_size();
    let start = row * vectors;
    let target = rows[2 * row] as usize;
    let weight = weights[row];
    let largest = statistics[2 * row];
    let sum = statistics[2 * row + 1];
    let factor = weight / sum;
    let mut at = UNIT_POS as usize;
    while at < vectors {
        let values = Vector::<f32, N>::cast_from(logits[start + at]);
        let mut found = Vector::<f32, N>::zeroed();
        #[unroll]
        for i in 0..logits.vector_size() {
            let share = (values.extract(i) - largest).exp();
            // (e - sum) / sum: no cancellation beyond that of the sum itself where p is near 1.
            let is_label = at * logits.vector_size() + i == target;
            found.insert(i, select(is_label, weight * ((share - sum) / sum), share * factor));
        }
        logits[start + at] = Vector::cast_from(found);
        at += units as usize;
    }
}
