//! Sublayers in a backend's own operations, for every backend and float type.
//!
//! Norm, rotation, attention and SwiGLU are those of `wmtp_kernels`, so that CubeCL devices run their
//! kernels and hold no S x S scores.

use super::node::LayerBackend;
use super::sublayer::{LinearMap, SublayerOps};
use burn::backend::{
    Backend, ExtensionType, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::Shape;
use wmtp_kernels::attention::{Attended, AttentionBackend, Inputs as Scored};
use wmtp_kernels::rms_norm::RmsNormBackend;
use wmtp_kernels::rotary::Rotation;
use wmtp_kernels::swiglu::SwigluBackend;
use wmtp_kernels::{accumulator_dtype, cast};

/// Rotary tables, documents and sizes of one batch.
#[derive(Debug, Clone, ExtensionType)]
pub struct Operations<B: Backend> {
    /// Cosines `[B, S, W / 2]`.
    pub cos: FloatTensor<B>,
    /// Sines `[B, S, W / 2]`.
    pub sin: FloatTensor<B>,
    /// `[B, S]`: the first position that each position attends to.
    pub starts: IntTensor<B>,
    /// W, the width of a head.
    pub head_width: usize,
    /// Added to the norm's mean square.
    pub eps: f64,
    /// Save only the inputs of both sublayers.
    pub recompute: bool,
}

impl<B: LayerBackend> Operations<B> {
    /// `[N, heads * W]` as `[B, heads, S, W]`, a view.
    fn split(&self, rows: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, seq, _] = self.cos.shape().dims();
        let width = self.head_width;
        let heads = rows.shape()[1] / width;
        B::float_swap_dims(B::float_reshape(rows, Shape::from([batch, seq, heads, width])), 1, 2)
    }

    /// `[B, heads, S, W]` as `[N, heads * W]`.
    fn join(&self, split: FloatTensor<B>) -> FloatTensor<B> {
        let [batch, heads, seq, width] = split.shape().dims();
        let rows = Shape::from([batch * seq, heads * width]);
        B::float_reshape(B::float_swap_dims(split, 1, 2), rows)
    }

    /// Queries or keys `[N, heads * W]` as `[N * heads, W]`, a view.
    fn by_head(&self, rows: FloatTensor<B>) -> FloatTensor<B> {
        let width = self.head_width;
        let heads = rows.shape().num_elements() / width;
        B::float_reshape(rows, Shape::new([heads, width]))
    }

    fn rotate(&self, x: FloatTensor<B>, rotation: Rotation) -> FloatTensor<B> {
        B::rotate(x, self.cos.clone(), self.sin.clone(), rotation)
    }

    fn scored(&self, [q, k, v]: [FloatTensor<B>; 3]) -> Scored<B> {
        Scored {
            q,
            k,
            v,
            starts: self.starts.clone(),
            scale: 1.0 / (self.head_width as f64).sqrt(),
        }
    }
}

impl<B: LayerBackend> SublayerOps for Operations<B> {
    type Stream = FloatTensor<B>;
    type Rows = FloatTensor<B>;
    type View<'a> = FloatTensor<B>;
    type Vector = FloatTensor<B>;
    type Matrix<'a> = &'a FloatTensor<B>;
    /// Queries `[B, H, S, W]`, keys and values `[B, K, S, W]`.
    type Qkv = [FloatTensor<B>; 3];
    type QkvGrad = [FloatTensor<B>; 3];
    type Attended = Attended<B>;
    type GateUp = [FloatTensor<B>; 2];
    type VectorGrad = FloatTensor<B>;
    type MatrixGrad = FloatTensor<B>;

