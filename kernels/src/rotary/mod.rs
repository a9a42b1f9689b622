//! Rotary position embedding on halves, as Hugging Face's Llama has it.
//!
//! With `x` `[B, H, S, W]` and tables `cos`, `sin` `[B, S, W / 2]` of the positions' angles, column `i`
//! of the first half is turned together with column `i + W / 2`:
//!
//! ```text
//! y_i         = x_i cos_i - x_{i + W/2} sin_i
//! y_{i + W/2} = x_{i + W/2} cos_i + x_i sin_i
//! ```
//!
//! The backward pass is the rotation by the opposite angle and keeps the tables only. Computed in f32
//! (f64 for f64) and rounded once.
//!
//! Source: Su et al. 2021, RoFormer, arXiv 2104.09864; the halves as in transformers'
//! `rotate_half`.

#[cfg(feature = "cube")]
pub mod cube;

use crate::backends::{cast, implement_everywhere, implement_on_host, wide};
use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Slice, Tensor};

/// `x` `[B, H, S, W]` turned by the angles whose `cos` and `sin` are `[B, S, W / 2]`, any float type.
/// Differentiable in `x`; the tables are constants.
///
/// # Panics
/// If the shapes don't fit together or W is odd.
pub fn rotate_halves(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let [b, h, s, w] = x.dims();
    let expected = [b, s, w / 2];
    assert!(
        w.is_multiple_of(2) && cos.dims() == expected && sin.dims() == expected,
        "rotate_halves: x is [{b}, {h}, {s}, {w}] but cos {:?} and sin {:?}",
        cos.dims(),
        sin.dims()
    );
    let turned = Dispatch::rotate_halves(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(turned)
}

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait RotaryOps: Backend {
    /// See [`rotate_halves`].
    fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the angles.
    Forward,
    /// By their opposites: the transpose, and so the gradient.
    Back,
}

impl Turn {
    /// What the sines are multiplied by.
    pub fn sign(self) -> f32 {
        match self {
            Self::Forward => 1.0,
            Self::Back => -1.0,
        }
    }
}

/// What a backend without autodiff provides; by default in its own operations.
pub trait RotaryBackend: Backend {
    /// `x` `[B, H, S, W]` turned one way or the other.
    fn turn(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self> {
        plain_turn::<Self>(x, cos, sin, turn)
    }
}

fn plain_turn<B: Backend>(x: FloatTensor<B>, cos: FloatTensor<B>, sin: FloatTensor<B>, turn: Turn) -> FloatTensor<B> {
    let (dtype, wide) = (x.dtype(), wide(x.dtype()));
    let dims = x.shape();
    let half = dims[3] / 2;
    let table = |t: FloatTensor<B>| B::float_reshape(cast::<B>(t, wide), Shape::new([dims[0], 1, dims[2], half]));
    let (cos, sin) = (table(cos), table(sin));
    let sin = B::float_mul_scalar(sin, turn.sign().into());
    let x = cast::<B>(x, wide);
    let part = |from: usize| {
        let mut slices = vec![Slice::full(); 3];
        slices.push(Slice::from(from..from + half));
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0), part(half));
    let turned_first = B::float_sub(
        B::float_mul(first.clone(), cos.clone()),
        B::float_mul(second.clone(), sin.clone()),
    );
    let turned_second = B::float_add(B::float_mul(second, cos), B::float_mul(first, sin));
    cast::<B>(B::float_cat(vec![turned_first, turned_second], 3), dtype)
}

implement_on_host!(RotaryBackend, {});
implement_everywhere!(RotaryOps, {
    fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RotaryBackend>::turn(x, cos, sin, Turn::Forward)
    }
});

#[derive(Debug)]
struct RotaryBackward;

impl<B: RotaryBackend> Backward<B, 1> for RotaryBackward {
    /// cos and sin
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [cos, sin] = ops.state;
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::turn(upstream, cos, sin, Turn::Back));
        }
    }
}

impl<B: RotaryBackend, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let (x, node) = x.into_parts();
        let turned = B::turn(x, cos.clone(), sin.clone(), Turn::Forward);
        match RotaryBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([cos, sin], turned),
            OpsKind::UnTracked(prep) => prep.finish(turned),
        }
    }
}
