//! The fused weighted cross-entropy against hand-worked values, NumPy, finite differences and the
//! plain form in burn's own operations.

mod common;

use burn::tensor::{DType, Tensor};
use common::{Operation, Problem, devices, distance, floats, values};
use proptest::prelude::*;
use wmtp_kernels::weighted_ce::weighted_linear_cross_entropy_plain;
use wmtp_kernels::weighted_linear_cross_entropy;

const FUSED: Operation = weighted_linear_cross_entropy;
const PLAIN: Operation = weighted_linear_cross_entropy_plain;

#[rustfmt::skip]
mod numpy {
    include!("fixtures/weighted_ce.rs");
}

fn numpy_problem() -> Problem {
    Problem {
        n: numpy::N,
        d: numpy::D,
        v: numpy::V,
        hidden: numpy::HIDDEN.to_vec(),
        unembedding: numpy::UNEMBEDDING.to_vec(),
        targets: numpy::TARGETS.to_vec(),
        weights: numpy::WEIGHTS.to_vec(),
    }
}

/// x = 1, W = (0, ln 3): p = (1/4, 3/4). With target 0 and weight 2: ce = ln 4, loss = 2 ln 4,
/// W's gradient 2 (-3/4, 3/4), x's gradient 2 * 3/4 * ln 3.
#[test]
fn a_case_worked_out_by_hand() {
    let ln_3 = 3f64.ln();
    let problem = Problem {
        n: 1,
        d: 1,
        v: 2,
        hidden: vec![1.0],
        unembedding: vec![0.0, ln_3],
        targets: vec![0],
        weights: vec![2.0],
    };
    for device in devices() {
        for operation in [FUSED, PLAIN] {
            let found = problem.solve(operation, DType::F64, &device);
            assert!((found.loss[0] - 2.0 * 4f64.ln()).abs() < 1e-14);
            assert!((found.ce[0] - 4f64.ln()).abs() < 1e-14);
            assert!(distance(&found.d_unembedding, &[-1.5, 1.5]) < 1e-14);
            assert!(distance(&found.d_hidden, &[1.5 * ln_3]) < 1e-14);
        }
    }
}

#[test]
fn equals_what_numpy_gives() {
    let expected = common::Solution {
        loss: numpy::LOSS.to_vec(),
        ce: numpy::CE.to_vec(),
        d_hidden: numpy::D_HIDDEN.to_vec(),
        d_unembedding: numpy::D_UNEMBEDDING.to_vec(),
    };
    for device in devices() {
        let found = numpy_problem().solve(FUSED, DType::F64, &device);
        assert!(found.relative_error(&expected) < 1e-13, "{found:?}");
        let found = numpy_problem().solve(FUSED, DType::F32, &device);
        assert!(found.relative_error(&expected) < 1e-6, "{found:?}");
    }
}

/// Shapes around one, odd ones, and row counts around one and two chunks of 256 (kept rows are
/// some 60 percent, so both sides of the boundary are met by the second group).
#[test]
fn equals_the_plain_form_at_awkward_shapes() {
    let shapes = [
        [1, 1, 1],
        [1, 1, 2],
        [1, 7, 13],
        [2, 1, 3],
        [3, 5, 1],
        [17, 33, 65],
        [31, 64, 1023],
        [255, 8, 11],
        [256, 8, 11],
        [257, 8, 11],
        [400, 16, 50],
        [425, 16, 50],
        [430, 16, 50],
        [513, 3, 17],
        [900, 24, 129],
        [64, 48, 9001],
    ];
    for device in devices() {
        for (seed, shape) in shapes.into_iter().enumerate() {
            let problem = Problem::random(seed as u64, shape);
            let found = problem.solve(FUSED, DType::F32, &device);
            let expected = problem.solve(PLAIN, DType::F32, &device);
            let error = found.relative_error(&expected);
            assert!(error < 1e-5, "{shape:?} on {device:?}: {error:e}");
        }
    }
}

