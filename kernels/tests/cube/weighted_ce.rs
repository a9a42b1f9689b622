//! The weighted cross-entropy: the kernels against the plain form on flex in f64, and flex's own.

use crate::common::{Problem, Solution, distance};
use crate::device;
use burn::tensor::{DType, Device};
use wmtp_kernels::weighted_ce::weighted_linear_cross_entropy_plain;
use wmtp_kernels::weighted_linear_cross_entropy;

fn found(problem: &Problem, dtype: DType) -> Solution {
    problem.solve(weighted_linear_cross_entropy, dtype, &device())
}

fn expected(problem: &Problem) -> Solution {
    problem.solve(weighted_linear_cross_entropy_plain, DType::F64, &Device::flex())
}

fn assert_equal(problem: &Problem, dtype: DType, bound: f64) {
    let error = found(problem, dtype).relative_error(&expected(problem));
    let shape = [problem.n, problem.d, problem.v];
    assert!(error < bound, "{shape:?} in {dtype:?}: relative error {error:e}");
}

/// One, odd numbers, one above and below the cube's 256 units, one and four times as many, widths
/// that are and are not multiples of a vector, and row counts around a chunk of 256.
#[test]
fn equals_f64_at_awkward_shapes() {
    let shapes = [
        [1, 1, 1],
        [1, 1, 2],
        [1, 7, 13],
        [2, 1, 3],
        [3, 5, 1],
        [17, 33, 65],
        [5, 8, 255],
        [5, 8, 256],
        [5, 8, 257],
        [9, 16, 1020],
        [9, 16, 1023],
        [9, 16, 1024],
        [9, 16, 1028],
        [31, 64, 4099],
        [257, 8, 11],
        [700, 16, 52],
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        assert_equal(&Problem::random(seed as u64, shape), DType::F32, 1e-5);
    }
}

/// 255, 256, 257 and 513 kept rows are one chunk, two or three.
#[test]
fn equals_f64_one_row_above_and_below_a_chunk() {
    for n in [255, 256, 257, 513] {
        let mut problem = Problem::random(n as u64, [n, 6, 20]);
        problem.targets.iter_mut().for_each(|t| *t = t.abs());
        problem.weights.iter_mut().for_each(|w| *w += 0.1);
        assert_equal(&problem, DType::F32, 1e-5);
    }
}

#[test]
fn equals_flex_in_the_same_type() {
    let problem = Problem::random(5, [40, 48, 1536]);
    let flex = problem.solve(weighted_linear_cross_entropy, DType::F32, &Device::flex());
    let error = found(&problem, DType::F32).relative_error(&flex);
    assert!(error < 1e-5, "{error:e}");
}

/// f16 logits are rounded to 11 bits; dW and dX are summed in f32 and then rounded.
#[test]
fn f16_where_the_device_has_it() {
    if !device().supports_dtype(DType::F16) {
        println!("no f16 on this device");
        return;
    }
    for shape in [[1, 3, 5], [33, 17, 259], [20, 32, 1024]] {
        assert_equal(&Problem::random(9, shape), DType::F16, 1e-2);
    }
}

#[test]
fn all_rows_masked_or_of_weight_zero_give_zeros() {
    let masked = |problem: &mut Problem| problem.targets.fill(-1);
    let weightless = |problem: &mut Problem| problem.weights.fill(0.0);
    for change in [masked as fn(&mut Problem), weightless] {
        let mut problem = Problem::random(1, [6, 5, 30]);
        change(&mut problem);
        let found = found(&problem, DType::F32);
        assert_eq!(found.loss, [0.0]);
        assert_eq!(found.ce, [0.0; 6]);
        assert_eq!(found.d_hidden, [0.0; 30]);
        assert_eq!(found.d_unembedding, [0.0; 150]);
    }
}

/// Logits 1e4 * (1, -1, 1): certain and wrong costs 2e4 (less ln 2, for the two equal largest ones
/// share), and one of the two equal ones ln 2.
#[test]
fn logits_of_magnitude_1e4() {
    let problem = Problem {
        n: 3,
        d: 1,
        v: 3,
        hidden: vec![100.0, 100.0, -100.0],
        unembedding: vec![100.0, -100.0, 100.0],
        targets: vec![1, 0, 1],
        weights: vec![1.0, 2.0, 3.0],
    };
    let found = found(&problem, DType::F32);
    let ln_2 = 2f64.ln();
    assert!(distance(&found.ce, &[2e4 + ln_2, ln_2, 0.0]) < 1e-6, "{:?}", found.ce);
    assert!(found.relative_error(&expected(&problem)) < 1e-5);
}

/// Random logits of that size: differences between them are what counts, and they are exact.
#[test]
fn random_logits_of_magnitude_1e4() {
    let mut problem = Problem::random(3, [24, 1, 777]);
    problem.hidden.iter_mut().for_each(|x| *x = (*x * 8.0).round());
    problem.unembedding.iter_mut().for_each(|w| *w = (*w * 750.0).round());
    assert_equal(&problem, DType::F32, 1e-5);
}

#[test]
fn not_a_number_shows_in_its_own_row() {
    let mut problem = Problem::random(2, [4, 3, 300]);
    problem.targets.copy_from_slice(&[1, 2, 3, -1]);
    problem.weights.fill(1.0);
    problem.hidden[3] = f64::NAN;
    problem.hidden[9] = f64::NAN;
    let found = found(&problem, DType::F32);
    assert!(found.ce[1].is_nan() && found.loss[0].is_nan(), "{:?}", found.ce);
    assert!([0, 2].iter().all(|row| found.ce[*row].is_finite()), "{:?}", found.ce);
    assert_eq!(found.ce[3], 0.0);
}

/// A frozen unembedding gets no gradient, and the hidden states the same one as before.
#[test]
fn a_frozen_unembedding_gets_no_gradient() {
    let problem = Problem::random(7, [30, 12, 90]);
    let device = device().autodiff();
    let hidden = problem.hidden(DType::F32, &device).require_grad();
    let unembedding = problem.unembedding(DType::F32, &device);
    let loss = weighted_linear_cross_entropy(
        hidden.clone(),
        unembedding.clone(),
        problem.targets(&device),
        problem.weights(DType::F32, &device),
    )
    .loss;
    let gradients = (loss * 3.0).backward();
    assert!(unembedding.grad(&gradients).is_none());
    let found: Vec<f64> = crate::common::values(hidden.grad(&gradients).expect("gradient of the hidden states"));
    let thrice: Vec<f64> = expected(&problem).d_hidden.iter().map(|x| 3.0 * x).collect();
    assert!(distance(&found, &thrice) < 1e-5);
}
