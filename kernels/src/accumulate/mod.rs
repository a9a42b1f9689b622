//! Gradients added up over micro-batches: `total + new`, in f32 (f64 for f64) whatever the two hold.
//!
//! On flex the buffer of a total in f32 is overwritten in one pass where nothing else refers to it;
//! elsewhere the backend's own operations.

#[cfg(feature = "flex")]
mod flex;
#[cfg(all(test, feature = "flex"))]
mod tests;

use crate::backends::{accumulator_dtype, cast};
use crate::{dispatched, implement_except_flex};
use burn::backend::{Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

/// The sum of two tensors of one shape, outside of autodiff. The total is consumed so that its memory
/// can be used again; a clone that is kept keeps the old values.
///
/// # Panics
/// If the shapes differ.
pub fn accumulate<const D: usize>(total: Tensor<D>, new: Tensor<D>) -> Tensor<D> {
    let (old, fresh) = (total.dims(), new.dims());
    assert!(
        old == fresh,
        "accumulate: the total is {old:?} but the summand {fresh:?}"
    );
    Tensor::from_dispatch(Dispatch::accumulate(total.into_dispatch(), new.into_dispatch()))
}

dispatched! {
    /// The operation as burn's dispatch sees it.
    pub trait AccumulateOps: Backend {
        /// See [`accumulate`].
        fn accumulate(total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

implement_except_flex!(AccumulateOps, {
    fn accumulate(total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(total, new)
    }
});

fn plain<B: Backend>(total: FloatTensor<B>, new: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = accumulator_dtype(total.dtype());
    B::float_add(cast::<B>(total, dtype), cast::<B>(new, dtype))
}