/// All rows kept: 255, 256, 257, 512 and 513 rows are one chunk, two or three.
#[test]
fn equals_the_plain_form_one_row_above_and_below_a_chunk() {
    for device in devices() {
        for n in [255, 256, 257, 511, 512, 513] {
            let mut problem = Problem::random(n as u64, [n, 6, 19]);
            problem.targets.iter_mut().for_each(|t| *t = t.abs());
            problem.weights.iter_mut().for_each(|w| *w += 0.1);
            let found = problem.solve(FUSED, DType::F32, &device);
            let expected = problem.solve(PLAIN, DType::F32, &device);
            let error = found.relative_error(&expected);
            assert!(error < 1e-5, "{n} rows on {device:?}: {error:e}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_plain_form(seed: u64, n in 1usize..80, d in 1usize..40, v in 1usize..300) {
        let problem = Problem::random(seed, [n, d, v]);
        for device in devices() {
            for (dtype, bound) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
                let found = problem.solve(FUSED, dtype, &device);
                let expected = problem.solve(PLAIN, dtype, &device);
                let error = found.relative_error(&expected);
                // With one token to choose from every value is exactly zero in exact arithmetic.
                prop_assert!(error < bound, "{:?}: {:e}", device, error);
            }
        }
    }
}

/// Central differences of the loss in f64, for every element of both inputs.
#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let problem = Problem::random(3, [9, 4, 7]);
    for device in devices() {
        let found = problem.solve(FUSED, DType::F64, &device);
        let loss = |problem: &Problem| {
            let result = weighted_linear_cross_entropy(
                problem.hidden(DType::F64, &device),
                problem.unembedding(DType::F64, &device),
                problem.targets(&device),
                problem.weights(DType::F64, &device),
            );
            values(result.loss)[0]
        };
        let difference = |change: &dyn Fn(&mut Problem, f64)| {
            let (mut above, mut below) = (problem.clone(), problem.clone());
            change(&mut above, STEP);
            change(&mut below, -STEP);
            (loss(&above) - loss(&below)) / (2.0 * STEP)
        };
        let d_hidden: Vec<f64> = (0..problem.hidden.len())
            .map(|i| difference(&|p, step| p.hidden[i] += step))
            .collect();
        let d_unembedding: Vec<f64> = (0..problem.unembedding.len())
            .map(|i| difference(&|p, step| p.unembedding[i] += step))
            .collect();
        assert!(distance(&found.d_hidden, &d_hidden) < 1e-8);
        assert!(distance(&found.d_unembedding, &d_unembedding) < 1e-8);
    }
}

#[test]
fn nothing_kept_gives_zero_and_gradients_of_zero() {
    for device in devices() {
        for (targets, weights) in [(vec![-1, -1], vec![1.0, 2.0]), (vec![0, 1], vec![0.0, 0.0])] {
            let mut problem = Problem::random(1, [2, 3, 5]);
            (problem.targets, problem.weights) = (targets, weights);
            let found = problem.solve(FUSED, DType::F32, &device);
            assert_eq!(found.loss, [0.0]);
            assert_eq!(found.ce, [0.0; 2]);
            assert_eq!(found.d_hidden, [0.0; 6]);
            assert_eq!(found.d_unembedding, [0.0; 15]);
        }
    }
}

