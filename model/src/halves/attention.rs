//! The attention half: forward, and backward from what forward kept.

use super::LayerBackend;
use burn::backend::{
    Backend, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::Shape;
use wmtp_kernels::attention::{Attended, AttentionBackend, Inputs as Scored};
use wmtp_kernels::rms_norm::RmsNormBackend;
use wmtp_kernels::rotary::Rotation;

/// Sizes of a layer's attention, and the norms' epsilon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// W, the width of a head.
    pub width: usize,
    /// Added to the norm's mean square.
    pub eps: f64,
}

/// What the half is computed from beside its weights, which come first.
#[derive(Debug, Clone)]
pub struct Inputs<B: Backend> {
    /// x `[N, D]`, the norm's weight `[D]` and the matrices q, k, v and o `[out, in]`.
    pub tensors: [FloatTensor<B>; 6],
    /// Cosines and sines `[B, S, W / 2]`.
    pub rope: [FloatTensor<B>; 2],
    /// `[B, S]`: the first position that each position sees.
    pub starts: IntTensor<B>,
    /// Sizes of the heads.
    pub sizes: Sizes,
}

/// What forward leaves for backward: rotated queries `[B, H, S, W]`, rotated keys and values
/// `[B, K, S, W]`, and the mixed values.
#[derive(Debug, Clone)]
pub struct Kept<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    attended: Attended<B>,
}

/// `rows` `[N, in]` times the transpose of `weight` `[out, in]`.
pub(super) fn linear<B: Backend>(rows: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(rows, B::float_transpose(weight))
}

/// The gradient `[out, in]` of a weight, if it is wanted: `upstream` `[N, out]` transposed times `rows`
/// `[N, in]`.
pub(super) fn weight_gradient<B: Backend>(
    wanted: bool,
    upstream: &FloatTensor<B>,
    rows: &FloatTensor<B>,
) -> Option<FloatTensor<B>> {
    wanted.then(|| B::float_matmul(B::float_transpose(upstream.clone()), rows.clone()))
}

impl<B: LayerBackend> Inputs<B> {
    fn normal(&self) -> FloatTensor<B> {
        let [x, norm, ..] = self.tensors.clone();
        <B as RmsNormBackend>::forward(x, norm, self.sizes.eps)
    }

    /// `[N, heads * W]` as `[B, heads, S, W]`, a view.
    fn split(&self, rows: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, seq, _] = self.rope[0].shape().dims();
        let width = self.sizes.width;
        let heads = rows.shape()[1] / width;
        B::float_swap_dims(B::float_reshape(rows, Shape::from([batch, seq, heads, width])), 1, 2)
    }

    /// `[B, heads, S, W]` as `[N, heads * W]`.
    fn join(&self, split: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, heads, seq, width] = split.shape().dims();
        let rows = Shape::from([batch * seq, heads * width]);
        B::float_reshape(B::float_swap_dims(split, 1, 2), rows)
    }

    fn rotate(&self, x: FloatTensor<B>, rotation: Rotation) -> FloatTensor<B> {
        let [cos, sin] = self.rope.clone();
        B::rotate(x, cos, sin, rotation)
    }

    fn scored(&self, q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>) -> Scored<B> {
        Scored {
            q,
            k,
            v,
            starts: self.starts.clone(),
            scale: 1.0 / (self.sizes.width as f64).sqrt(),
        }
    }

    /// Everything up to the mixed values.
    fn inner(&self) -> Kept<B> {
        let h = self.normal();
        let [_, _, q, k, v, _] = self.tensors.clone();
        let [q, k, v] = [q, k, v].map(|weight| self.split(linear::<B>(h.clone(), weight)));
        let (q, k) = (self.rotate(q, Rotation::Forward), self.rotate(k, Rotation::Forward));
        let attended = <B as AttentionBackend>::forward(self.scored(q.clone(), k.clone(), v.clone()));
        Kept { q, k, v, attended }
    }

    /// `x` plus the half, and what backward needs.
    pub fn forward(&self) -> (FloatTensor<B>, Kept<B>) {
        let kept = self.inner();
        let [x, .., o] = self.tensors.clone();
        let mixed = self.join(kept.attended.out.clone());
        (B::float_add(x, linear::<B>(mixed, o)), kept)
    }

    /// Gradients of the tensors for the gradient `upstream` `[N, D]` of the result. What was not kept
    /// is computed again; of the matrices only those that are `wanted` get one.
    pub fn backward(
        &self,
        kept: Option<Kept<B>>,
        upstream: FloatTensor<B>,
        wanted: [bool; 6],
    ) -> [Option<FloatTensor<B>>; 6] {
        let Kept { q, k, v, attended } = kept.unwrap_or_else(|| self.inner());
        let [x, norm, q_weight, k_weight, v_weight, o_weight] = self.tensors.clone();
        let mixed = self.join(attended.out.clone());
        let d_o = weight_gradient::<B>(wanted[5], &upstream, &mixed);
        drop(mixed);
        let d_mixed = self.split(B::float_matmul(upstream.clone(), o_weight));
        let [d_q, d_k, d_v] = <B as AttentionBackend>::backward(self.scored(q, k, v), attended, d_mixed);
        let d_q = self.join(self.rotate(d_q, Rotation::Inverse));
        let d_k = self.join(self.rotate(d_k, Rotation::Inverse));
        let d_v = self.join(d_v);

        let h = self.normal();
        let of_q = weight_gradient::<B>(wanted[2], &d_q, &h);
        let of_k = weight_gradient::<B>(wanted[3], &d_k, &h);
        let of_v = weight_gradient::<B>(wanted[4], &d_v, &h);
        drop(h);
        let d_h = B::float_add(B::float_matmul(d_q, q_weight), B::float_matmul(d_k, k_weight));
        let d_h = B::float_add(d_h, B::float_matmul(d_v, v_weight));
        let (d_x, d_norm) = <B as RmsNormBackend>::backward(x, norm, d_h, self.sizes.eps);
        [Some(B::float_add(d_x, upstream)), Some(d_norm), of_q, of_k, of_v, d_o]
    }
}
