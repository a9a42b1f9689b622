//! The mathematics of both halves on slices: forward, and backward from what forward kept.

use super::Plan;
use wmtp_gemm::{FloatSlice, MatrixView, matmul};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::{SavedActivations, attention, rms_norm, swiglu};

/// The weights of the attention half: norm `[D]`, matrices `[out, in]` in either type.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub norm: &'a [f32],
    pub q: FloatSlice<'a>,
    pub k: FloatSlice<'a>,
    pub v: FloatSlice<'a>,
    pub o: FloatSlice<'a>,
}

/// The weights of the feed-forward half.
#[derive(Clone, Copy)]
pub struct FeedForward<'a> {
    pub norm: &'a [f32],
    pub gate: FloatSlice<'a>,
    pub up: FloatSlice<'a>,
    pub down: FloatSlice<'a>,
}

/// What a half keeps for its backward pass beside its input: queries, keys and values with the mixed
/// values, or gate and up.
pub type Kept = [SavedActivations; 2];

/// Gradients: of the input, of the norm's weight and of the matrices, in the order of the inputs.
/// A matrix whose gradient is not wanted has none.
pub struct Gradients<const N: usize> {
    pub x: Vec<f32>,
    pub norm: Vec<f32>,
    pub matrices: [Option<SavedActivations>; N],
}

fn normal(x: &[f32], norm: &[f32], plan: &Plan) -> Vec<f32> {
    let mut to = vec![0.0; x.len()];
    rms_norm::flex::forward(x, norm, plan.eps, &mut to);
    to
}

/// `weight [out, in]` as a matrix of rows of `inner` values.
fn matrix(weight: FloatSlice<'_>, inner: usize) -> MatrixView<'_> {
    MatrixView::strided(weight, [weight.len() / inner, inner], [inner, 1])
}

/// `rows [N, in]` times the transpose of `weight [out, in]`.
fn linear(to: &mut [f32], stride: usize, add: bool, rows: MatrixView<'_>, weight: FloatSlice<'_>, plan: &Plan) {
    let inner = rows.shape()[1];
    let weight = matrix(weight, inner);
    matmul(to, stride, add, rows, weight.transposed(), plan.precision);
}

/// The gradient `[out, in]` of a weight: upstream `[N, out]` transposed times `rows [N, in]`.
fn weight_gradient(
    wanted: bool,
    upstream: MatrixView<'_>,
    rows: MatrixView<'_>,
    plan: &Plan,
) -> Option<SavedActivations> {
    let ([_, out], [_, inner]) = (upstream.shape(), rows.shape());
    wanted.then(|| {
        let mut to = vec![0.0; out * inner];
        matmul(&mut to, inner, false, upstream.transposed(), rows, plan.precision);
        SavedActivations::new(to, plan.gradients)
    })
}

/// `to (+)= upstream [N, out] * weight [out, in]`.
fn add_input_gradient(to: &mut [f32], add: bool, upstream: MatrixView<'_>, weight: FloatSlice<'_>, plan: &Plan) {
    let inner = weight.len() / upstream.shape()[1];
    matmul(to, inner, add, upstream, matrix(weight, inner), plan.precision);
}

impl Attention<'_> {
    /// Rotated queries, keys and values of `x`, and the values mixed by attention.
    fn inner(&self, x: &[f32], plan: &Plan) -> (SavedActivations, Vec<f32>) {
        let (d, heads) = (self.norm.len(), plan.heads);
        let h = normal(x, self.norm, plan);
        let h = MatrixView::row_major(&h, [x.len() / d, d]);
        let stride = heads.row();
        let mut qkv = vec![0.0; x.len() / d * stride];
        for (column, weight) in [(0, self.q), (heads.keys(), self.k), (heads.values(), self.v)] {
            linear(&mut qkv[column..], stride, false, h, weight, plan);
        }
        rotate(&mut qkv, plan, Rotation::Forward);
        let qkv = SavedActivations::new(qkv, plan.precision);
        let mixed = attention::flex::forward(qkv.floats(), heads, &plan.documents, plan.precision);
        (qkv, mixed)
    }

    /// The half on `x` `[N, D]`.
    pub fn forward(&self, x: &[f32], plan: &Plan) -> (Vec<f32>, Kept) {
        let (qkv, mixed) = self.inner(x, plan);
        let mixed = SavedActivations::new(mixed, plan.precision);
        let (d, width) = (self.norm.len(), plan.heads.keys());
        let mut y = x.to_vec();
        let rows = MatrixView::strided(mixed.floats(), [x.len() / d, width], [width, 1]);
        linear(&mut y, d, true, rows, self.o, plan);
        (y, [qkv, mixed])
    }

    /// Gradients for the gradient `upstream` of the result; `wanted` says of which matrices.
    pub fn backward(
        &self,
        x: &[f32],
        kept: Option<Kept>,
        upstream: &[f32],
        wanted: [bool; 4],
        plan: &Plan,
    ) -> Gradients<4> {
        let (d, heads) = (self.norm.len(), plan.heads);
        let (n, width, stride) = (x.len() / d, heads.keys(), heads.row());
        let [qkv, mixed] = kept.unwrap_or_else(|| {
            let (qkv, mixed) = self.inner(x, plan);
            [qkv, SavedActivations::new(mixed, plan.precision)]
        });
        let up = MatrixView::row_major(upstream, [n, d]);
        let mixed = MatrixView::strided(mixed.floats(), [n, width], [width, 1]);
        let d_o = weight_gradient(wanted[3], up, mixed, plan);
        let mut d_mixed = vec![0.0; n * width];
        add_input_gradient(&mut d_mixed, false, up, self.o, plan);
        let mut d_qkv = attention::flex::backward(qkv.floats(), heads, &plan.documents, &d_mixed, plan.precision);
        drop(qkv);
        rotate(&mut d_qkv, plan, Rotation::Inverse);

        let h = normal(x, self.norm, plan);
        let h = MatrixView::row_major(&h, [n, d]);
        let mut d_h = vec![0.0; n * d];
        let part = |column: usize, width: usize| {
            let end = column + (n - 1) * stride + width;
            MatrixView::strided(FloatSlice::F32(&d_qkv[column..end]), [n, width], [stride, 1])
        };
        let kv_width = heads.kv_heads * heads.width;
        let parts = [
            (part(0, width), self.q),
            (part(heads.keys(), kv_width), self.k),
            (part(heads.values(), kv_width), self.v),
        ];
        let mut d_weights = [None, None, None];
        for (i, (d_part, weight)) in parts.into_iter().enumerate() {
            d_weights[i] = weight_gradient(wanted[i], d_part, h, plan);
            add_input_gradient(&mut d_h, i > 0, d_part, weight, plan);
        }
        let mut d_x = upstream.to_vec();
        let norm = rms_norm::flex::backward(x, self.norm, plan.eps, &d_h, &mut d_x);
        let [q, k, v] = d_weights;
        Gradients {
            x: d_x,
            norm,
            matrices: [q, k, v, d_o],
        }
    }
}

