//! Rows added to those of a matrix: the gradient of an embedding that already has one.
//!
//! `y_v = x_v + sum over n with ids_n = v of rows_n`, for `x` `[V, D]`, `rows` `[N, D]` and `ids` `[N]`.
//!
//! Where embedding and unembedding share their weights, the unembedding's gradient is there, with all
//! V rows, when that of the few rows arrives that were looked up. Left to autodiff, a second matrix of zeros
//! would be made for these and both added up. On flex `x` is overwritten where nothing else refers to
//! it; rows of one id are summed in f32 in the order in which they come, and added once, so that a sum
//! in bf16 is rounded once. Elsewhere the backend's own scatter.

use crate::backends::{cast, implement_beside_flex};
use burn::backend::{
    Backend, Dispatch, TensorMetadata, backend_extension,
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

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait RowSumsOps: Backend {
    /// See [`add_rows`].
    fn add_rows(matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self>;
}

implement_beside_flex!(RowSumsOps, {
    fn add_rows(matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(matrix, ids, rows)
    }
});

fn plain<B: Backend>(matrix: FloatTensor<B>, ids: IntTensor<B>, rows: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = matrix.dtype();
    B::float_select_assign(matrix, 0, ids, cast::<B>(rows, dtype), IndexingUpdateOp::Add)
}

#[cfg(feature = "flex")]
impl RowSumsOps for burn::backend::Flex {
    fn add_rows(mut matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        use crate::host::{FloatSliceMut, row_sums};
        use burn::tensor::DType;

        if !matches!(matrix.dtype(), DType::F32 | DType::BF16) {
            return plain::<Self>(matrix, ids, rows);
        }
        let ids: Vec<i64> = ids.into_data().iter::<i64>().collect();
        let rows = cast::<Self>(rows, DType::F32).to_contiguous();
        let start = rows.layout().start_offset();
        let rows = &rows.storage::<f32>()[start..start + rows.shape().num_elements()];
        let whole = matrix.shape().num_elements() * matrix.dtype().size();
        if !(matrix.is_contiguous() && matrix.bytes().len() == whole) {
            matrix = matrix.to_contiguous();
        }
        let columns = matrix.shape()[1];
        let to = match matrix.dtype() {
            DType::BF16 => FloatSliceMut::Bf16(matrix.storage_mut()),
            _ => FloatSliceMut::F32(matrix.storage_mut()),
        };
        row_sums::add(to, columns, &ids, rows);
        matrix
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    /// Repeated ids, ids out of order and rows that nobody asks for, in both forms.
    #[test]
    fn rows_are_added_where_their_ids_say() {
        let device = Device::flex();
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let float = |values: Vec<f64>, columns: usize| {
                let shape = [values.len() / columns, columns];
                let data = TensorData::new(values, shape).convert_dtype(dtype);
                Tensor::<2>::from_data(data, (&device, dtype))
            };
            let matrix = float((0..8).map(f64::from).collect(), 2);
            let kept = matrix.clone();
            let ids = Tensor::<1, Int>::from_data([3, 0, 3, 2], &device);
            let rows = float(vec![1.0, 2.0, 10.0, 20.0, 4.0, 8.0, 0.5, 0.25], 2);
            let found: Vec<f64> = add_rows(matrix, ids, rows).into_data().iter::<f64>().collect();
            assert_eq!(found, [10.0, 21.0, 2.0, 3.0, 4.5, 5.25, 11.0, 17.0], "{dtype:?}");
            let kept: Vec<f64> = kept.into_data().iter::<f64>().collect();
            assert_eq!(kept, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "{dtype:?}");
        }
    }

    /// 1000 times 2^-8 on top of 1 is 4.90625; one at a time in bf16 the sum would stay 1.
    #[test]
    fn a_sum_in_bf16_is_rounded_once() {
        let device = Device::flex();
        let matrix = Tensor::<2>::from_data(
            TensorData::from([[1.0f32]]).convert_dtype(DType::BF16),
            (&device, DType::BF16),
        );
        let rows = Tensor::<2>::from_data(TensorData::new(vec![1.0f32 / 256.0; 1000], [1000, 1]), &device);
        let ids = Tensor::<1, Int>::zeros([1000], &device);
        let found: Vec<f64> = add_rows(matrix, ids, rows).into_data().iter::<f64>().collect();
        assert_eq!(found, [4.90625]);
    }

    #[test]
    #[should_panic(expected = "add_rows: id 4 is not below 4")]
    fn an_id_outside_is_named() {
        let device = Device::flex();
        let ids = Tensor::<1, Int>::from_data([4], &device);
        add_rows(Tensor::zeros([4, 2], &device), ids, Tensor::zeros([1, 2], &device));
    }
}
