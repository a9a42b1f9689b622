//! Sums that are exact, and their rounding in bf16.

use super::*;
use burn::tensor::{DType, Device, TensorData};

/// Repeated ids, ids out of order and rows without an id, in both forms.
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
