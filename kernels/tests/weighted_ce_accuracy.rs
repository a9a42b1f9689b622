//! `weighted_linear_cross_entropy_in` with products in bf16 and with the filter, on flex: against the
//! plain formulas in f64 on the same rounded inputs.
#![cfg(feature = "flex")]

mod common;

use burn::tensor::{DType, Device};
use common::{Numbers, Problem, Solution, distance};
use half::bf16;
use wmtp_kernels::weighted_ce::weighted_linear_cross_entropy_plain;
use wmtp_kernels::{Accuracy, Precision, weighted_linear_cross_entropy_in};

const BF16: Accuracy = Accuracy {
    factors: Precision::Bf16,
    gradient: Precision::F32,
    filter: 0.0,
};

fn solve(problem: &Problem, accuracy: Accuracy) -> Solution {
    problem.solve(
        |hidden, unembedding, targets, weights| {
            weighted_linear_cross_entropy_in(accuracy, hidden, unembedding, targets, weights)
        },
        DType::F32,
        &Device::flex(),
    )
}

fn exact(problem: &Problem) -> Solution {
    problem.solve(weighted_linear_cross_entropy_plain, DType::F64, &Device::flex())
}

/// The problem with both factors on bf16's grid.
fn on_grid(mut problem: Problem) -> Problem {
    for values in [&mut problem.hidden, &mut problem.unembedding] {
        values.iter_mut().for_each(|x| *x = bf16::from_f64(*x).to_f64());
    }
    problem
}

/// Rows around those of a chunk (512), columns around those of a part (96) and a block (1536).
#[test]
fn products_in_bf16_stay_within_their_rounding() {
    let mut worst = [0.0f64; 3];
    for (seed, shape) in [
        [1, 1, 1],
        [1, 3, 2],
        [7, 5, 95],
        [9, 16, 96],
        [31, 33, 97],
        [33, 8, 1535],
        [2, 64, 1536],
        [5, 7, 1537],
        [40, 31, 3073],
        [511, 6, 50],
        [512, 6, 50],
        [513, 6, 50],
        [1025, 6, 19],
    ]
    .into_iter()
    .enumerate()
    {
        let mut problem = on_grid(Problem::random(seed as u64, shape));
        if shape[0] > 500 {
            // All kept, so that they are as many chunks as they seem; every third weight is negative.
            problem.targets.iter_mut().for_each(|t| *t = t.abs());
            for (i, weight) in problem.weights.iter_mut().enumerate() {
                *weight = (*weight + 0.1) * if i % 3 == 0 { -1.0 } else { 1.0 };
            }
        }
        let (found, expected) = (solve(&problem, BF16), exact(&problem));
        for (i, (row, correct)) in found.ce.iter().zip(&expected.ce).enumerate() {
            assert!(
                (row - correct).abs() < 1e-5 * (1.0 + correct.abs()),
                "{shape:?}, row {i}: {row} {correct}"
            );
        }
        let errors = [
            distance(&found.ce, &expected.ce),
            distance(&found.d_hidden, &expected.d_hidden),
            distance(&found.d_unembedding, &expected.d_unembedding),
        ];
        worst = std::array::from_fn(|i| worst[i].max(errors[i]));
        assert!(errors[1] < 1e-2 && errors[2] < 1e-2, "{shape:?}: {errors:?}");
    }
    println!("cross-entropies, dX, dW: {worst:?}");
}

#[test]
fn logits_of_ten_thousand_in_bf16() {
    let mut problem = on_grid(Problem::random(5, [60, 16, 300]));
    problem
        .hidden
        .iter_mut()
        .for_each(|x| *x = bf16::from_f64(*x * 4096.0).to_f64());
    let (found, expected) = (solve(&problem, BF16), exact(&problem));
    assert!(expected.ce.iter().any(|ce| *ce > 5e3));
    assert!(distance(&found.ce, &expected.ce) < 1e-5);
    let errors = [
        distance(&found.d_hidden, &expected.d_hidden),
        distance(&found.d_unembedding, &expected.d_unembedding),
    ];
    assert!(errors.iter().all(|error| *error < 1e-2), "{errors:?}");
}

#[test]
fn nothing_kept_in_bf16_is_zero() {
    let mut problem = Problem::random(5, [20, 16, 30]);
    problem.weights.fill(0.0);
    let found = solve(&problem, BF16);
    assert!(
        found
            .loss
            .iter()
            .chain(&found.ce)
            .chain(&found.d_hidden)
            .chain(&found.d_unembedding)
            .all(|x| *x == 0.0)
    );
}

