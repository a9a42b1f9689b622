//! The step against values worked out by hand, and on slices against its formulas in f64.

use super::*;
use crate::test_support::{assert_close, wide};
use crate::test_values::values;
use burn::tensor::{DType, Device, TensorData};
use wmtp_gemm::{FloatSlice, FloatSliceMut};

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

/// Against the formulas in f64, over three updates.
#[test]
fn adamw_follows_its_formula() {
    let n = 20_000;
    let (mut w, mut m, mut v) = (values(n, 9), vec![0.0; n], vec![0.0; n]);
    let (mut we, mut me, mut ve) = (wide(&w), vec![0.0f64; n], vec![0.0f64; n]);
    for time in 1..=3 {
        let g = values(n, 10 + time as u64);
        let update = AdamWStep {
            learning_rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: time as u32,
            gradient_scale: 0.5,
        };
        let moments = [FloatSliceMut::F32(&mut m), FloatSliceMut::F32(&mut v)];
        flex::update(FloatSliceMut::F32(&mut w), moments, FloatSlice::F32(&g), &update);
        for i in 0..n {
            let g = 0.5 * f64::from(g[i]);
            me[i] = 0.9 * me[i] + 0.1 * g;
            ve[i] = 0.95 * ve[i] + 0.05 * g * g;
            let first = me[i] / (1.0 - 0.9f64.powi(time));
            let second = ve[i] / (1.0 - 0.95f64.powi(time));
            we[i] = we[i] * (1.0 - 1e-2 * 0.1) - 1e-2 * first / (second.sqrt() + 1e-8);
        }
    }
    assert_close("weight", &w, &we, 1e-6);
    assert_close("first moment", &m, &me, 1e-6);
    assert_close("second moment", &v, &ve, 1e-6);
}
