//! The feed-forward half: forward, and backward from what forward kept.

use super::LayerBackend;
use super::attention::{linear, weight_gradient};
use burn::backend::{Backend, tensor::FloatTensor};
use wmtp_kernels::rms_norm::RmsNormBackend;
use wmtp_kernels::swiglu::SwigluBackend;

/// What the half is computed from.
#[derive(Debug, Clone)]
pub struct Inputs<B: Backend> {
    /// x `[N, D]`, the norm's weight `[D]` and the matrices gate, up and down `[out, in]`.
    pub tensors: [FloatTensor<B>; 5],
    /// Added to the norm's mean square.
    pub eps: f64,
}

/// What forward leaves for backward: gate and up `[N, F]`.
pub type Kept<B> = [FloatTensor<B>; 2];

impl<B: LayerBackend> Inputs<B> {
    fn normal(&self) -> FloatTensor<B> {
        let [x, norm, ..] = self.tensors.clone();
        <B as RmsNormBackend>::forward(x, norm, self.eps)
    }

    fn inner(&self, h: &FloatTensor<B>) -> Kept<B> {
        let [_, _, gate, up, _] = self.tensors.clone();
        [gate, up].map(|weight| linear::<B>(h.clone(), weight))
    }

    /// `x` plus the half, and what backward needs.
    pub fn forward(&self) -> (FloatTensor<B>, Kept<B>) {
        let kept = self.inner(&self.normal());
        let [gate, up] = kept.clone();
        let [x, .., down] = self.tensors.clone();
        let product = <B as SwigluBackend>::forward(gate, up);
        (B::float_add(x, linear::<B>(product, down)), kept)
    }

    /// Gradients of the tensors for the gradient `upstream` `[N, D]` of the result. What was not kept
    /// is computed again; of the matrices only those that are `wanted` get one.
    pub fn backward(
        &self,
        kept: Option<Kept<B>>,
        upstream: FloatTensor<B>,
        wanted: [bool; 5],
    ) -> [Option<FloatTensor<B>>; 5] {
        let [x, norm, gate_weight, up_weight, down] = self.tensors.clone();
        let h = self.normal();
        let [gate, up] = kept.unwrap_or_else(|| self.inner(&h));
        let d_down = wanted[4].then(|| {
            let product = <B as SwigluBackend>::forward(gate.clone(), up.clone());
            B::float_matmul(B::float_transpose(upstream.clone()), product)
        });
        let d_product = B::float_matmul(upstream.clone(), down);
        let (d_gate, d_up) = <B as SwigluBackend>::backward(gate, up, d_product);
        let of_gate = weight_gradient::<B>(wanted[2], &d_gate, &h);
        let of_up = weight_gradient::<B>(wanted[3], &d_up, &h);
        drop(h);
        let d_h = B::float_add(B::float_matmul(d_gate, gate_weight), B::float_matmul(d_up, up_weight));
        let (d_x, d_norm) = <B as RmsNormBackend>::backward(x, norm, d_h, self.eps);
        [Some(B::float_add(d_x, upstream)), Some(d_norm), of_gate, of_up, d_down]
    }
}
