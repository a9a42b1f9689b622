//! Rotary position embedding on halves, as Hugging Face's Llama has it.
//!
//! With `x` `[B, H, S, W]` and tables `cos`, `sin` `[B, S, W / 2]` of the positions' angles, column `i`
//! of the first half is rotated together with column `i + W / 2`:
//!
//! ```text
//! y_i         = x_i cos_i - x_{i + W/2} sin_i
//! y_{i + W/2} = x_{i + W/2} cos_i + x_i sin_i
//! ```
//!
//! The backward pass is the rotation by the opposite angle; only the tables are saved for it. Computed in f32
//! (f64 for f64) and rounded once. [`flex`] has the same on slices, for the decoder layers on the CPU.
//!
//! Source: Su et al. 2021, RoFormer, arXiv 2104.09864; the halves as in transformers'
//! `rotate_half`.

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
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Slice, Tensor};

/// `x` `[B, H, S, W]` rotated by the angles whose `cos` and `sin` are `[B, S, W / 2]`, any float type.
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
    let rotated = Dispatch::rotate_halves(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(rotated)
}

dispatched! { Autodiff:
    /// The operation as burn's dispatch sees it.
    pub trait RotaryOps: Backend {
        /// See [`rotate_halves`].
        fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

/// The direction of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// By the angles.
    Forward,
    /// By the opposite angles: the transpose, and so the gradient.
    Inverse,
}

impl Rotation {
    /// The factor of the sines.
    pub fn sign(self) -> f32 {
        match self {
            Self::Forward => 1.0,
            Self::Inverse => -1.0,
        }
    }
}

/// What a backend without autodiff provides; by default in its own operations.
pub trait RotaryBackend: Backend {
    /// `x` `[B, H, S, W]`, rotated.
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        plain::<Self>(x, cos, sin, rotation)
    }
}

implement_except_cube!(RotaryBackend, {});
implement_everywhere!(RotaryOps, {
    fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RotaryBackend>::rotate(x, cos, sin, Rotation::Forward)
    }
});

#[derive(Debug)]
struct RotaryBackward;

impl<B: RotaryBackend> Backward<B, 1> for RotaryBackward {
    /// cos and sin
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        register_gradients::<B, _, 1>(ops, grads, |[cos, sin], upstream, _| {
            [Some(B::rotate(upstream, cos, sin, Rotation::Inverse))]
        });
    }
}

impl<B: RotaryBackend, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotate_halves(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let (x, node) = x.into_parts();
        let rotated = B::rotate(x, cos.clone(), sin.clone(), Rotation::Forward);
        match RotaryBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([cos, sin], rotated),
            OpsKind::UnTracked(prep) => prep.finish(rotated),
        }
    }
}

/// The rotation in a backend's own operations.
fn plain<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    rotation: Rotation,
) -> FloatTensor<B> {
    let (dtype, wide) = (x.dtype(), accumulator_dtype(x.dtype()));
    let dims = x.shape();
    let half = dims[3] / 2;
    let table = |t: FloatTensor<B>| B::float_reshape(cast::<B>(t, wide), Shape::new([dims[0], 1, dims[2], half]));
    let (cos, sin) = (table(cos), table(sin));
    let sin = B::float_mul_scalar(sin, rotation.sign().into());
    let x = cast::<B>(x, wide);
    let part = |from: usize| {
        let mut slices = vec![Slice::full(); 3];
        slices.push(Slice::from(from..from + half));
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0), part(half));
    let rotated_first = B::float_sub(
        B::float_mul(first.clone(), cos.clone()),
        B::float_mul(second.clone(), sin.clone()),
    );
    let rotated_second = B::float_add(B::float_mul(second, cos), B::float_mul(first, sin));
    cast::<B>(B::float_cat(vec![rotated_first, rotated_second], 3), dtype)
}
