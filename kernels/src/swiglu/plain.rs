//! SwiGLU in a backend's own operations.

use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};

pub(super) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let (gate, up) = (
        cast::<B>(gate, accumulator_dtype(dtype)),
        cast::<B>(up, accumulator_dtype(dtype)),
    );
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    cast::<B>(B::float_mul(silu, up), dtype)
}

pub(super) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    upstream: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let [gate, up, upstream] = [gate, up, upstream].map(|x| cast::<B>(x, accumulator_dtype(dtype)));
    let sigmoid = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate, sigmoid.clone());
    let rest = B::float_add_scalar(B::float_neg(sigmoid.clone()), 1.0.into());
    let slope = B::float_add(sigmoid, B::float_mul(silu.clone(), rest));
    let d_gate = B::float_mul(B::float_mul(upstream.clone(), up), slope);
    let d_up = B::float_mul(upstream, silu);
    (cast::<B>(d_gate, dtype), cast::<B>(d_up, dtype))
}