    fn stream<'a>(&'a self, x: &'a FloatTensor<B>) -> FloatTensor<B> {
        x.clone()
    }

    fn view<'a>(&'a self, rows: &'a FloatTensor<B>) -> FloatTensor<B> {
        rows.clone()
    }

    fn normed(&self, x: &FloatTensor<B>, norm: &FloatTensor<B>) -> FloatTensor<B> {
        <B as RmsNormBackend>::forward(x.clone(), norm.clone(), self.eps)
    }

    fn normed_backward(
        &self,
        x: &FloatTensor<B>,
        norm: &FloatTensor<B>,
        d_h: FloatTensor<B>,
        upstream: &FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let (d_x, d_norm) = <B as RmsNormBackend>::backward(x.clone(), norm.clone(), d_h, self.eps);
        (B::float_add(d_x, upstream.clone()), d_norm)
    }

    fn linear(&self, rows: FloatTensor<B>, map: &LinearMap<'_, Self>) -> FloatTensor<B> {
        let y = B::float_matmul(rows, B::float_transpose(map.matrix.clone()));
        match map.bias {
            Some(bias) => {
                let row = Shape::new([1, bias.shape().num_elements()]);
                B::float_add(y, B::float_reshape(bias.clone(), row))
            }
            None => y,
        }
    }

    fn add_linear(&self, x: &FloatTensor<B>, rows: FloatTensor<B>, map: &LinearMap<'_, Self>) -> FloatTensor<B> {
        B::float_add(x.clone(), self.linear(rows, map))
    }

    fn input_grad(&self, upstream: FloatTensor<B>, matrix: &FloatTensor<B>) -> FloatTensor<B> {
        B::float_matmul(upstream, matrix.clone())
    }

    fn add_input_grad(&self, to: FloatTensor<B>, upstream: FloatTensor<B>, matrix: &FloatTensor<B>) -> FloatTensor<B> {
        B::float_add(to, self.input_grad(upstream, matrix))
    }

    fn matrix_grad(&self, upstream: FloatTensor<B>, rows: FloatTensor<B>) -> FloatTensor<B> {
        B::float_matmul(B::float_transpose(upstream), rows)
    }

    fn bias_grad(&self, upstream: FloatTensor<B>) -> FloatTensor<B> {
        let (dtype, width) = (upstream.dtype(), upstream.shape()[1]);
        let sums = B::float_sum_dim(cast::<B>(upstream, accumulator_dtype(dtype)), 0);
        cast::<B>(B::float_reshape(sums, Shape::new([width])), dtype)
    }

    fn qkv(
        &self,
        h: FloatTensor<B>,
        maps: [&LinearMap<'_, Self>; 3],
        head_norms: Option<[&FloatTensor<B>; 2]>,
    ) -> [FloatTensor<B>; 3] {
        let [q, k, v] = maps.map(|map| self.linear(h.clone(), map));
        let [q, k] = match head_norms {
            Some([of_q, of_k]) => [(q, of_q), (k, of_k)].map(|(rows, norm)| {
                let shape = rows.shape();
                let normed = <B as RmsNormBackend>::forward(self.by_head(rows), norm.clone(), self.eps);
                B::float_reshape(normed, shape)
            }),
            None => [q, k],
        };
        let [q, k, v] = [q, k, v].map(|rows| self.split(rows));
        [self.rotate(q, Rotation::Forward), self.rotate(k, Rotation::Forward), v]
    }

    fn attend(&self, qkv: &[FloatTensor<B>; 3]) -> Attended<B> {
        <B as AttentionBackend>::forward(self.scored(qkv.clone()))
    }

    fn attended<'a>(&'a self, attended: &'a Attended<B>) -> FloatTensor<B> {
        self.join(attended.out.clone())
    }

    fn attend_backward(
        &self,
        qkv: [FloatTensor<B>; 3],
        attended: Attended<B>,
        d_attended: FloatTensor<B>,
    ) -> [FloatTensor<B>; 3] {
        let d_attended = self.split(d_attended);
        let [d_q, d_k, d_v] = <B as AttentionBackend>::backward(self.scored(qkv), attended, d_attended);
        [
            self.rotate(d_q, Rotation::Inverse),
            self.rotate(d_k, Rotation::Inverse),
            d_v,
        ]
        .map(|split| self.join(split))
    }

    fn head_norms_backward(
        &self,
        [d_q, d_k, d_v]: [FloatTensor<B>; 3],
        [q, k]: [FloatTensor<B>; 2],
        [of_q, of_k]: [&FloatTensor<B>; 2],
    ) -> ([FloatTensor<B>; 3], [FloatTensor<B>; 2]) {
        let through = |rows: FloatTensor<B>, norm: &FloatTensor<B>, upstream: FloatTensor<B>| {
            let shape = rows.shape();
            let (rows, upstream) = (self.by_head(rows), self.by_head(upstream));
            let (d_rows, d_norm) = <B as RmsNormBackend>::backward(rows, norm.clone(), upstream, self.eps);
            (B::float_reshape(d_rows, shape), d_norm)
        };
        let ((d_q, of_q), (d_k, of_k)) = (through(q, of_q, d_q), through(k, of_k, d_k));
        ([d_q, d_k, d_v], [of_q, of_k])
    }

    fn qkv_grads<'a>(&'a self, d_qkv: &'a [FloatTensor<B>; 3]) -> [FloatTensor<B>; 3] {
        d_qkv.clone()
    }

    fn swiglu(&self, [gate, up]: [FloatTensor<B>; 2], save: bool) -> (FloatTensor<B>, Option<Self::GateUp>) {
        let saved = save.then(|| [gate.clone(), up.clone()]);
        (<B as SwigluBackend>::forward(gate, up), saved)
    }

    fn restored(&self, saved: [FloatTensor<B>; 2]) -> [FloatTensor<B>; 2] {
        saved
    }

    fn swiglu_backward<R>(
        &self,
        [gate, up]: [FloatTensor<B>; 2],
        d_product: FloatTensor<B>,
        of_product: Option<impl FnOnce(&FloatTensor<B>) -> R>,
    ) -> ([FloatTensor<B>; 2], Option<R>) {
        let found = of_product.map(|of| of(&<B as SwigluBackend>::forward(gate.clone(), up.clone())));
        let (d_gate, d_up) = <B as SwigluBackend>::backward(gate, up, d_product);
        ([d_gate, d_up], found)
    }
}
