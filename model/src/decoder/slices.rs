//! Sublayers on slices in host memory, for f32 and bf16 on flex.
//!
//! Products take their factors in [`Plan::precision`]; what is saved for the backward pass is stored in
//! that type. Sums and everything else are f32.

use super::execution::{Execution, Plan};
use super::node::{AttentionSaved, LayerBackend, MlpSaved, Saved};
use super::sublayer::{self, Gradients, SublayerOps};
use crate::flex;
use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
use burn::tensor::DType;
use wmtp_gemm::{FloatSlice, MatrixView, Precision, matmul};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::{SavedActivations, attention, rms_norm, swiglu};

/// Sublayers of one batch; the residual stream is `width` wide.
struct Slices<'p> {
    plan: &'p Plan,
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

impl Slices<'_> {
    /// `to (+)= rows [N, in]` times the transpose of `weight [out, in]`; rows of `to` are `stride` apart.
    fn linear_into(&self, to: &mut [f32], stride: usize, add: bool, rows: MatrixView<'_>, weight: FloatSlice<'_>) {
        let weight = matrix(weight, rows.shape()[1]);
        matmul(to, stride, add, rows, weight.transposed(), self.plan.precision);
    }

    /// Rotates queries (with their scale) and keys.
    fn rotate(&self, qkv: &mut [f32], rotation: Rotation) {
        let (heads, half) = (self.plan.heads, self.plan.heads.width / 2);
        let queries = 0..heads.heads;
        let keys = heads.heads..heads.heads + heads.kv_heads;
        for (which, [cos, sin]) in [(queries, &self.plan.queries), (keys, &self.plan.keys)] {
            rotary::flex::rotate(qkv, heads.row(), which, half, [cos, sin], rotation);
        }
    }
}

impl<'p> SublayerOps for Slices<'p> {
    type Stream = [f32];
    type Rows = Rows;
    type View<'a>
        = MatrixView<'a>
    where
        Self: 'a;
    type Norm = [f32];
    type Weight = FloatSlice<'p>;
    /// Rows of [`wmtp_kernels::attention::flex::Heads`].
    type Qkv = SavedActivations;
    type QkvGrad = Vec<f32>;
    type Attended = SavedActivations;
    /// With their width.
    type GateUp = ([SavedActivations; 2], usize);
    type NormGrad = Vec<f32>;
    type WeightGrad = SavedActivations;

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

    fn linear(&self, rows: MatrixView<'_>, weight: &FloatSlice<'p>) -> Rows {
        let [n, inner] = rows.shape();
        let width = weight.len() / inner;
        let mut values = vec![0.0; n * width];
        self.linear_into(&mut values, width, false, rows, *weight);
        Rows { values, width }
    }

    fn add_linear(&self, x: &[f32], rows: MatrixView<'_>, weight: &FloatSlice<'p>) -> Rows {
        let (mut values, width) = (x.to_vec(), self.width);
        self.linear_into(&mut values, width, true, rows, *weight);
        Rows { values, width }
    }

    fn input_grad(&self, upstream: MatrixView<'_>, weight: &FloatSlice<'p>) -> Rows {
        let [n, out] = upstream.shape();
        let width = weight.len() / out;
        let mut values = vec![0.0; n * width];
        let weight = matrix(*weight, width);
        matmul(&mut values, width, false, upstream, weight, self.plan.precision);
        Rows { values, width }
    }

    fn add_input_grad(&self, mut to: Rows, upstream: MatrixView<'_>, weight: &FloatSlice<'p>) -> Rows {
        let weight = matrix(*weight, to.width);
        matmul(&mut to.values, to.width, true, upstream, weight, self.plan.precision);
        to
    }

    fn weight_grad(&self, upstream: MatrixView<'_>, rows: MatrixView<'_>) -> SavedActivations {
        let ([_, out], [_, inner]) = (upstream.shape(), rows.shape());
        let mut to = vec![0.0; out * inner];
        matmul(&mut to, inner, false, upstream.transposed(), rows, self.plan.precision);
        SavedActivations::new(to, self.plan.gradients)
    }