/// Logits of +-1e4: the first row is certain and right (ce 0), the second certain and wrong (ce
/// 2e4), the third has two equal largest logits (ce ln 2).
#[test]
fn large_logits_neither_overflow_nor_vanish() {
    let problem = Problem {
        n: 3,
        d: 2,
        v: 3,
        hidden: vec![1e4, 0.0, 1e4, 0.0, 0.0, 1e4],
        unembedding: vec![1.0, 1.0, -1.0, 1.0, 0.0, -1.0],
        targets: vec![0, 1, 0],
        weights: vec![1.0, 1.0, 1.0],
    };
    for device in devices() {
        let found = problem.solve(FUSED, DType::F32, &device);
        assert_eq!(found.ce[..2], [0.0, 2e4]);
        assert!((found.ce[2] - 2f64.ln()).abs() < 1e-6);
        // Row 1: p = (1, 0, 0), onehot = (0, 1, 0), gradient w_0 - w_1 = (2, 0).
        assert_eq!(found.d_hidden[..4], [0.0, 0.0, 2.0, 0.0]);
        assert!(found.d_unembedding.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn not_a_number_shows_in_kept_rows_only() {
    for device in devices() {
        let mut problem = Problem::random(5, [4, 3, 40]);
        (problem.targets, problem.weights) = (vec![1, -1, 2, 3], vec![1.0, 1.0, 0.0, 1.0]);
        problem.hidden[3] = f64::NAN; // row 1, masked
        problem.hidden[6] = f64::NAN; // row 2, weight 0
        let found = problem.solve(FUSED, DType::F32, &device);
        assert!(found.loss[0].is_finite() && found.d_unembedding.iter().all(|x| x.is_finite()));
        problem.hidden[10] = f64::NAN; // row 3, kept
        let found = problem.solve(FUSED, DType::F32, &device);
        assert!(found.loss[0].is_nan() && found.ce[3].is_nan());
        assert!(found.ce[0].is_finite());
        problem.hidden[10] = f64::INFINITY;
        let found = problem.solve(FUSED, DType::F32, &device);
        assert!(!found.loss[0].is_finite());
    }
}

/// x = W[ids]: the unembedding is the embedding as well, and its two gradients add up.
#[test]
fn gradients_of_a_tied_embedding_add_up() {
    let problem = Problem::random(8, [12, 6, 12]);
    for device in devices() {
        let device = device.autodiff();
        let gradient = |operation: Operation| {
            let tied = problem.unembedding(DType::F32, &device).require_grad();
            let hidden = tied.clone().select(0, problem.targets(&device).abs()).tanh();
            let weights = problem.weights(DType::F32, &device);
            let found = operation(hidden, tied.clone(), problem.targets(&device), weights);
            // The cross-entropy of the ids themselves, so both orders of registration occur.
            let loss = found.loss * 0.5 + tied.clone().powi_scalar(2).sum();
            let gradients = loss.backward();
            values(tied.grad(&gradients).expect("gradient of the tied embedding"))
        };
        assert!(distance(&gradient(FUSED), &gradient(PLAIN)) < 1e-5);
    }
}

#[test]
fn the_upstream_gradient_scales_both() {
    let problem = Problem::random(9, [20, 6, 30]);
    for device in devices() {
        let once = problem.solve(FUSED, DType::F64, &device);
        let thrice = problem.solve(
            |h, u, t, w| {
                let mut found = weighted_linear_cross_entropy(h, u, t, w);
                found.loss = found.loss * 3.0;
                found
            },
            DType::F64,
            &device,
        );
        let times_3 = |values: &[f64]| values.iter().map(|x| x * 3.0).collect::<Vec<_>>();
        assert_eq!(thrice.d_hidden, times_3(&once.d_hidden));
        assert_eq!(thrice.d_unembedding, times_3(&once.d_unembedding));
    }
}

#[test]
fn only_tracked_inputs_get_gradients() {
    let problem = Problem::random(10, [20, 6, 30]);
    for device in devices() {
        let both = problem.solve(FUSED, DType::F32, &device);
        let device = device.autodiff();
        for (track_hidden, track_unembedding) in [(true, false), (false, true)] {
            let (mut hidden, mut unembedding) = (
                problem.hidden(DType::F32, &device),
                problem.unembedding(DType::F32, &device),
            );
            if track_hidden {
                hidden = hidden.require_grad();
            }
            if track_unembedding {
                unembedding = unembedding.require_grad();
            }
            let (targets, weights) = (problem.targets(&device), problem.weights(DType::F32, &device));
            let found = weighted_linear_cross_entropy(hidden.clone(), unembedding.clone(), targets, weights);
            let gradients = found.loss.backward();
            let expected = track_hidden.then_some(both.d_hidden.clone());
            assert_eq!(hidden.grad(&gradients).map(values), expected);
            let expected = track_unembedding.then_some(both.d_unembedding.clone());
            assert_eq!(unembedding.grad(&gradients).map(values), expected);
        }
        // Neither: the same loss, and nothing of it in a graph.
        let found = weighted_linear_cross_entropy(
            problem.hidden(DType::F32, &device),
            problem.unembedding(DType::F32, &device),
            problem.targets(&device),
            problem.weights(DType::F32, &device),
        );
        assert!(!found.loss.is_tracked());
        assert!(distance(&values(found.loss), &both.loss) < 1e-6);
        assert!(distance(&values(found.ce), &both.ce) < 1e-6);
    }
}

#[test]
fn cross_entropies_and_weights_carry_no_gradient() {
    let problem = Problem::random(11, [5, 3, 8]);
    for device in devices() {
        let device = device.autodiff();
        let weights = problem.weights(DType::F32, &device).require_grad();
        let hidden = problem.hidden(DType::F32, &device).require_grad();
        let unembedding = problem.unembedding(DType::F32, &device);
        let targets = problem.targets(&device);
        let found = weighted_linear_cross_entropy(hidden.clone(), unembedding, targets, weights.clone());
        assert!(!found.ce.is_tracked());
        let gradients = (found.loss + found.ce.sum()).backward();
        assert!(weights.grad(&gradients).is_none());
        assert!(hidden.grad(&gradients).is_some());
    }
}

/// Without autodiff, with hidden states and weights on plain devices.
#[test]
fn the_forward_pass_alone_gives_the_same_loss() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            let problem = Problem::random(12, [300, 6, 30]);
            let tracked = problem.solve(FUSED, dtype, &device);
            let found = weighted_linear_cross_entropy(
                problem.hidden(dtype, &device),
                problem.unembedding(dtype, &device),
                problem.targets(&device),
                problem.weights(DType::F32, &device),
            );
            assert_eq!(found.loss.dtype(), dtype);
            assert_eq!(found.ce.dtype(), dtype);
            assert!(distance(&values(found.loss), &tracked.loss) < 1e-6);
            assert!(distance(&values(found.ce), &tracked.ce) < 1e-6);
        }
    }
}

