//! RMSNorm on CubeCL: a row to a cube forward and for dx, a column to a unit for dw.
//!
//! Bytes for elements of `b` bytes: forward reads x twice (the second time from cache) and writes y,
//! `2 b` an element; dx reads x and dy and writes dx, `3 b`; dw reads x and dy again, `2 b`. About 4,
//! 8 and 3 operations an element: memory bounds all of them.
#![allow(missing_docs)] // the attribute generates items that can't carry comments

use super::{RmsNormBackend, plain};
use crate::backends::cast;
use crate::cube::reduce::cube_sum;
use crate::cube::{self, RowLaunch, contiguous, element, empty, is_supported};
use burn::backend::{Cube, TensorMetadata, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Rows that one unit sums for dw before its sum is added to the others'.
const ROWS_PER_SUM: usize = 64;

/// y of one row a cube: `x`, `y` `[N, D]`, `weight` `[D]`.
#[cube(launch, create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_forward<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    weight: &Tensor<Vector<F, N>>,
    y: &mut Tensor<Vector<F, N>>,
    eps: f32,
    #[comptime] units: u32,
    #[comptime] planes: bool,
    #[define(F)] _dtype: ElemType,
) {
    let columns = x.shape(1);
    let vectors = columns / x.vector_size();
    let row = CUBE_POS;
    if row < x.shape(0) {
        let mut sum = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[row * vectors + at]);
            #[unroll]
            for i in 0..x.vector_size() {
                sum += values.extract(i) * values.extract(i);
            }
            at += units as usize;
        }
        let total = cube_sum(sum, units, planes);
        let scale = 1.0f32 / (total / columns as f32 + eps).sqrt();
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[row * vectors + at]);
            let weights = Vector::<f32, N>::cast_from(weight[at]);
            y[row * vectors + at] = Vector::cast_from(values * weights * Vector::new(scale));
            at += units as usize;
        }
    }
}

/// dx of one row a cube, and `scales` `[N]`, one over the row's root mean square, for dw.
#[cube(launch, create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    weight: &Tensor<Vector<F, N>>,
    upstream: &Tensor<Vector<F, N>>,
    dx: &mut Tensor<Vector<F, N>>,
    scales: &mut Tensor<f32>,
    eps: f32,
    #[comptime] units: u32,
    #[comptime] planes: bool,
    #[define(F)] _dtype: ElemType,
) {
    let columns = x.shape(1);
    let vectors = columns / x.vector_size();
    let row = CUBE_POS;
    if row < x.shape(0) {
        let mut squares = 0.0f32;
        let mut products = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[row * vectors + at]);
            let inner =
                Vector::<f32, N>::cast_from(upstream[row * vectors + at]) * Vector::<f32, N>::cast_from(weight[at]);
            #[unroll]
            for i in 0..x.vector_size() {
                squares += values.extract(i) * values.extract(i);
                products += values.extract(i) * inner.extract(i);
            }
            at += units as usize;
        }
        let squares = cube_sum(squares, units, planes);
        let products = cube_sum(products, units, planes);
        let scale = 1.0f32 / (squares / columns as f32 + eps).sqrt();
        let along = products / columns as f32 * scale * scale;
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[row * vectors + at]);
            let inner =
                Vector::<f32, N>::cast_from(upstream[row * vectors + at]) * Vector::<f32, N>::cast_from(weight[at]);
            let found = (inner - values * Vector::new(along)) * Vector::new(scale);
            dx[row * vectors + at] = Vector::cast_from(found);
            at += units as usize;
        }
        if UNIT_POS == 0 {
            scales[row] = scale;
        }
    }
}

/// Sums of `dy x r` over `rows_per_sum` rows, a column a unit: `sums` is `[N / rows_per_sum, D]`.
#[cube(launch, create_dummy_kernel)]
pub fn rms_norm_weight_sums<F: Float>(
    x: &Tensor<F>,
    upstream: &Tensor<F>,
    scales: &Tensor<f32>,
    sums: &mut Tensor<f32>,
    #[comptime] rows_per_sum: usize,
    #[define(F)] _dtype: ElemType,
) {
    let rows = x.shape(0);
    let columns = x.shape(1);
    if ABSOLUTE_POS < sums.len() {
        let column = ABSOLUTE_POS % columns;
        let first = ABSOLUTE_POS / columns * rows_per_sum;
        let end = min(first + rows_per_sum, rows);
        let mut sum = 0.0f32;
        for row in first..end {
            let at = row * columns + column;
            sum += f32::cast_from(upstream[at]) * f32::cast_from(x[at]) * scales[row];
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

impl RmsNormBackend for Cube {
    fn forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        if !supports(&x) {
            return plain::forward::<Self>(x, weight, eps);
        }
        let (x, weight) = (contiguous(x), contiguous(weight));
        let shape = x.shape();
        let row = RowLaunch::new(&x.client, shape[1], x.dtype);
        let y = empty(&x, shape.clone(), x.dtype);
        rms_norm_forward::launch(
            &y.client,
            cube::cubes(shape[0]),
            row.cube(),
            row.vector,
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            eps as f32,
            row.units,
            row.inner.planes(),
            element(y.dtype),
        );
        y
    }

    fn backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if !supports(&x) {
            return plain::backward::<Self>(x, weight, upstream, eps);
        }
        let (x, weight, upstream) = (contiguous(x), contiguous(weight), contiguous(upstream));
        let (n, d) = (x.shape()[0], x.shape()[1]);
        let row = RowLaunch::new(&x.client, d, x.dtype);
        let dx = empty(&x, [n, d], x.dtype);
        let scales = empty(&x, [n], DType::F32);
        rms_norm_backward::launch(
            &dx.client,
            cube::cubes(n),
            row.cube(),
            row.vector,
            x.clone().into_tensor_arg(),
            weight.clone().into_tensor_arg(),
            upstream.clone().into_tensor_arg(),
            dx.clone().into_tensor_arg(),
            scales.clone().into_tensor_arg(),
            eps as f32,
            row.units,
            row.inner.planes(),
            element(dx.dtype),
        );
        let parts = n.div_ceil(ROWS_PER_SUM);
        let sums = empty(&x, [parts, d], DType::F32);
        let (count, dim) = cube::cubes_for_elements(parts * d);
        rms_norm_weight_sums::launch(
            &dx.client,
            count,
            dim,
            x.into_tensor_arg(),
            upstream.into_tensor_arg(),
            scales.into_tensor_arg(),
            sums.clone().into_tensor_arg(),
            ROWS_PER_SUM,
            element(dx.dtype),
        );
        let dw = Self::float_reshape(Self::float_sum_dim(sums, 0), Shape::new([d]));
        (dx, cast::<Self>(dw, weight.dtype))
    }
}

/// Whether the kernels support `x`; other types and empty tensors use the backend's own operations.
fn supports(x: &CubeTensor) -> bool {
    is_supported(x.dtype) && x.shape().num_elements() > 0
}
