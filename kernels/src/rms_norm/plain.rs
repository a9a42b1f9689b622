//! RMSNorm in a backend's own operations.

use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Shape;

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normed, _) = normalized::<B>(x, eps);
    let weight = row::<B>(cast::<B>(weight, accumulator_dtype(dtype)));
    cast::<B>(B::float_mul(normed, weight), dtype)
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    upstream: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (dtype, shape) = (x.dtype(), weight.shape());
    let upstream = cast::<B>(upstream, accumulator_dtype(dtype));
    let (normed, scale) = normalized::<B>(x, eps);
    let sums = B::float_sum_dim(B::float_mul(upstream.clone(), normed.clone()), 0);
    let inner = B::float_mul(upstream, row::<B>(cast::<B>(weight, accumulator_dtype(dtype))));
    let along = B::float_mean_dim(B::float_mul(inner.clone(), normed.clone()), 1);
    let dx = B::float_mul(B::float_sub(inner, B::float_mul(normed, along)), scale);
    (cast::<B>(dx, dtype), cast::<B>(B::float_reshape(sums, shape), dtype))
}

/// A vector `[D]` as `[1, D]`.
fn row<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape().num_elements();
    B::float_reshape(x, Shape::new([1, d]))
}

/// `x r` `[N, D]` and `r` `[N, 1]`, both in the statistics' type.
fn normalized<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = accumulator_dtype(x.dtype());
    let x = cast::<B>(x, dtype);
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    (B::float_mul(x, scale.clone()), scale)
}
