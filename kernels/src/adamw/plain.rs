//! The step in a backend's own operations.

use super::AdamWStep;
use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};

/// `gradient` times `factor`; itself where that is one.
fn scaled<B: Backend>(gradient: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    if factor == 1.0 {
        gradient
    } else {
        B::float_mul_scalar(gradient, factor.into())
    }
}

pub(super) fn step<B: Backend>(
    parameter: FloatTensor<B>,
    moment_1: FloatTensor<B>,
    moment_2: FloatTensor<B>,
    gradient: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let tensors = [parameter, moment_1, moment_2, gradient];
    let dtypes = tensors.each_ref().map(|tensor| tensor.dtype());
    let sums = accumulator_dtype(dtypes[0]);
    let [p, m, v, g] = tensors.map(|tensor| cast::<B>(tensor, sums));
    let g = scaled::<B>(g, step.gradient_scale);
    let m = B::float_add(
        B::float_mul_scalar(m, step.beta_1.into()),
        B::float_mul_scalar(g.clone(), (1.0 - step.beta_1).into()),
    );
    let v = B::float_add(
        B::float_mul_scalar(v, step.beta_2.into()),
        B::float_mul_scalar(B::float_mul(g.clone(), g), (1.0 - step.beta_2).into()),
    );
    let root = B::float_sqrt(B::float_mul_scalar(v.clone(), step.correction_2().into()));
    let direction = B::float_div(m.clone(), B::float_add_scalar(root, step.epsilon.into()));
    let p = B::float_sub(
        B::float_mul_scalar(p, step.shrink().into()),
        B::float_mul_scalar(direction, step.step_size().into()),
    );
    (
        cast::<B>(p, dtypes[0]),
        cast::<B>(m, dtypes[1]),
        cast::<B>(v, dtypes[2]),
    )
}
