//! The sum of every pair of storage types.

use super::*;
use burn::tensor::{DType, Device, TensorData};

#[test]
fn every_pair_of_types_adds_up_in_f32_and_leaves_a_kept_clone_alone() {
    let device = Device::flex();
    let tensor = |values: Vec<f64>, dtype: DType| {
        let data = TensorData::new(values, [2, 20_000]).convert_dtype(dtype);
        Tensor::<2>::from_data(data, (&device, dtype))
    };
    let read = |tensor: Tensor<2>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    let old: Vec<f64> = (0..40_000).map(|i| f64::from(i % 97)).collect();
    let new: Vec<f64> = (0..40_000).map(|i| f64::from(i % 89) / 64.0).collect();
    let expected: Vec<f64> = old.iter().zip(&new).map(|(a, b)| a + b).collect();
    for total in [DType::F32, DType::BF16, DType::F64] {
        for fresh in [DType::F32, DType::BF16] {
            let total = tensor(old.clone(), total);
            let kept = total.clone();
            let sum = accumulate(total, tensor(new.clone(), fresh));
            assert_ne!(sum.dtype(), DType::BF16);
            assert_eq!(read(sum), expected);
            assert_eq!(read(kept), old);
        }
    }
}
