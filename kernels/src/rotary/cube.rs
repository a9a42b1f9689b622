//! The rotation on CubeCL: a unit turns a vector of the first half with its partner in the second.
//!
//! For elements of `b` bytes `2 b` an element is moved, the tables come from cache; 3 operations an
//! element. Memory bounds it.
#![allow(missing_docs)] // the attribute generates items that can't carry comments

use super::{RotaryBackend, Rotation, plain};
use crate::backends::cast;
use crate::cube::{contiguous, cubes_for_elements, element, empty, is_supported, vector_size};
use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use cubecl::prelude::*;

/// `x`, `y` `[B, H, S, W]`; `cos`, `sin` `[B, S, W / 2]`; `sign` is 1 or -1.
#[cube(launch, create_dummy_kernel)]
pub fn rotary_turn<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    cos: &Tensor<Vector<f32, N>>,
    sin: &Tensor<Vector<f32, N>>,
    y: &mut Tensor<Vector<F, N>>,
    sign: f32,
    #[define(F)] _dtype: ElemType,
) {
    let heads = x.shape(1);
    let positions = x.shape(2);
    let half = x.shape(3) / 2 / x.vector_size();
    let rows = x.shape(0) * heads * positions;
    if ABSOLUTE_POS < rows * half {
        let row = ABSOLUTE_POS / half;
        let column = ABSOLUTE_POS % half;
        let batch = row / (heads * positions);
        let at_table = (batch * positions + row % positions) * half + column;
        let at = row * 2 * half + column;
        let c = cos[at_table];
        let s = sin[at_table] * Vector::new(sign);
        let first = Vector::<f32, N>::cast_from(x[at]);
        let second = Vector::<f32, N>::cast_from(x[at + half]);
        y[at] = Vector::cast_from(first * c - second * s);
        y[at + half] = Vector::cast_from(second * c + first * s);
    }
}

impl RotaryBackend for Cube {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        if !is_supported(x.dtype) || x.shape().num_elements() == 0 {
            return plain::<Self>(x, cos, sin, rotation);
        }
        let x = contiguous(x);
        let [cos, sin] = [cos, sin].map(|table| contiguous(cast::<Self>(table, DType::F32)));
        let half = x.shape()[3] / 2;
        let y = empty(&x, x.shape(), x.dtype);
        // The tables are read as f32, so that 16 bytes bound the vector there as well.
        let vector = vector_size(&y.client, half, DType::F32);
        let (count, dim) = cubes_for_elements(y.shape().num_elements() / 2 / vector);
        rotary_turn::launch(
            &y.client,
            count,
            dim,
            vector,
            x.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            rotation.sign(),
            element(y.dtype),
        );
        y
    }
}
