//! RMSNorm: rows over their root mean square, times a weight for each column.
//!
//! With `x` `[N, D]`, `weight` w `[D]` and `r_i = 1 / sqrt(mean_j x_ij^2 + eps)`,
//!
//! ```text
//! y_ij  = w_j x_ij r_i
//! dx_ij = r_i (w_j dy_ij - x_ij r_i^2 mean_k(w_k dy_ik x_ik))        dw_j = sum_i dy_ij x_ij r_i
//! ```
//!
//! Statistics and sums are f32 (f64 for f64). The backward pass keeps `x` and `weight` and computes
//! `r` again. On CubeCL three kernels, elsewhere the backend's own operations.
//!
//! Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization, arXiv 1910.07467.

#[cfg(feature = "cube")]
pub mod cube;

use crate::backends::{cast, implement_everywhere, implement_on_host, wide};
use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Tensor};

/// RMSNorm of the rows of `x` `[N, D]` with `weight` `[D]` of the same type; `eps` is added to the
/// mean square. Differentiable in both.
///
/// # Panics
/// If the shapes or types don't fit together, or D is zero.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let ([n, d], [columns]) = (x.dims(), weight.dims());
    assert!(
        d == columns && d > 0,
        "rms_norm: x is [{n}, {d}] but the weight [{columns}]"
    );
    assert!(
        x.dtype() == weight.dtype(),
        "rms_norm: x is {:?} but the weight {:?}",
        x.dtype(),
        weight.dtype()
    );
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait RmsNormOps: Backend {
    /// See [`rms_norm`].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
}

/// What a backend without autodiff provides; by default in its own operations.
pub trait RmsNormBackend: Backend {
    /// y `[N, D]`.
    fn forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        plain_forward::<Self>(x, weight, eps)
    }

    /// dx `[N, D]` and dw `[D]` for `upstream` dy `[N, D]`.
    fn backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        plain_backward::<Self>(x, weight, upstream, eps)
    }
}

fn plain_forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, _) = normalised::<B>(x, eps);
    let weight = row::<B>(cast::<B>(weight, wide(dtype)));
    cast::<B>(B::float_mul(normal, weight), dtype)
}

fn plain_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    upstream: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (dtype, shape) = (x.dtype(), weight.shape());
    let upstream = cast::<B>(upstream, wide(dtype));
    let (normal, scale) = normalised::<B>(x, eps);
    let sums = B::float_sum_dim(B::float_mul(upstream.clone(), normal.clone()), 0);
    let inner = B::float_mul(upstream, row::<B>(cast::<B>(weight, wide(dtype))));
    let along = B::float_mean_dim(B::float_mul(inner.clone(), normal.clone()), 1);
    let dx = B::float_mul(B::float_sub(inner, B::float_mul(normal, along)), scale);
    (cast::<B>(dx, dtype), cast::<B>(B::float_reshape(sums, shape), dtype))
}

implement_on_host!(RmsNormBackend, {});
implement_everywhere!(RmsNormOps, {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        <Self as RmsNormBackend>::forward(x, weight, eps)
    }
});

/// A vector `[D]` as `[1, D]`.
fn row<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape().num_elements();
    B::float_reshape(x, Shape::new([1, d]))
}

/// `x r` `[N, D]` and `r` `[N, 1]`, both in the statistics' type.
fn normalised<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = wide(x.dtype());
    let x = cast::<B>(x, dtype);
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    (B::float_mul(x, scale.clone()), scale)
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: RmsNormBackend> Backward<B, 2> for RmsNormBackward {
    type State = ([NodeId; 2], f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let (kept, eps) = ops.state;
        let [x, weight] = kept.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let (dx, dw) = B::backward(x, weight, upstream, eps);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, dw]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: RmsNormBackend, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        match RmsNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let kept = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                let y = B::forward(x.into_primitive(), weight.into_primitive(), eps);
                prep.finish((kept, eps), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(x.into_primitive(), weight.into_primitive(), eps)),
        }
    }
}
