//! One AdamW step, in place: the parameter and both moments in one pass.
//!
//! With gradient `g`, first and second moment `m` and `v`, and step `t` counted from 1,
//!
//! ```text
//! m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
//! p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```
//!
//! where `g` is the given gradient times `gradient_scale`: clipping by the global norm needs no pass of its
//! own.
//!
//! Computed in f32 (f64 for f64), whatever the four tensors hold; f32 and bf16 mix freely. On flex values
//! stored in bf16 are rounded stochastically (see `flex.rs`), elsewhere to the nearest. On flex and CubeCL
//! the buffers of `p`, `m` and `v` are overwritten in one pass where nothing else refers to them, and copied
//! first where something does.
//!
//! Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv 1711.05101,
//! algorithm 2, with the schedule's multiplier in `lr` and the decay times `lr` as in PyTorch.

#[cfg(feature = "cube")]
pub mod cube;
#[cfg(feature = "flex")]
mod flex;
mod plain;
#[cfg(all(test, feature = "flex"))]
mod tests;

use crate::{dispatched, implement_except_flex_and_cube};
use burn::backend::{Backend, Dispatch, tensor::FloatTensor};
use burn::tensor::Tensor;

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// lr, after the schedule.
    pub learning_rate: f64,
    /// b1, how much of the first moment stays.
    pub beta_1: f64,
    /// b2, how much of the second moment stays.
    pub beta_2: f64,
    /// eps, added to the root of the second moment.
    pub epsilon: f64,
    /// wd, decoupled: the parameter shrinks by lr wd.
    pub weight_decay: f64,
    /// t, from 1.
    pub step: u32,
    /// What the gradient is multiplied by before it is used.
    pub gradient_scale: f64,
}

impl AdamWStep {
    /// `lr / (1 - b1^t)`, what `m / (sqrt(..) + eps)` is multiplied by.
    pub(crate) fn step_size(&self) -> f64 {
        self.learning_rate / (1.0 - self.beta_1.powf(f64::from(self.step)))
    }

    /// `1 / (1 - b2^t)`, what v is multiplied by.
    pub(crate) fn correction_2(&self) -> f64 {
        1.0 / (1.0 - self.beta_2.powf(f64::from(self.step)))
    }

    /// `1 - lr wd`, what the parameter is multiplied by.
    pub(crate) fn shrink(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }
}

/// A parameter and its moments, of one shape.
#[derive(Debug, Clone)]
pub struct AdamWState<const D: usize> {
    /// p
    pub parameter: Tensor<D>,
    /// m, zeros before the first step.
    pub moment_1: Tensor<D>,
    /// v, zeros before the first step.
    pub moment_2: Tensor<D>,
}

/// One step with `gradient`, on tensors outside of autodiff. The state is consumed so that its memory
/// can be used again; a clone that is kept keeps the old values.
///
/// # Panics
/// If the shapes differ, the step is 0, or a tensor tracks gradients.
pub fn adamw_step<const D: usize>(state: AdamWState<D>, gradient: Tensor<D>, step: AdamWStep) -> AdamWState<D> {
    let shape = state.parameter.dims();
    let others = [&state.moment_1, &state.moment_2, &gradient].map(|tensor| tensor.dims());
    assert!(
        others.iter().all(|other| *other == shape),
        "adamw_step: parameter {shape:?}, moments and gradient {others:?}"
    );
    assert!(step.step > 0, "adamw_step: steps are counted from 1");
    let (parameter, moment_1, moment_2) = Dispatch::adamw_step(
        state.parameter.into_dispatch(),
        state.moment_1.into_dispatch(),
        state.moment_2.into_dispatch(),
        gradient.into_dispatch(),
        step,
    );
    AdamWState {
        parameter: Tensor::from_dispatch(parameter),
        moment_1: Tensor::from_dispatch(moment_1),
        moment_2: Tensor::from_dispatch(moment_2),
    }
}

dispatched! {
    /// The operation as burn's dispatch sees it.
    pub trait AdamWOps: Backend {
        /// See [`adamw_step`]: the new parameter and moments.
        fn adamw_step(
            parameter: FloatTensor<Self>,
            moment_1: FloatTensor<Self>,
            moment_2: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            step: AdamWStep,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }
}

implement_except_flex_and_cube!(AdamWOps, {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        plain::step::<Self>(parameter, moment_1, moment_2, gradient, step)
    }
});
