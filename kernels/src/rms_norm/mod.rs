//! RMSNorm: rows over their root mean square, times a weight for each column.
//!
//! With `x` `[N, D]`, `weight` w `[D]` and `r_i = 1 / sqrt(mean_j x_ij^2 + eps)`,
//!
//! ```text
//! y_ij  = w_j x_ij r_i
//! dx_ij = r_i (w_j dy_ij - x_ij r_i^2 mean_k(w_k dy_ik x_ik))        dw_j = sum_i dy_ij x_ij r_i
//! ```
//!
//! Statistics and sums are f32 (f64 for f64). `x` and `weight` are saved for the backward pass, which
//! recomputes `r`. On CubeCL three kernels, elsewhere the backend's own operations. [`flex`] has the same on
//! slices, for the decoder layers on the CPU.
//!
//! Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization, arXiv 1910.07467.

#[cfg(feature = "cube")]
pub mod cube;
pub mod flex;
mod plain;
#[cfg(test)]
mod tests;

use crate::backends::register_gradients;
use crate::{dispatched, implement_everywhere, implement_except_cube};
use burn::backend::{
    Autodiff, Backend, Dispatch,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

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

dispatched! { Autodiff:
    /// The operation as burn's dispatch sees it.
    pub trait RmsNormOps: Backend {
        /// See [`rms_norm`].
        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    }
}

/// What a backend without autodiff provides; by default in its own operations.
pub trait RmsNormBackend: Backend {
    /// y `[N, D]`.
    fn forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        plain::forward::<Self>(x, weight, eps)
    }

    /// dx `[N, D]` and dw `[D]` for `upstream` dy `[N, D]`.
    fn backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        plain::backward::<Self>(x, weight, upstream, eps)
    }
}

implement_except_cube!(RmsNormBackend, {});
implement_everywhere!(RmsNormOps, {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        <Self as RmsNormBackend>::forward(x, weight, eps)
    }
});

#[derive(Debug)]
struct RmsNormBackward;

impl<B: RmsNormBackend> Backward<B, 2> for RmsNormBackward {
    type State = ([NodeId; 2], f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        register_gradients::<B, _, 2>(ops, grads, |(saved, eps), upstream, _| {
            let [x, weight] = saved.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
            let (dx, dw) = B::backward(x, weight, upstream, eps);
            [Some(dx), Some(dw)]
        });
    }
}

impl<B: RmsNormBackend, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        match RmsNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                let y = B::forward(x.into_primitive(), weight.into_primitive(), eps);
                prep.finish((saved, eps), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(x.into_primitive(), weight.into_primitive(), eps)),
        }
    }
}
