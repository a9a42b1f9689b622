//! Products of few rows with a weight, as generation with a cache makes them, against the memory's
//! own speed and burn's matrix product, alternating in one run; with a model also tokens per second.
//!
//!     just bench-decode                                # SmolLM2-135M's shapes, 7 repetitions
//!     just bench-decode --repetitions 3 --model DIR    # and 128 greedy tokens from a model directory
//!
//! Every timing goes through so many copies of the weight that no cache holds them. The memory's
//! speed is that of all threads summing up a buffer of the same size, read front to back. A product
//! is compared by the bytes of its weight, which it reads once: `share` is its speed over the
//! memory's, measured in the same repetition.

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;
use std::{hint::black_box, path::Path, time::Instant};
use wmtp_gemm::{FloatSlice, MatrixView, Precision, matmul, matmul_skinny};
use wmtp_model::{Decoding, LoadOptions, Request, Sampling};

/// Bytes that a timing reads at least, in f32; half of it in bf16.
const BYTES: usize = 1 << 28;

/// N and K of weights `[N, K]`: queries or output, gate or up, down, unembedding.
const SHAPES: [[usize; 2]; 4] = [[576, 576], [1536, 576], [576, 1536], [49_152, 576]];

/// Numbers of rows for the largest of them.
const ROWS: [usize; 5] = [2, 4, 8, 16, 32];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().skip_while(|a| *a != name).nth(1);
    let repetitions = after("--repetitions").and_then(|n| n.parse().ok()).unwrap_or(7);
    println!(
        "{} threads; medians of {repetitions} alternating repetitions; GB/s of the weight's bytes",
        rayon::current_num_threads()
    );
    println!("                         memory  ours f32  share  ours bf16  share  packed f32  burn f32  burn bf16");
    // On a thread of the pool, as decoding is: entering it costs as much as a small product.
    rayon::scope(|_| {
        for [n, k] in SHAPES {
            compare([1, n, k], repetitions);
        }
        for r in ROWS {
            compare([r, 49_152, 576], repetitions);
        }
    });
    if let Some(dir) = after("--model") {
        generate(Path::new(dir));
    }
}

/// One line: `rows [R, K]` with copies of a weight `[N, K]`.
fn compare([r, n, k]: [usize; 3], repetitions: usize) {
    let device = Device::flex();
    let copies = BYTES.div_ceil(4 * n * k);
    let weights: Vec<f32> = (0..copies * n * k)
        .map(|i| ((i * 7919) % 997) as f32 / 997.0 - 0.5)
        .collect();
    let short: Vec<bf16> = weights.iter().map(|x| bf16::from_f32(*x)).collect();
    let rows: Vec<f32> = (0..r * k).map(|i| ((i * 31) % 17) as f32 / 17.0 - 0.5).collect();
    let tensors = |dtype: DType| -> (Tensor<2>, Vec<Tensor<2>>) {
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::from_data(
                TensorData::new(values.to_vec(), shape).convert_dtype(dtype),
                (&device, dtype),
            )
        };
        let weights = weights.chunks(n * k).map(|weight| tensor(weight, [n, k])).collect();
        (tensor(&rows, [r, k]), weights)
    };
    let wide = tensors(DType::F32);
    let narrow = tensors(DType::BF16);
    let by_burn = |(rows, weights): &(Tensor<2>, Vec<Tensor<2>>)| {
        for weight in weights {
            black_box(rows.clone().matmul(weight.clone().transpose()));
        }
    };
    let mut to = vec![0.0; r * n];
    let (f32_bytes, bf16_bytes) = (copies * n * k * 4, copies * n * k * 2);
    let mut speeds: [Vec<f64>; 6] = Default::default();
    let mut shares: [Vec<f64>; 2] = Default::default();
    // The first round warms up.
    for round in 0..=repetitions {
        let found = [
            speed(f32_bytes, || {
                black_box(sum(&weights));
            }),
            speed(f32_bytes, || {
                for weight in weights.chunks(n * k) {
                    matmul_skinny(black_box(&mut to), &rows, FloatSlice::F32(weight), [r, n, k]);
                }
            }),
            speed(bf16_bytes, || {
                for weight in short.chunks(n * k) {
                    matmul_skinny(black_box(&mut to), &rows, FloatSlice::Bf16(weight), [r, n, k]);
                }
            }),
            speed(f32_bytes, || {
                for weight in weights.chunks(n * k) {
                    let right = MatrixView::row_major(weight, [n, k]).transposed();
                    matmul(
                        black_box(&mut to),
                        n,
                        false,
                        MatrixView::row_major(&rows, [r, k]),
                        right,
                        Precision::F32,
                    );
                }
            }),
            speed(f32_bytes, || by_burn(&wide)),
            speed(bf16_bytes, || by_burn(&narrow)),
        ];
        if round > 0 {
            speeds.iter_mut().zip(found).for_each(|(all, one)| all.push(one));
            shares
                .iter_mut()
                .zip(&found[1..])
                .for_each(|(all, one)| all.push(one / found[0]));
        }
    }
    let [memory, ours, ours_short, packed, burn, burn_short] = speeds.map(median);
    let [share, share_short] = shares.map(median);
    println!(
        "{:24} {memory:6.1} {ours:9.1} {share:6.2} {ours_short:10.1} {share_short:6.2} {packed:11.1} {burn:9.1} {burn_short:10.1}",
        format!("[{r}, {k}] x [{n}, {k}]^T")
    );
}

/// GB/s.
fn speed(bytes: usize, task: impl FnOnce()) -> f64 {
    let start = Instant::now();
    task();
    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// All bits of the values added up, on all threads: a task for each, which reads front to back.
fn sum(values: &[f32]) -> u32 {
    let share = values.len().div_ceil(rayon::current_num_threads());
    values
        .par_chunks(share)
        .map(|part| {
            let (chunks, rest) = part.as_chunks::<64>();
            let mut sums = [0u32; 64];
            for chunk in chunks {
                for (sum, value) in sums.iter_mut().zip(chunk) {
                    *sum = sum.wrapping_add(value.to_bits());
                }
            }
            let rest = rest.iter().map(|value| value.to_bits());
            sums.into_iter().chain(rest).fold(0, u32::wrapping_add)
        })
        .reduce(|| 0, u32::wrapping_add)
}

/// Greedy decoding with a real model, of one sequence and of eight, in both types of weights.
fn generate(dir: &Path) {
    const TOKENS: usize = 128;
    let device = Device::flex();
    for dtype in [DType::F32, DType::BF16] {
        let options = LoadOptions {
            n_heads: Some(1),
            dtype,
            ..LoadOptions::default()
        };
        let model = wmtp_model::load(dir, &options, &device).expect("a model directory");
        for sequences in [1, 8] {
            let requests: Vec<Request> = (0..sequences)
                .map(|i| Request {
                    tokens: (1..17).map(|token| token * 13 + i).collect(),
                    seed: 0,
                    sampling: Sampling::greedy(TOKENS),
                })
                .collect();
            let start = Instant::now();
            // No end tokens: all sequences reach the same length.
            let found = wmtp_model::generate_all(&model, &requests, &Decoding::default(), &mut |_, _| false);
            let seconds = start.elapsed().as_secs_f64();
            let tokens: usize = found.expect("tokens").iter().map(|made| made.tokens.len()).sum();
            println!(
                "{dtype:?} weights, {sequences} sequences of 16 + {TOKENS} tokens: {:.1} tokens/s",
                tokens as f64 / seconds
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
