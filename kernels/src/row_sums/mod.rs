//! Rows added to those of a matrix: the gradient of an embedding that already has one.
//!
//! `y_v = x_v + sum over n with ids_n = v of rows_n`, for `x` `[V, D]`, `rows` `[N, D]` and `ids` `[N]`.
//!
//! Where embedding and unembedding share their weights, the unembedding's gradient with all V rows already
//! exists when the gradient of the few embedding rows that were looked up is known. Autodiff alone would
//! allocate a second matrix of zeros for these and add both. On flex `x` is overwritten where nothing else
//! refers to it; rows of one id are summed in f32 in their order and added once, so that a sum in bf16 is
//! rounded once. Elsewhere this is the backend's own scatter.

#[cfg(feature = "flex")]
mod flex;
#[cfg(all(test, feature = "flex"))]
mod tests;

use crate::backends::cast;
use crate::{dispatched, implement_except_flex};
use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// `matrix` `[V, D]` with `rows` `[N, D]` added to its rows `ids` `[N]`, in the matrix's type. Outside of
/// autodiff. The matrix is consumed so that its memory can be used again.
///
/// # Panics
/// If the shapes don't fit together, or an id is not in `0..V`.
pub fn add_rows(matrix: Tensor<2>, ids: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
    let ([v, d], [n], [count, width]) = (matrix.dims(), ids.dims(), rows.dims());
    assert!(
        n == count && d == width,
        "add_rows: the matrix is [{v}, {d}], there are {n} ids and the rows are [{count}, {width}]"
    );
    let found = Dispatch::add_rows(matrix.into_dispatch(), ids.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(found)
}

dispatched! {
    /// The operation as burn's dispatch sees it.
    pub trait RowSumsOps: Backend {
        /// See [`add_rows`].
        fn add_rows(matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

implement_except_flex!(RowSumsOps, {
    fn add_rows(matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(matrix, ids, rows)
    }
});

fn plain<B: Backend>(matrix: FloatTensor<B>, ids: IntTensor<B>, rows: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = matrix.dtype();
    B::float_select_assign(matrix, 0, ids, cast::<B>(rows, dtype), IndexingUpdateOp::Add)
}
