//! One AdamW step, in place: the parameter and both moments in one pass.
//!
//! With gradient `g`, first and second moment `m` and `v`, and step `t` counted from 1,
//!
//! ```text
//! m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
//! p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```
//!
//! where `g` is the given gradient times `gradient_scale`, which is how clipping by the global norm costs
//! no pass of its own.
//!
//! Computed in f32 (f64 for f64), whatever the four tensors hold; f32 and bf16 mix freely. On flex
//! what is stored in bf16 is rounded stochastically ([`crate::host::adamw`]), elsewhere to the nearest.
//! On flex and CubeCL the buffers of
//! `p`, `m` and `v` are overwritten in one pass where nothing else refers to them, and copied first where
//! something does.
//!
//! Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv 1711.05101,
//! algorithm 2, with the schedule's multiplier in `lr` and the decay times `lr` as in PyTorch.

#[cfg(feature = "cube")]
pub mod cube;

use crate::backends::{cast, implement_plainly, wide};
#[cfg(feature = "flex")]
use crate::{host::FloatSliceMut, product::FloatSlice};
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

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

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
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

#[cfg(feature = "flex")]
impl AdamWOps for burn::backend::Flex {
    fn adamw_step(
        mut parameter: FloatTensor<Self>,
        mut moment_1: FloatTensor<Self>,
        mut moment_2: FloatTensor<Self>,
        mut gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let dtypes = [&parameter, &moment_1, &moment_2, &gradient].map(|tensor| tensor.dtype());
        let is_slice = |dtype: &DType| matches!(dtype, DType::F32 | DType::BF16);
        if !dtypes.iter().all(is_slice) || dtypes[1] != dtypes[2] {
            return plain_step::<Self>(parameter, moment_1, moment_2, gradient, step);
        }
        for tensor in [&mut parameter, &mut moment_1, &mut moment_2, &mut gradient] {
            // A copy of what is dense already would make its memory shared.
            let whole = tensor.shape().num_elements() * tensor.dtype().size();
            let dense = tensor.is_contiguous() && tensor.bytes().len() == whole;
            if !dense {
                *tensor = tensor.to_contiguous();
            }
        }
        let gradient = match gradient.dtype() {
            DType::BF16 => FloatSlice::Bf16(gradient.storage()),
            _ => FloatSlice::F32(gradient.storage()),
        };
        crate::host::adamw::update(
            floats_mut(&mut parameter),
            [floats_mut(&mut moment_1), floats_mut(&mut moment_2)],
            gradient,
            &step,
        );
        (parameter, moment_1, moment_2)
    }
}

/// The memory of a dense f32 or bf16 tensor, to be overwritten.
#[cfg(feature = "flex")]
fn floats_mut(tensor: &mut burn::backend::flex::FlexTensor) -> FloatSliceMut<'_> {
    match tensor.dtype() {
        DType::BF16 => FloatSliceMut::Bf16(tensor.storage_mut()),
        _ => FloatSliceMut::F32(tensor.storage_mut()),
    }
}

implement_plainly!(AdamWOps, {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        plain_step::<Self>(parameter, moment_1, moment_2, gradient, step)
    }
});

/// `gradient` times `factor`; itself where that is one.
pub(crate) fn scaled<B: Backend>(gradient: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    if factor == 1.0 {
        gradient
    } else {
        B::float_mul_scalar(gradient, factor.into())
    }
}

fn plain_step<B: Backend>(
    parameter: FloatTensor<B>,
    moment_1: FloatTensor<B>,
    moment_2: FloatTensor<B>,
    gradient: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let tensors = [parameter, moment_1, moment_2, gradient];
    let dtypes = tensors.each_ref().map(|tensor| tensor.dtype());
    let sums = wide(dtypes[0]);
    let [p, m, v, g] = tensors.map(|tensor| cast::<B>(tensor, sums));
    let g = scaled::<B>(g, step.gradient_scale);
    let m = B::float_add(
        B::float_mul_scalar(m, step.beta_1.into()),
        B::float_mul_scalar(g.clone(), (1.0 - step.beta_1).into()),
    );
    let v = B::float_add(
        B::float_mul_scalar(v, step.beta_2.into()),
        B::float_mul_scalar(B::float_mul(g.clone(), g), (1.0 - step.beta_2).into()),
    );
    let root = B::float_sqrt(B::float_mul_scalar(v.clone(), step.correction_2().into()));
    let direction = B::float_div(m.clone(), B::float_add_scalar(root, step.epsilon.into()));
    let p = B::float_sub(
        B::float_mul_scalar(p, step.shrink().into()),
        B::float_mul_scalar(direction, step.step_size().into()),
    );
    (
        cast::<B>(p, dtypes[0]),
        cast::<B>(m, dtypes[1]),
        cast::<B>(v, dtypes[2]),
    )
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// Two steps worked out by hand: with b1 = b2 = 0 both moments are those of the last gradient, so
    /// p moves by lr times its sign after shrinking by 1 - lr wd.
    #[test]
    fn literal_steps_in_both_forms_leave_a_kept_clone_alone() {
        for dtype in [DType::F32, DType::F64] {
            let tensor = |values: [f64; 3]| {
                let data = TensorData::from(values).convert_dtype(dtype);
                Tensor::<1>::from_data(data, (&Device::flex(), dtype))
            };
            let read = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
            let start = AdamWState {
                parameter: tensor([1.0, -2.0, 4.0]),
                moment_1: tensor([0.0; 3]),
                moment_2: tensor([0.0; 3]),
            };
            let kept = start.clone();
            let mut step = AdamWStep {
                learning_rate: 0.5,
                beta_1: 0.0,
                beta_2: 0.0,
                epsilon: 0.0,
                weight_decay: 0.5,
                step: 1,
                gradient_scale: 0.5,
            };
            let once = adamw_step(start, tensor([6.0, -10.0, 14.0]), step);
            assert_eq!(read(once.parameter.clone()), [0.25, -1.0, 2.5]);
            assert_eq!(read(once.moment_1.clone()), [3.0, -5.0, 7.0]);
            assert_eq!(read(once.moment_2.clone()), [9.0, 25.0, 49.0]);
            assert_eq!(read(kept.parameter), [1.0, -2.0, 4.0]);
            assert_eq!(read(kept.moment_2), [0.0; 3]);
            step.step = 2;
            let twice = adamw_step(once, tensor([-1.0, 1.0, 1.0]), step);
            assert_eq!(read(twice.parameter), [0.6875, -1.25, 1.375]);
        }
    }
}
