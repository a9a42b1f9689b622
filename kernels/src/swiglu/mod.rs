//! SwiGLU's gate: `y = silu(gate) * up`, element by element.
//!
//! With `s = 1 / (1 + exp(-gate))` and `silu = gate s`,
//!
//! ```text
//! y = silu up        d_up = dy silu        d_gate = dy up (s + silu (1 - s))
//! ```
//!
//! Computed in f32 (f64 for f64) and rounded once. `gate` and `up` are saved for the backward pass, which
//! recomputes the rest, both gradients in one pass on CubeCL. [`flex`] has the same on slices, for the
//! decoder layers on the CPU.
//!
//! Source: Shazeer 2020, GLU Variants Improve Transformer, arXiv 2002.05202.

#[cfg(feature = "cube")]
pub mod cube;
pub mod flex;
#[cfg(test)]
mod tests;

use crate::backends::{accumulator_dtype, cast, register_gradients};
use crate::{dispatched, implement_everywhere, implement_except_cube};
use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

/// `silu(gate) * up` of two tensors of one shape and type, differentiable in both.
///
/// # Panics
/// If the shapes or types differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert!(
        gate.dims() == up.dims() && gate.dtype() == up.dtype(),
        "swiglu: gate is {:?} in {:?} but up {:?} in {:?}",
        gate.dims(),
        gate.dtype(),
        up.dims(),
        up.dtype()
    );
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

dispatched! { Autodiff:
    /// The operation as burn's dispatch sees it.
    pub trait SwigluOps: Backend {
        /// See [`swiglu`].
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

/// What a backend without autodiff provides; by default in its own operations.
pub trait SwigluBackend: Backend {
    /// y, of the inputs' shape.
    fn forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        plain_forward::<Self>(gate, up)
    }

    /// The gradients of `gate` and `up` for `upstream` dy.
    fn backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        plain_backward::<Self>(gate, up, upstream)
    }
}

implement_except_cube!(SwigluBackend, {});
implement_everywhere!(SwigluOps, {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as SwigluBackend>::forward(gate, up)
    }
});

#[derive(Debug)]
struct SwigluBackward;

impl<B: SwigluBackend> Backward<B, 2> for SwigluBackward {
    type State = [NodeId; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        register_gradients::<B, _, 2>(ops, grads, |saved, upstream, _| {
            let [gate, up] = saved.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
            let (d_gate, d_up) = B::backward(gate, up, upstream);
            [Some(d_gate), Some(d_up)]
        });
    }
}

impl<B: SwigluBackend, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node()];
        match SwigluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = [prep.checkpoint(&gate), prep.checkpoint(&up)];
                prep.finish(saved, B::forward(gate.into_primitive(), up.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(gate.into_primitive(), up.into_primitive())),
        }
    }
}

/// SwiGLU in a backend's own operations.
fn plain_forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let (gate, up) = (
        cast::<B>(gate, accumulator_dtype(dtype)),
        cast::<B>(up, accumulator_dtype(dtype)),
    );
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    cast::<B>(B::float_mul(silu, up), dtype)
}

fn plain_backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    upstream: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let [gate, up, upstream] = [gate, up, upstream].map(|x| cast::<B>(x, accumulator_dtype(dtype)));
    let sigmoid = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate, sigmoid.clone());
    let rest = B::float_add_scalar(B::float_neg(sigmoid.clone()), 1.0.into());
    let slope = B::float_add(sigmoid, B::float_mul(silu.clone(), rest));
    let d_gate = B::float_mul(B::float_mul(upstream.clone(), up), slope);
    let d_up = B::float_mul(upstream, silu);
    (cast::<B>(d_gate, dtype), cast::<B>(d_up, dtype))
}
