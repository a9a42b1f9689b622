//! SwiGLU's gate: `y = silu(gate) * up`, element by element.
//!
//! With `s = 1 / (1 + exp(-gate))` and `silu = gate s`,
//!
//! ```text
//! y = silu up        d_up = dy silu        d_gate = dy up (s + silu (1 - s))
//! ```
//!
//! Computed in f32 (f64 for f64) and rounded once. The backward pass keeps `gate` and `up` and
//! computes the rest again, both gradients in one pass on CubeCL.
//!
//! Source: Shazeer 2020, GLU Variants Improve Transformer, arXiv 2002.05202.

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

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait SwigluOps: Backend {
    /// See [`swiglu`].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
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

fn plain_forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let (gate, up) = (cast::<B>(gate, wide(dtype)), cast::<B>(up, wide(dtype)));
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    cast::<B>(B::float_mul(silu, up), dtype)
}

fn plain_backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    upstream: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let [gate, up, upstream] = [gate, up, upstream].map(|x| cast::<B>(x, wide(dtype)));
    let sigmoid = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate, sigmoid.clone());
    let rest = B::float_add_scalar(B::float_neg(sigmoid.clone()), 1.0.into());
    let slope = B::float_add(sigmoid, B::float_mul(silu.clone(), rest));
    let d_gate = B::float_mul(B::float_mul(upstream.clone(), up), slope);
    let d_up = B::float_mul(upstream, silu);
    (cast::<B>(d_gate, dtype), cast::<B>(d_up, dtype))
}

implement_on_host!(SwigluBackend, {});
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
        let upstream = grads.consume::<B>(&ops.node);
        let kept = ops.state;
        let [gate, up] = kept.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let (d_gate, d_up) = B::backward(gate, up, upstream);
        for (parent, gradient) in ops.parents.into_iter().zip([d_gate, d_up]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: SwigluBackend, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node()];
        match SwigluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let kept = [prep.checkpoint(&gate), prep.checkpoint(&up)];
                prep.finish(kept, B::forward(gate.into_primitive(), up.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(gate.into_primitive(), up.into_primitive())),
        }
    }
}