/// Turns queries (with their scale) and keys.
fn rotate(qkv: &mut [f32], plan: &Plan, rotation: Rotation) {
    let (heads, half) = (plan.heads, plan.heads.width / 2);
    let queries = 0..heads.heads;
    let keys = heads.heads..heads.heads + heads.kv_heads;
    for (which, [cos, sin]) in [(queries, &plan.queries), (keys, &plan.keys)] {
        rotary::flex::rotate(qkv, heads.row(), which, half, [cos, sin], rotation);
    }
}

impl FeedForward<'_> {
    /// Gate and up of `x`.
    fn inner(&self, x: &[f32], plan: &Plan) -> [Vec<f32>; 2] {
        let d = self.norm.len();
        let (n, width) = (x.len() / d, self.gate.len() / d);
        let h = normal(x, self.norm, plan);
        [self.gate, self.up].map(|weight| {
            let mut to = vec![0.0; n * width];
            linear(&mut to, width, false, MatrixView::row_major(&h, [n, d]), weight, plan);
            to
        })
    }

    /// The half on `x` `[N, D]`.
    pub fn forward(&self, x: &[f32], plan: &Plan, keep: bool) -> (Vec<f32>, Option<Kept>) {
        let d = self.norm.len();
        let (n, width) = (x.len() / d, self.gate.len() / d);
        let [mut gate, up] = self.inner(x, plan);
        let kept = keep.then(|| SavedActivations::new(gate.clone(), plan.precision));
        swiglu::flex::forward(&mut gate, &up);
        let kept = kept.map(|gate| [gate, SavedActivations::new(up, plan.precision)]);
        let mut y = x.to_vec();
        linear(
            &mut y,
            d,
            true,
            MatrixView::row_major(&gate, [n, width]),
            self.down,
            plan,
        );
        (y, kept)
    }

    /// Gradients for the gradient `upstream` of the result; `wanted` says of which matrices.
    pub fn backward(
        &self,
        x: &[f32],
        kept: Option<Kept>,
        upstream: &[f32],
        wanted: [bool; 3],
        plan: &Plan,
    ) -> Gradients<3> {
        let d = self.norm.len();
        let (n, width) = (x.len() / d, self.gate.len() / d);
        let [mut gate, mut up] = match kept {
            Some(kept) => kept.map(SavedActivations::into_f32),
            None => self.inner(x, plan),
        };
        let above = MatrixView::row_major(upstream, [n, d]);
        let mut inner = vec![0.0; n * width];
        add_input_gradient(&mut inner, false, above, self.down, plan);
        // Gate and up become their gradients, `inner` the product that `down` was applied to.
        swiglu::flex::backward(&mut gate, &mut up, &mut inner);
        let d_down = weight_gradient(wanted[2], above, MatrixView::row_major(&inner, [n, width]), plan);
        drop(inner);

        let h = normal(x, self.norm, plan);
        let h = MatrixView::row_major(&h, [n, d]);
        let (d_gate, d_up) = (
            MatrixView::row_major(&gate, [n, width]),
            MatrixView::row_major(&up, [n, width]),
        );
        let mut d_h = vec![0.0; n * d];
        add_input_gradient(&mut d_h, false, d_gate, self.gate, plan);
        add_input_gradient(&mut d_h, true, d_up, self.up, plan);
        let of_gate = weight_gradient(wanted[0], d_gate, h, plan);
        let of_up = weight_gradient(wanted[1], d_up, h, plan);
        let mut d_x = upstream.to_vec();
        let norm = rms_norm::flex::backward(x, self.norm, plan.eps, &d_h, &mut d_x);
        Gradients {
            x: d_x,
            norm,
            matrices: [of_gate, of_up, d_down],
        }
    }
}
