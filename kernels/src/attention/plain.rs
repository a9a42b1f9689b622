//! The attention in a backend's own operations, all scores `[B, K, H / K * S, S]` at once.

use super::{Attended, Inputs};
use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Shape, Slice, TensorData, read_sync};

/// Added to a score that a query may not see; far below every score, and its exponential is zero.
const UNSEEN: f64 = -1e30;

pub(super) fn forward<B: Backend>(inputs: Inputs<B>) -> Attended<B> {
    let (dtype, shape) = (inputs.q.dtype(), inputs.q.shape());
    let Prepared { scores, v, .. } = prepare::<B>(inputs);
    let largest = B::float_max_dim(scores.clone(), 3);
    let exponentials = B::float_exp(B::float_sub(scores, largest.clone()));
    let sums = B::float_sum_dim(exponentials.clone(), 3);
    let statistics = B::float_cat(vec![largest, sums.clone()], 3);
    let out = B::float_matmul(B::float_div(exponentials, sums), v);
    Attended {
        out: B::float_reshape(cast::<B>(out, dtype), shape.clone()),
        statistics: B::float_reshape(statistics, Shape::new([shape[0], shape[1], shape[2], 2])),
    }
}

pub(super) fn backward<B: Backend>(
    inputs: Inputs<B>,
    attended: Attended<B>,
    upstream: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let (dtype, scale) = (inputs.q.dtype(), inputs.scale);
    let (q_shape, k_shape) = (inputs.q.shape(), inputs.k.shape());
    let Prepared { scores, q, k, v } = prepare::<B>(inputs);
    let flat = q.shape();
    let pairs = Shape::new([flat[0], flat[1], flat[2], 2]);
    let statistics = B::float_reshape(attended.statistics, pairs);
    let column = |at: usize| {
        let mut slices = vec![Slice::full(); 3];
        slices.push(Slice::from(at..at + 1));
        B::float_slice(statistics.clone(), &slices)
    };
    let shares = B::float_div(B::float_exp(B::float_sub(scores, column(0))), column(1));
    let [out, upstream] =
        [attended.out, upstream].map(|x| B::float_reshape(cast::<B>(x, accumulator_dtype(dtype)), flat.clone()));
    let delta = B::float_sum_dim(B::float_mul(out, upstream.clone()), 3);
    let dv = B::float_matmul(B::float_swap_dims(shares.clone(), 2, 3), upstream.clone());
    let d_shares = B::float_matmul(upstream, B::float_swap_dims(v, 2, 3));
    let d_scores = B::float_mul(shares, B::float_sub(d_shares, delta));
    let d_scores = B::float_mul_scalar(d_scores, scale.into());
    let dq = B::float_matmul(d_scores.clone(), k);
    let dk = B::float_matmul(B::float_swap_dims(d_scores, 2, 3), q);
    [(dq, q_shape), (dk, k_shape.clone()), (dv, k_shape)]
        .map(|(gradient, shape)| B::float_reshape(cast::<B>(gradient, dtype), shape))
}

struct Prepared<B: Backend> {
    /// `[B, K, H / K * S, S]`, scaled and masked.
    scores: FloatTensor<B>,
    /// `[B, K, H / K * S, W]`
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
}

fn prepare<B: Backend>(inputs: Inputs<B>) -> Prepared<B> {
    let Inputs { q, k, v, starts, scale } = inputs;
    let (shape, groups) = (q.shape(), k.shape()[1]);
    let [b, h, s, w] = shape.dims();
    let sums = accumulator_dtype(q.dtype());
    let [q, k, v] = [q, k, v].map(|x| cast::<B>(x, sums));
    let q = B::float_reshape(q, Shape::new([b, groups, h / groups * s, w]));
    let scores = B::float_matmul(q.clone(), B::float_swap_dims(k.clone(), 2, 3));
    let scores = B::float_mul_scalar(scores, scale.into());
    let scores = B::float_reshape(scores, Shape::new([b, groups, h / groups, s, s]));
    let scores = B::float_add(scores, bias::<B>(starts, [b, s], sums, &q.device()));
    Prepared {
        scores: B::float_reshape(scores, Shape::new([b, groups, h / groups * s, s])),
        q,
        k,
        v,
    }
}

/// `[B, 1, 1, S, S]`: zero where a query sees a key.
fn bias<B: Backend>(
    starts: burn::backend::tensor::IntTensor<B>,
    [b, s]: [usize; 2],
    dtype: DType,
    device: &B::Device,
) -> FloatTensor<B> {
    let starts = read_sync(B::int_into_data(starts))
        .unwrap_or_else(|error| panic!("causal_attention: reading from the device failed: {error}"));
    let mut values = Vec::with_capacity(b * s * s);
    for (place, start) in starts.iter::<i64>().enumerate() {
        let i = (place % s.max(1)) as i64;
        values.extend((0..s as i64).map(|j| if start <= j && j <= i { 0.0 } else { UNSEEN }));
    }
    B::float_from_data(TensorData::new(values, [b, 1, 1, s, s]).convert_dtype(dtype), device)
}
