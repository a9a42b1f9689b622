//! Sublayers on slices in host memory, for f32 and bf16 on flex.
//!
//! Products take their factors in [`Plan::precision`]; what is saved for the backward pass is stored in
//! that type. Sums and everything else are f32.

use super::execution::{Execution, Plan};
use super::node::{Inputs, LayerBackend, Saved, both};
use super::sublayer::{LinearMap, Parameters, Requested, Sublayer, SublayerOps};
use crate::flex;
use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
use burn::tensor::DType;
use std::ops::Range;
use std::sync::Arc;
use wmtp_gemm::{FloatSlice, MatrixView, Precision, matmul, matmul_to_bf16};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::{SavedActivations, attention, rms_norm, swiglu};

/// Sublayers of one batch; the residual stream is `width` wide.
pub struct Slices {
    plan: Arc<Plan>,
    width: usize,
}

/// `[N, width]`.
pub struct Rows {
    values: Vec<f32>,
    width: usize,
}

/// `weight [out, in]` as a matrix of rows of `inner` values.
fn matrix(weight: FloatSlice<'_>, inner: usize) -> MatrixView<'_> {
    MatrixView::strided(weight, [weight.len() / inner, inner], [inner, 1])
}

impl Slices {
    /// `to (+)= ` the map of `rows [N, in]`; rows of `to` are `stride` apart.
    fn linear_into(&self, to: &mut [f32], stride: usize, add: bool, rows: MatrixView<'_>, map: &LinearMap<'_, Self>) {
        let [n, inner] = rows.shape();
        if let Some(bias) = map.bias {
            for row in to.chunks_mut(stride).take(n) {
                let values = row.iter_mut().zip(bias);
                values.for_each(|(y, bias)| *y = if add { *y + bias } else { *bias });
            }
        }
        let (add, weight) = (add || map.bias.is_some(), matrix(map.matrix, inner).transposed());
        let mut rounded = Vec::new();
        let rows = match self.plan.rounded_activations {
            true => {
                rounded.resize(n * inner, 0.0);
                let of_rows = rounded.chunks_exact_mut(inner).enumerate();
                of_rows.for_each(|(row, to)| rows.copy_from_row(row, 0, to));
                wmtp_gemm::round_rows(&mut rounded, inner);
                MatrixView::row_major(&rounded, [n, inner])
            }
            false => rows,
        };
        matmul(to, stride, add, rows, weight, self.plan.precision);
    }

    /// Columns of the queries and of the keys in a row.
    fn normed_heads(&self) -> [Range<usize>; 2] {
        let heads = self.plan.heads;
        [0..heads.keys(), heads.keys()..heads.values()]
    }

    /// Rotates queries (with their scale) and keys.
    fn rotate(&self, qkv: &mut [f32], rotation: Rotation) {
        let (heads, half) = (self.plan.heads, self.plan.heads.width / 2);
        let queries = 0..heads.heads;
        let keys = heads.heads..heads.heads + heads.kv_heads;
        for (which, [cos, sin]) in [(queries, &self.plan.rope.queries), (keys, &self.plan.rope.keys)] {
            rotary::flex::rotate(qkv, heads.row(), which, half, [cos, sin], rotation);
        }
    }
}

/// The columns `range` of rows of `stride` values, row by row.
fn columns(values: &[f32], stride: usize, range: Range<usize>) -> Vec<f32> {
    let rows = values.chunks_exact(stride);
    rows.flat_map(|row| &row[range.clone()]).copied().collect()
}

/// The reverse of [`columns`].
fn set_columns(values: &mut [f32], stride: usize, range: Range<usize>, from: &[f32]) {
    let rows = values.chunks_exact_mut(stride).zip(from.chunks_exact(range.len()));
    rows.for_each(|(row, from)| row[range.clone()].copy_from_slice(from));
}

impl SublayerOps for Slices {
    type Stream = [f32];
    type Rows = Rows;
    type View<'a>
        = MatrixView<'a>
    where
        Self: 'a;
    type Vector = [f32];
    type Matrix<'a> = FloatSlice<'a>;
    /// Rows of [`wmtp_kernels::attention::flex::Heads`].
    type Qkv = SavedActivations;
    type QkvGrad = Vec<f32>;
    type Attended = SavedActivations;
    /// With their width.
    type GateUp = ([SavedActivations; 2], usize);
    type VectorGrad = Vec<f32>;
    type MatrixGrad = SavedActivations;

    fn stream<'a>(&'a self, x: &'a [f32]) -> MatrixView<'a> {
        MatrixView::row_major(x, [x.len() / self.width, self.width])
    }

    fn view<'a>(&'a self, rows: &'a Rows) -> MatrixView<'a> {
        MatrixView::row_major(&rows.values, [rows.values.len() / rows.width, rows.width])
    }

    fn normed(&self, x: &[f32], norm: &[f32]) -> Rows {
        let mut values = vec![0.0; x.len()];
        rms_norm::flex::forward(x, norm, self.plan.eps, &mut values);
        let width = self.width;
        Rows { values, width }
    }

    fn normed_backward(&self, x: &[f32], norm: &[f32], d_h: Rows, upstream: &[f32]) -> (Rows, Vec<f32>) {
        let mut values = upstream.to_vec();
        let d_norm = rms_norm::flex::backward(x, norm, self.plan.eps, &d_h.values, &mut values);
        let width = self.width;
        (Rows { values, width }, d_norm)
    }

    fn linear(&self, rows: MatrixView<'_>, map: &LinearMap<'_, Self>) -> Rows {
        let [n, inner] = rows.shape();
        let width = map.matrix.len() / inner;
        let mut values = vec![0.0; n * width];
        self.linear_into(&mut values, width, false, rows, map);
        Rows { values, width }
    }

    fn add_linear(&self, x: &[f32], rows: MatrixView<'_>, map: &LinearMap<'_, Self>) -> Rows {
        let (mut values, width) = (x.to_vec(), self.width);
        self.linear_into(&mut values, width, true, rows, map);
        Rows { values, width }
    }

    fn input_grad(&self, upstream: MatrixView<'_>, weight: FloatSlice<'_>) -> Rows {
        let [n, out] = upstream.shape();
        let width = weight.len() / out;
        let mut values = vec![0.0; n * width];
        let weight = matrix(weight, width);
        matmul(&mut values, width, false, upstream, weight, self.plan.precision);
        Rows { values, width }
    }

    fn add_input_grad(&self, mut to: Rows, upstream: MatrixView<'_>, weight: FloatSlice<'_>) -> Rows {
        let weight = matrix(weight, to.width);
        matmul(&mut to.values, to.width, true, upstream, weight, self.plan.precision);
        to
    }

    fn matrix_grad(&self, upstream: MatrixView<'_>, rows: MatrixView<'_>) -> SavedActivations {
        let ([_, out], [_, inner]) = (upstream.shape(), rows.shape());
        match self.plan.gradients {
            Precision::F32 => {
                let mut to = vec![0.0; out * inner];
                matmul(&mut to, inner, false, upstream.transposed(), rows, self.plan.precision);
                SavedActivations::F32(to)
            }
            Precision::Bf16 => SavedActivations::Bf16(matmul_to_bf16(upstream.transposed(), rows, self.plan.precision)),
        }
    }

    fn bias_grad(&self, upstream: MatrixView<'_>) -> Vec<f32> {
        let [n, out] = upstream.shape();
        let (mut sums, ones) = (vec![0.0; out], vec![1.0; n]);
        let ones = MatrixView::row_major(&ones, [n, 1]);
        matmul(&mut sums, 1, false, upstream.transposed(), ones, Precision::F32);
        sums
    }

    fn qkv(
        &self,
        h: MatrixView<'_>,
        [q, k, v]: [&LinearMap<'_, Self>; 3],
        head_norms: Option<[&[f32]; 2]>,
    ) -> SavedActivations {
        let heads = self.plan.heads;
        let mut qkv = vec![0.0; h.shape()[0] * heads.row()];
        for (column, map) in [(0, q), (heads.keys(), k), (heads.values(), v)] {
            self.linear_into(&mut qkv[column..], heads.row(), false, h, map);
        }
        for (range, norm) in self.normed_heads().into_iter().zip(head_norms.iter().flatten()) {
            let projected = columns(&qkv, heads.row(), range.clone());
            let mut normed = vec![0.0; projected.len()];
            rms_norm::flex::forward(&projected, norm, self.plan.eps, &mut normed);
            set_columns(&mut qkv, heads.row(), range, &normed);
        }
        self.rotate(&mut qkv, Rotation::Forward);
        SavedActivations::new(qkv, self.plan.precision)
    }

    fn attend(&self, qkv: &SavedActivations) -> SavedActivations {
        let plan = &self.plan;
        let attended = attention::flex::forward(qkv.floats(), plan.heads, plan.attended(), plan.precision);
        SavedActivations::new(attended, plan.precision)
    }

    fn attended<'a>(&'a self, attended: &'a SavedActivations) -> MatrixView<'a> {
        let (values, width) = (attended.floats(), self.plan.heads.keys());
        MatrixView::strided(values, [values.len() / width, width], [width, 1])
    }

    fn attend_backward(&self, qkv: SavedActivations, attended: SavedActivations, d_attended: Rows) -> Vec<f32> {
        drop(attended);
        let plan = &self.plan;
        let mut d_qkv = attention::flex::backward(
            qkv.floats(),
            plan.heads,
            plan.attended(),
            &d_attended.values,
            plan.precision,
        );
        self.rotate(&mut d_qkv, Rotation::Inverse);
        d_qkv
    }

    fn head_norms_backward(
        &self,
        mut d_qkv: Vec<f32>,
        projected: [Rows; 2],
        head_norms: [&[f32]; 2],
    ) -> (Vec<f32>, [Vec<f32>; 2]) {
        let (stride, [of_q, of_k], [q, k]) = (self.plan.heads.row(), self.normed_heads(), projected);
        let mut through = |range: Range<usize>, rows: &Rows, norm: &[f32]| {
            let upstream = columns(&d_qkv, stride, range.clone());
            let mut d_rows = vec![0.0; upstream.len()];
            let d_norm = rms_norm::flex::backward(&rows.values, norm, self.plan.eps, &upstream, &mut d_rows);
            set_columns(&mut d_qkv, stride, range, &d_rows);
            d_norm
        };
        let norms = [through(of_q, &q, head_norms[0]), through(of_k, &k, head_norms[1])];
        (d_qkv, norms)
    }

    fn qkv_grads<'a>(&'a self, d_qkv: &'a Vec<f32>) -> [MatrixView<'a>; 3] {
        let heads = self.plan.heads;
        let (stride, kv_width) = (heads.row(), heads.kv_heads * heads.width);
        let n = d_qkv.len() / stride;
        [(0, heads.keys()), (heads.keys(), kv_width), (heads.values(), kv_width)].map(|(column, width)| {
            let end = column + n.saturating_sub(1) * stride + width;
            MatrixView::strided(
                FloatSlice::F32(d_qkv.get(column..end).unwrap_or_default()),
                [n, width],
                [stride, 1],
            )
        })
    }

    fn swiglu(&self, [mut gate, up]: [Rows; 2], save: bool) -> (Rows, Option<Self::GateUp>) {
        let (precision, width) = (self.plan.precision, gate.width);
        let saved = save.then(|| SavedActivations::of(&gate.values, precision));
        swiglu::flex::forward(&mut gate.values, &up.values);
        let saved = saved.map(|gate| ([gate, SavedActivations::new(up.values, precision)], width));
        (gate, saved)
    }

    fn restored(&self, (saved, width): Self::GateUp) -> [Rows; 2] {
        saved.map(|values| Rows {
            values: values.into_f32(),
            width,
        })
    }

    fn swiglu_backward<R>(
        &self,
        [mut gate, mut up]: [Rows; 2],
        mut d_product: Rows,
        of_product: Option<impl FnOnce(&Rows) -> R>,
    ) -> ([Rows; 2], Option<R>) {
        // Gate and up become their gradients, and the gradient of their product the product.
        swiglu::flex::backward(&mut gate.values, &mut up.values, &mut d_product.values);
        let found = of_product.map(|of| of(&d_product));
        ([gate, up], found)
    }
}

/// Runs `task` on the operations, the stream and the parameters of `inputs`.
fn on_slices<const L: usize, R>(
    inputs: &Inputs<Flex, L>,
    plan: &Arc<Plan>,
    task: impl FnOnce(&Slices, &[f32], &Parameters<'_, Slices, L>) -> R,
) -> R {
    let inputs: Inputs<Flex, L> = inputs.clone().map(|tensor| tensor.to_contiguous());
    let norm = flex::vector(&inputs.norm);
    let biases = inputs.biases.each_ref().map(|bias| bias.as_ref().map(flex::vector));
    let head_norms = inputs.head_norms.each_ref().map(|norm| norm.as_ref().map(flex::vector));
    let ops = Slices {
        plan: plan.clone(),
        width: norm.len(),
    };
    let parameters = Parameters {
        norm: norm.as_slice(),
        head_norms: both(head_norms.each_ref().map(Option::as_deref)),
        maps: std::array::from_fn(|i| LinearMap {
            matrix: flex::weight(&inputs.matrices[i]),
            bias: biases[i].as_deref(),
        }),
    };
    task(&ops, flex::values(&inputs.x), &parameters)
}

impl LayerBackend for Flex {
    fn sublayer_forward<S: Sublayer<L>, const L: usize>(
        inputs: &Inputs<Self, L>,
        execution: &Execution<Self>,
        save: bool,
    ) -> (FlexTensor, Option<Saved<Self, S, L>>) {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.forward(inputs, save),
        };
        let (y, saved) = on_slices(inputs, plan, |ops, x, parameters| S::forward(ops, x, parameters, save));
        (flex::tensor(y.values, inputs.x.shape()), saved.map(Saved::Slices))
    }

    /// Of the stream in f32, of the norm and of biases in their own type, of matrices in [`Plan::gradients`].
    fn sublayer_backward<S: Sublayer<L>, const L: usize>(
        inputs: &Inputs<Self, L>,
        saved: Option<Saved<Self, S, L>>,
        upstream: FlexTensor,
        requested: [Requested; L],
        execution: &Execution<Self>,
    ) -> Vec<Option<FlexTensor>> {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.backward(inputs, saved, upstream, requested),
        };
        let saved = saved.and_then(Saved::slices);
        let upstream = upstream.to_contiguous();
        let found = on_slices(inputs, plan, |ops, x, parameters| {
            S::backward(ops, x, parameters, saved, flex::values(&upstream), requested)
        });
        let of_vectors = match inputs.norm.dtype() {
            DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        };
        let found = found.in_order(
            |x| SavedActivations::F32(x.values),
            |vector| SavedActivations::new(vector, of_vectors),
            |matrix| matrix,
        );
        let tensor = |(values, input): (Option<_>, Option<&FlexTensor>)| Some(flex::stored(values?, input?.shape()));
        found.into_iter().zip(inputs.in_order()).map(tensor).collect()
    }
}