/// Transposed, sliced, flipped and expanded inputs hold what their elements say.
#[test]
fn views_are_read_through_their_strides() {
    let problem = Problem::random(13, [10, 6, 14]);
    for device in devices() {
        let expected = problem.solve(FUSED, DType::F32, &device);
        let hidden = problem.hidden(DType::F32, &device);
        let unembedding = problem.unembedding(DType::F32, &device);
        let stored = |matrix: &Tensor<2>| {
            // Another order in memory, and then the view that undoes it.
            let transposed = matrix.clone().transpose().into_data();
            Tensor::<2>::from_data(transposed, &device).transpose()
        };
        let padded = |matrix: &Tensor<2>| {
            let [rows, columns] = matrix.dims();
            let around = Tensor::<2>::ones([rows + 2, columns + 3], &device);
            let inside = [1..rows + 1, 2..columns + 2];
            around.slice_assign(inside.clone(), matrix.clone()).slice(inside)
        };
        let flipped = |matrix: &Tensor<2>| {
            let turned = matrix.clone().flip([0, 1]).into_data();
            Tensor::<2>::from_data(turned, &device).flip([0, 1])
        };
        let views: [&dyn Fn(&Tensor<2>) -> Tensor<2>; 3] = [&stored, &padded, &flipped];
        for view in views {
            let found = weighted_linear_cross_entropy(
                view(&hidden),
                view(&unembedding),
                problem.targets(&device),
                problem.weights(DType::F32, &device),
            );
            assert!(distance(&values(found.loss), &expected.loss) < 1e-6);
            assert!(distance(&values(found.ce), &expected.ce) < 1e-6);
        }
        // One row for all: stride 0.
        let (row, targets) = (hidden.slice([0..1, 0..6]), problem.targets(&device));
        let found = |hidden: Tensor<2>| {
            let weights = problem.weights(DType::F32, &device);
            let found = weighted_linear_cross_entropy(hidden, unembedding.clone(), targets.clone(), weights);
            values(found.ce)
        };
        let repeated = found(row.clone().repeat_dim(0, 10));
        assert!(distance(&found(row.expand([10, 6])), &repeated) < 1e-6);
    }
}

