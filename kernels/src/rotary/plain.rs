//! The rotation in a backend's own operations.

use super::Rotation;
use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, Slice};

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    rotation: Rotation,
) -> FloatTensor<B> {
    let (dtype, wide) = (x.dtype(), accumulator_dtype(x.dtype()));
    let dims = x.shape();
    let half = dims[3] / 2;
    let table = |t: FloatTensor<B>| B::float_reshape(cast::<B>(t, wide), Shape::new([dims[0], 1, dims[2], half]));
    let (cos, sin) = (table(cos), table(sin));
    let sin = B::float_mul_scalar(sin, rotation.sign().into());
    let x = cast::<B>(x, wide);
    let part = |from: usize| {
        let mut slices = vec![Slice::full(); 3];
        slices.push(Slice::from(from..from + half));
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0), part(half));
    let rotated_first = B::float_sub(
        B::float_mul(first.clone(), cos.clone()),
        B::float_mul(second.clone(), sin.clone()),
    );
    let rotated_second = B::float_add(B::float_mul(second, cos), B::float_mul(first, sin));
    cast::<B>(B::float_cat(vec![rotated_first, rotated_second], 3), dtype)
}
