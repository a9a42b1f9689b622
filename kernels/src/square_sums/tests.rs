//! Sums of squares that are exact in f32.

use super::*;
use burn::tensor::{DType, Device, TensorData};

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
