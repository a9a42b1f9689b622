//! Sums of squares of the rows of a matrix, for the global gradient norm: `y_r = sum_c x_rc^2`.
//!
//! In f32 (f64 for f64), whatever the matrix holds. On flex it is one pass without a copy, in an
//! order that does not depend on the number of threads.

#[cfg(feature = "flex")]
mod flex;
#[cfg(all(test, feature = "flex"))]
mod tests;

use crate::backends::{accumulator_dtype, cast};
use crate::{dispatched, implement_except_flex};
use burn::backend::{Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, Tensor};

/// `[R]` from `x` `[R, C]`, outside of autodiff.
pub fn row_square_sums(x: Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::row_square_sums(x.into_dispatch()))
}

dispatched! {
    /// The operation as burn's dispatch sees it.
    pub trait SquareSumsOps: Backend {
        /// See [`row_square_sums`].
        fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

implement_except_flex!(SquareSumsOps, {
    fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(x)
    }
});

fn plain<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = accumulator_dtype(x.dtype());
    let x = cast::<B>(x, dtype);
    let rows = x.shape()[0];
    B::float_reshape(B::float_sum_dim(B::float_mul(x.clone(), x), 1), Shape::from([rows]))
}
