//! What selecting tokens saves: the loss and its gradients with 20% of the tokens kept, as rho1's
//! mode `select` leaves them (weight 5 for those, exactly 0 for the rest), against all tokens with
//! weight 1, alternating in one run. 4 heads of 512 tokens are N = 2048 rows, D = 576, V = 49152; a
//! token's weight is that of all its heads. Scores are taken as given: they come from a file made before.
//!
//!     cargo bench --bench select            # 5 alternating repetitions
//!     cargo bench --bench select -- 3       # 3

use burn::tensor::{Device, Int, Tensor, TensorData};
use std::time::Instant;
use wmtp_kernels::{Accuracy, Precision, weighted_linear_cross_entropy_in};

const HEADS: usize = 4;
const TOKENS: usize = 512;
const N: usize = HEADS * TOKENS;
const D: usize = 576;
const V: usize = 49_152;
/// One token in so many is kept.
const KEPT: usize = 5;

fn main() {
    let repetitions: usize = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5);
    let device = Device::flex().autodiff();
    let mut state = 1u64;
    let mut unit = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut matrix = |rows: usize, scale: f32| {
        let values: Vec<f32> = (0..rows * D).map(|_| unit() * scale).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, D]), &device).require_grad()
    };
    let (hidden, unembedding) = (matrix(N, 1.7), matrix(V, 0.07));
    let targets: Vec<i64> = (0..N).map(|row| (row * 7919 % V) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [N]), &device);
    // Scattered over the tokens, the same ones in every head.
    let selected: Vec<f32> = (0..N)
        .map(|row| {
            if ((row % TOKENS) * 7).is_multiple_of(KEPT) {
                KEPT as f32
            } else {
                0.0
            }
        })
        .collect();
    let kept = selected.iter().filter(|w| **w != 0.0).count();
    let weights = [vec![1f32; N], selected].map(|w| Tensor::<1>::from_data(TensorData::new(w, [N]), &device));

    println!("{kept} of {N} rows kept; medians of {repetitions} alternating repetitions");
    for precision in [Precision::F32, Precision::Bf16] {
        let mut seconds = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=repetitions {
            for (weights, seconds) in weights.iter().zip(&mut seconds) {
                let start = Instant::now();
                let found = weighted_linear_cross_entropy_in(
                    Accuracy {
                        factors: precision,
                        gradient: Precision::F32,
                        filter: 0.0,
                    },
                    hidden.clone(),
                    unembedding.clone(),
                    targets.clone(),
                    weights.clone(),
                );
                let gradients = (found.loss / N as f32).backward();
                assert!(hidden.grad(&gradients).is_some() && unembedding.grad(&gradients).is_some());
                if round > 0 {
                    seconds.push(start.elapsed().as_secs_f64());
                }
            }
        }
        let [all, selected] = seconds.map(median);
        println!(
            "{precision:?}: all {:.0} ms, selected {:.0} ms, ratio {:.3}",
            all * 1e3,
            selected * 1e3,
            selected / all
        );
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
