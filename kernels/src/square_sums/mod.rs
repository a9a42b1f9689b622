//! Sums of squares of the rows of a matrix, for the global gradient norm: `y_r = sum_c x_rc^2`.
//!
//! In f32 (f64 for f64), whatever the matrix holds. On flex it is one pass without a copy, in an
//! order that does not depend on the number of threads.

use crate::backends::{cast, implement_beside_flex, wide};
#[cfg(feature = "flex")]
use wmtp_gemm::FloatSlice;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Shape, Tensor};

/// `[R]` from `x` `[R, C]`, outside of autodiff.
pub fn row_square_sums(x: Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::row_square_sums(x.into_dispatch()))
}

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait SquareSumsOps: Backend {
    /// See [`row_square_sums`].
    fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "flex")]
impl SquareSumsOps for burn::backend::Flex {
    fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !matches!(x.dtype(), DType::F32 | DType::BF16) {
            return plain::<Self>(x);
        }
        let x = x.to_contiguous();
        let [rows, columns] = x.shape().dims();
        let start = x.layout().start_offset();
        let range = start..start + rows * columns;
        let values = match x.dtype() {
            DType::BF16 => FloatSlice::Bf16(&x.storage()[range]),
            _ => FloatSlice::F32(&x.storage()[range]),
        };
        let sums = crate::host::square_sums::of_rows(values, columns);
        burn::backend::flex::FlexTensor::from_data(burn::tensor::TensorData::new(sums, [rows]))
    }
}

implement_beside_flex!(SquareSumsOps, {
    fn row_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(x)
    }
});

fn plain<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = wide(x.dtype());
    let x = cast::<B>(x, dtype);
    let rows = x.shape()[0];
    B::float_reshape(B::float_sum_dim(B::float_mul(x.clone(), x), 1), Shape::from([rows]))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn rows_of_any_length_in_both_forms() {
        for (rows, columns) in [(1, 1), (3, 17), (2, 5000), (70, 33)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 7) as f32 - 3.0).collect();
            let expected: Vec<f64> = values
                .chunks(columns)
                .map(|row| row.iter().map(|x| f64::from(x * x)).sum())
                .collect();
            for dtype in [DType::F32, DType::F64, DType::BF16] {
                let data = TensorData::new(values.clone(), [rows, columns]).convert_dtype(dtype);
                let x = Tensor::<2>::from_data(data, (&Device::flex(), dtype));
                let found: Vec<f64> = row_square_sums(x).into_data().iter::<f64>().collect();
                assert_eq!(found, expected, "small integers add up exactly");
            }
        }
    }
}