#[test]
fn not_a_number_in_bf16_stays_in_its_row() {
    let mut problem = Problem::random(5, [20, 16, 30]);
    problem.hidden[0] = f64::NAN; // row 0 is kept
    let found = solve(&problem, BF16);
    assert!(found.loss[0].is_nan() && found.ce[0].is_nan());
    assert!(found.ce[1..].iter().all(|ce| ce.is_finite()));
    assert!(found.d_hidden[..16].iter().all(|x| x.is_nan()));
    assert!(found.d_hidden[16..].iter().all(|x| x.is_finite()));
}

/// Logits that are the hidden states themselves (the unembedding is the identity), so that dX is the
/// weighted gradient of the logits, which the tolerance speaks of. Each row has a few likely tokens,
/// as a language model's have, over a floor of unlikely ones.
fn peaked(seed: u64, [n, v]: [usize; 2], floor: f64) -> Problem {
    let mut problem = Problem::random(seed, [n, v, v]);
    let mut numbers = Numbers(seed + 100);
    for i in 0..v {
        for j in 0..v {
            problem.unembedding[i * v + j] = f64::from(u8::from(i == j));
        }
    }
    for row in problem.hidden.chunks_mut(v) {
        row.iter_mut().for_each(|x| *x = floor + 4.0 * numbers.unit());
        for _ in 0..6 {
            row[(numbers.bits() % v as u64) as usize] = 8.0 * numbers.unit();
        }
    }
    problem
}

#[test]
fn the_filter_keeps_its_tolerance_and_leaves_something_out() {
    for (seed, shape, negative) in [
        (1, [90, 700], false),
        (2, [300, 400], true),
        (3, [1, 500], false),
        (4, [64, 97], false),
    ] {
        for tolerance in [1e-2, 1e-3] {
            let mut problem = peaked(seed, shape, -9.0);
            if negative {
                problem.weights.iter_mut().step_by(2).for_each(|weight| *weight *= -1.0);
            }
            let filter = Accuracy {
                filter: tolerance,
                ..Accuracy::default()
            };
            let (found, whole, expected) = (
                solve(&problem, filter),
                solve(&problem, Accuracy::default()),
                exact(&problem),
            );
            assert_eq!(found.ce, whole.ce, "the filter is for gradients alone");
            let errors = [
                distance(&found.d_hidden, &expected.d_hidden),
                distance(&found.d_unembedding, &expected.d_unembedding),
            ];
            println!("{shape:?}, tolerance {tolerance:e}: {errors:?}");
            assert!(errors[0] <= tolerance, "{shape:?} {tolerance:e}: {errors:?}");
            assert!(
                shape[0] == 1 || tolerance < 1e-2 || distance(&found.d_hidden, &whole.d_hidden) > 1e-6,
                "nothing was left out: {shape:?} {tolerance:e}"
            );
            // Row sums of the logits' gradient are zero, with what was left out as without.
            for (row, weight) in found.d_hidden.chunks(shape[1]).zip(&problem.weights) {
                assert!(
                    row.iter().sum::<f64>().abs() < 1e-5 * weight.abs().max(1e-30),
                    "{shape:?}"
                );
            }
            // In bf16 the rounding comes on top of it.
            let both = solve(
                &problem,
                Accuracy {
                    filter: tolerance,
                    ..BF16
                },
            );
            let error = distance(&both.d_hidden, &expected.d_hidden);
            assert!(error < tolerance + 1e-2, "{shape:?} {tolerance:e}: {error:e}");
        }
    }
}

/// Where small probabilities make up too much, all of them are computed.
#[test]
fn a_flat_distribution_is_computed_whole() {
    for problem in [Problem::random(9, [70, 12, 400]), peaked(9, [70, 400], 0.0)] {
        for whole in [Accuracy::default(), BF16] {
            let filter = Accuracy { filter: 1e-3, ..whole };
            assert_eq!(solve(&problem, filter), solve(&problem, whole));
        }
    }
}

#[test]
fn a_chunk_after_a_filtered_one_is_added_to_it() {
    // The first 256 (512 in bf16) rows are peaked, the others flat.
    let mut problem = peaked(6, [600, 60], -9.0);
    problem.targets.iter_mut().for_each(|t| *t = t.abs());
    problem.weights.iter_mut().for_each(|w| *w += 0.1);
    problem.hidden[512 * 60..].iter_mut().for_each(|x| *x *= 0.01);
    let expected = exact(&problem);
    for (whole, bound) in [(Accuracy::default(), 1e-2), (BF16, 2e-2)] {
        let found = solve(&problem, Accuracy { filter: 1e-2, ..whole });
        assert!(distance(&found.d_hidden, &expected.d_hidden) < bound);
        assert!(distance(&found.d_unembedding, &expected.d_unembedding) < bound);
    }
}