/// bf16 and f16 inputs: loss in f32, gradients in the inputs' type, and as exact as rounding to it
/// allows (the expectation has the same rounded inputs, in f64).
#[cfg(feature = "flex")]
#[test]
fn half_precision_is_computed_in_f32() {
    let device = burn::tensor::Device::flex();
    for (dtype, epsilon) in [(DType::BF16, 2f64.powi(-8)), (DType::F16, 2f64.powi(-11))] {
        let mut problem = Problem::random(14, [40, 8, 33]);
        problem.hidden = values(problem.hidden(dtype, &device));
        problem.unembedding = values(problem.unembedding(dtype, &device));
        problem.weights = values(problem.weights(dtype, &device));
        let expected = problem.solve(PLAIN, DType::F64, &device);
        let found = problem.solve(FUSED, dtype, &device);
        assert!(distance(&found.loss, &expected.loss) < 1e-6);
        assert!(distance(&found.ce, &expected.ce) < 1e-6);
        assert!(distance(&found.d_hidden, &expected.d_hidden) < epsilon);
        assert!(distance(&found.d_unembedding, &expected.d_unembedding) < epsilon);

        let device = device.clone().autodiff();
        let hidden = problem.hidden(dtype, &device).require_grad();
        let result = weighted_linear_cross_entropy(
            hidden.clone(),
            problem.unembedding(dtype, &device),
            problem.targets(&device),
            problem.weights(DType::F32, &device),
        );
        assert_eq!(result.loss.dtype(), DType::F32);
        let gradients = (result.loss * 0.3).backward();
        let gradient = hidden.grad(&gradients).expect("gradient of the hidden states");
        assert_eq!(gradient.dtype(), dtype);
    }
}

/// Bit for bit, for one, two, three and seven threads, and again.
#[test]
fn results_do_not_depend_on_threads() {
    let problem = Problem::random(15, [700, 96, 5003]);
    for device in devices() {
        let solve = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a thread pool")
                .install(|| problem.solve(FUSED, DType::F32, &device))
        };
        let first = solve(2);
        for threads in [1, 2, 2, 3, 7] {
            assert!(first == solve(threads), "{threads} threads on {device:?}");
        }
    }
}

#[test]
fn no_rows_at_all_is_a_loss_of_zero() {
    for device in devices() {
        let problem = Problem::random(16, [0, 3, 4]);
        let found = problem.solve(FUSED, DType::F32, &device);
        assert_eq!(found.loss, [0.0]);
        assert!(found.ce.is_empty());
        assert_eq!(found.d_unembedding, [0.0; 12]);
    }
}

fn call_with(n_targets: usize, target: i64, d_unembedding: usize) {
    for device in devices() {
        let problem = Problem::random(17, [3, 4, 5]);
        let unembedding = floats(&vec![0.5; 5 * d_unembedding], [5, d_unembedding], DType::F32, &device);
        let targets = vec![target; n_targets];
        weighted_linear_cross_entropy(
            problem.hidden(DType::F32, &device),
            unembedding,
            Tensor::from_data(burn::tensor::TensorData::new(targets, [n_targets]), &device),
            problem.weights(DType::F32, &device),
        );
    }
}

#[test]
#[should_panic(expected = "hidden [3, 4] and unembedding [5, 6] differ in their last dimension")]
fn widths_that_differ_are_named() {
    call_with(3, 0, 6);
}

#[test]
#[should_panic(expected = "hidden has 3 rows but there are 2 targets and 3 weights")]
fn row_counts_that_differ_are_named() {
    call_with(2, 0, 4);
}

#[test]
#[should_panic(expected = "target 5 of row 0 is outside the vocabulary of 5")]
fn a_target_outside_the_vocabulary_is_named() {
    call_with(3, 5, 4);
}