    fn qkv(&self, h: MatrixView<'_>, [q, k, v]: [&FloatSlice<'p>; 3]) -> SavedActivations {
        let heads = self.plan.heads;
        let mut qkv = vec![0.0; h.shape()[0] * heads.row()];
        for (column, weight) in [(0, q), (heads.keys(), k), (heads.values(), v)] {
            self.linear_into(&mut qkv[column..], heads.row(), false, h, *weight);
        }
        self.rotate(&mut qkv, Rotation::Forward);
        SavedActivations::new(qkv, self.plan.precision)
    }

    fn attend(&self, qkv: &SavedActivations) -> SavedActivations {
        let plan = self.plan;
        let attended = attention::flex::forward(qkv.floats(), plan.heads, &plan.documents, plan.precision);
        SavedActivations::new(attended, plan.precision)
    }

    fn attended<'a>(&'a self, attended: &'a SavedActivations) -> MatrixView<'a> {
        let (values, width) = (attended.floats(), self.plan.heads.keys());
        MatrixView::strided(values, [values.len() / width, width], [width, 1])
    }

    fn attend_backward(&self, qkv: SavedActivations, attended: SavedActivations, d_attended: Rows) -> Vec<f32> {
        drop(attended);
        let plan = self.plan;
        let mut d_qkv = attention::flex::backward(
            qkv.floats(),
            plan.heads,
            &plan.documents,
            &d_attended.values,
            plan.precision,
        );
        self.rotate(&mut d_qkv, Rotation::Inverse);
        d_qkv
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
        let saved = save.then(|| SavedActivations::new(gate.values.clone(), precision));
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

/// The requested gradients as tensors of their inputs' shapes: of the rows in f32, of the norm in its own
/// type, of the matrices as they are.
fn tensors<const N: usize, const M: usize>(
    inputs: &[FlexTensor; N],
    found: Gradients<Slices<'_>, M>,
    requested: [bool; N],
) -> [Option<FlexTensor>; N] {
    let as_norm = match inputs[1].dtype() {
        DType::BF16 => Precision::Bf16,
        _ => Precision::F32,
    };
    let vectors = [
        SavedActivations::F32(found.x.values),
        SavedActivations::new(found.norm, as_norm),
    ]
    .map(Some);
    let mut all = vectors.into_iter().chain(found.weights);
    std::array::from_fn(|i| {
        let values = all.next().flatten().filter(|_| requested[i])?;
        Some(flex::stored(values, inputs[i].shape()))
    })
}

/// Runs `task` on the operations, stream, norm and matrices of dense `inputs`.
fn on_slices<const N: usize, const M: usize, R>(
    inputs: &[FlexTensor; N],
    plan: &Plan,
    task: impl FnOnce(&Slices<'_>, &[f32], &[f32], &[FloatSlice<'_>; M]) -> R,
) -> R {
    let dense = flex::dense(inputs);
    let norm = flex::norm(&dense[1]);
    let weights = std::array::from_fn(|i| flex::weight(&dense[2 + i]));
    let width = norm.len();
    task(&Slices { plan, width }, flex::values(&dense[0]), &norm, &weights)
}

impl LayerBackend for Flex {
    fn attention_forward(inputs: &[FlexTensor; 6], execution: &Execution<Self>) -> (FlexTensor, AttentionSaved<Self>) {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.attention_forward(inputs),
        };
        let (y, saved) = on_slices(inputs, plan, |ops, x, norm, weights| {
            let (y, saved) = sublayer::attention(ops, x, norm, weights);
            (y.values, saved)
        });
        (flex::tensor(y, inputs[0].shape()), Saved::Slices(saved))
    }

    fn attention_backward(
        inputs: &[FlexTensor; 6],
        saved: Option<AttentionSaved<Self>>,
        upstream: FlexTensor,
        requested: [bool; 6],
        execution: &Execution<Self>,
    ) -> [Option<FlexTensor>; 6] {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.attention_backward(inputs, saved, upstream, requested),
        };
        let saved = saved.and_then(Saved::slices);
        let [_, _, of_weights @ ..] = requested;
        let upstream = upstream.to_contiguous();
        on_slices(inputs, plan, |ops, x, norm, weights| {
            let upstream = flex::values(&upstream);
            let found = sublayer::attention_backward(ops, x, norm, weights, saved, upstream, of_weights);
            tensors(inputs, found, requested)
        })
    }

    fn mlp_forward(
        inputs: &[FlexTensor; 5],
        execution: &Execution<Self>,
        save: bool,
    ) -> (FlexTensor, Option<MlpSaved<Self>>) {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.mlp_forward(inputs, save),
        };
        let (y, saved) = on_slices(inputs, plan, |ops, x, norm, weights| {
            let (y, saved) = sublayer::mlp(ops, x, norm, weights, save);
            (y.values, saved)
        });
        (flex::tensor(y, inputs[0].shape()), saved.map(Saved::Slices))
    }

    fn mlp_backward(
        inputs: &[FlexTensor; 5],
        saved: Option<MlpSaved<Self>>,
        upstream: FlexTensor,
        requested: [bool; 5],
        execution: &Execution<Self>,
    ) -> [Option<FlexTensor>; 5] {
        let plan = match execution {
            Execution::Slices(plan) => plan,
            Execution::Operations(ops) => return ops.mlp_backward(inputs, saved, upstream, requested),
        };
        let saved = saved.and_then(Saved::slices);
        let [_, _, of_weights @ ..] = requested;
        let upstream = upstream.to_contiguous();
        on_slices(inputs, plan, |ops, x, norm, weights| {
            let upstream = flex::values(&upstream);
            let found = sublayer::mlp_backward(ops, x, norm, weights, saved, upstream, of_weights);
            tensors(inputs, found, requested)
        })
    }
}
