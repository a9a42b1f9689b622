//! Where a training step's time goes, against what this machine can do at best: SmolLM2-135M's shape,
//! 4 heads, 2 x 256 tokens, every token trained, full fine-tuning.
//!
//!     just bench-roofline                    # f32, 5 repetitions
//!     just bench-roofline --precision bf16 --repetitions 3
//!
//! The limits are measured first: the best rate of a product of 512 x 1536 x 576 whose factors stay in
//! the caches, and the rate at which all threads read memory. Then each kind of operation of the step
//! is timed alone, on weights that no cache holds, with its least time: the greater of its
//! operations over the first rate and of its bytes (every factor read and every result written once)
//! over the second. Last the whole step; what the operations do not explain is its own line.

#[path = "ours/mod.rs"]
mod ours;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ours::Ours;
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};
use wmtp::train::{PrecisionConfig, StatePrecision, TrainConfig};
use wmtp_gemm::{MatrixView, matmul};
use wmtp_kernels::attention::{self, flex::Heads};
use wmtp_kernels::{
    Accuracy, Precision,
    adamw::{AdamWState, AdamWStep, adamw_step},
    square_sums::row_square_sums,
    weighted_linear_cross_entropy_in,
};
use wmtp_kernels::{SavedActivations, rms_norm, rotary, swiglu};
use wmtp_model::LlamaConfig;

const LEN: usize = 256;
const N: usize = 2 * LEN;
const D: usize = 576;
const F: usize = 1536;
const V: usize = 49_152;
/// 29 layers of the trunk and 4 heads.
const LAYERS: usize = 33;
const HEADS: Heads = Heads {
    heads: 9,
    kv_heads: 3,
    width: 64,
};
/// Values in the matrices of a layer, and in all weights (norms aside).
const LAYER: usize = 2 * D * D + 2 * D * 192 + 3 * D * F;
const WEIGHTS: usize = LAYERS * LAYER + V * D;

/// One kind of operation.
struct Part {
    name: &'static str,
    /// Calls in a step.
    calls: usize,
    /// Operations and bytes of a call.
    operations: f64,
    bytes: f64,
    /// Seconds of a call.
    seconds: f64,
}

/// What the machine can do.
struct Limits {
    /// Operations a second.
    rate: f64,
    /// Bytes a second.
    memory: f64,
}

impl Limits {
    fn least(&self, part: &Part) -> f64 {
        (part.operations / self.rate).max(part.bytes / self.memory)
    }
}

fn values(count: usize, scale: f32) -> Vec<f32> {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 1999) as f32 / 1000.0 - 1.0;
    (0..count).map(|i| value(i) * scale).collect()
}

/// The median of the seconds that `repetitions` calls take, after one that is not counted.
fn timed(repetitions: usize, mut call: impl FnMut(usize)) -> f64 {
    call(0);
    let mut seconds: Vec<f64> = (1..=repetitions)
        .map(|i| {
            let start = Instant::now();
            call(i);
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[repetitions / 2]
}

fn limits(precision: Precision) -> Limits {
    let (left, right) = (values(N * D, 1.0), values(F * D, 1.0));
    let mut to = vec![0.0; N * F];
    let best = |mut call: Box<dyn FnMut() + '_>| {
        let seconds = (0..100).map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64()
        });
        seconds.fold(f64::MAX, f64::min)
    };
    let multiply = best(Box::new(|| {
        let right = MatrixView::row_major(&right, [F, D]).transposed();
        matmul(
            &mut to,
            F,
            false,
            MatrixView::row_major(&left, [N, D]),
            right,
            precision,
        );
    }));
    let large = vec![1.0f32; 1 << 27];
    let read = (0..5).map(|_| {
        let start = Instant::now();
        let sum: f32 = large
            .par_chunks(1 << 16)
            .map(|chunk| {
                let mut lanes = [0.0f32; 64];
                for values in chunk.chunks_exact(64) {
                    lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += value);
                }
                lanes.iter().sum::<f32>()
            })
            .sum();
        black_box(sum);
        start.elapsed().as_secs_f64()
    });
    Limits {
        rate: 2.0 * (N * F * D) as f64 / multiply,
        memory: (large.len() * size_of::<f32>()) as f64 / read.fold(f64::MAX, f64::min),
    }
}

/// A product of N rows with a weight `[out, inner]`: forward, for the rows, for the weight.
fn products(parts: &mut Vec<Part>, [out, inner]: [usize; 2], layers: usize, precision: Precision, repetitions: usize) {
    const COPIES: usize = 16;
    let weights = values(COPIES * out * inner, 0.05);
    let (rows, above) = (values(N * inner, 1.0), values(N * out, 1.0));
    let weight = |i: usize| MatrixView::row_major(&weights[i % COPIES * out * inner..][..out * inner], [out, inner]);
    let (rows, above) = (
        MatrixView::row_major(&rows, [N, inner]),
        MatrixView::row_major(&above, [N, out]),
    );
    let mut to_rows = vec![0.0; N * out];
    let mut to_above = vec![0.0; N * inner];
    // Touched before, as the memory of a step is after the first one.
    let mut to_weight = values(COPIES * out * inner, 1.0);
    let seconds = [
        timed(repetitions, |i| {
            matmul(&mut to_rows, out, false, rows, weight(i).transposed(), precision);
        }),
        timed(repetitions, |i| {
            matmul(&mut to_above, inner, false, above, weight(i), precision);
        }),
        timed(repetitions, |i| {
            let to = &mut to_weight[i % COPIES * out * inner..][..out * inner];
            matmul(to, inner, false, above.transposed(), rows, precision);
        }),
    ];
    let names = ["products, forward", "products, for rows", "products, for weights"];
    for (name, seconds) in names.into_iter().zip(seconds) {
        parts.push(Part {
            name,
            calls: layers * LAYERS,
            operations: 2.0 * (N * out * inner) as f64,
            bytes: 4.0 * (N * out + N * inner + out * inner) as f64,
            seconds,
        });
    }
}

fn of_a_layer(parts: &mut Vec<Part>, precision: Precision, repetitions: usize) {
    for (shape, how_many) in [([D, D], 2), ([192, D], 2), ([F, D], 2), ([D, F], 1)] {
        products(parts, shape, how_many, precision, repetitions);
    }
    let documents = [0..LEN, LEN..N];
    let pairs = 2.0 * (HEADS.heads * LEN * (LEN + 1) / 2) as f64;
    let qkv = SavedActivations::new(values(N * HEADS.row(), 1.0), precision);
    let above = values(N * D, 1.0);
    let width = HEADS.width as f64;
    let mut part = |name, calls, operations, bytes: usize, seconds| {
        parts.push(Part {
            name,
            calls: calls * LAYERS,
            operations,
            bytes: 4.0 * bytes as f64,
            seconds,
        });
    };
    let seconds = timed(repetitions, |_| {
        black_box(attention::flex::forward(qkv.floats(), HEADS, &documents, precision));
    });
    part("attention", 1, 4.0 * width * pairs, N * (HEADS.row() + D), seconds);
    let seconds = timed(repetitions, |_| {
        black_box(attention::flex::backward(
            qkv.floats(),
            HEADS,
            &documents,
            &above,
            precision,
        ));
    });
    let bytes = N * (2 * HEADS.row() + D);
    part("attention, backward", 1, 10.0 * width * pairs, bytes, seconds);

    let (x, weight) = (values(N * D, 1.0), values(D, 1.0));
    let mut to = vec![0.0; N * D];
    let seconds = timed(repetitions, |_| rms_norm::flex::forward(&x, &weight, 1e-5, &mut to));
    // Forward, and again in the backward pass for the products' sake.
    part("norms", 4, 4.0 * (N * D) as f64, 2 * N * D, seconds);
    let seconds = timed(repetitions, |_| {
        black_box(rms_norm::flex::backward(&x, &weight, 1e-5, &above, &mut to));
    });
    part("norms, backward", 2, 11.0 * (N * D) as f64, 5 * N * D, seconds);

    let angles = [values(N * 32, 1.0), values(N * 32, 1.0)];
    let mut rows = values(N * HEADS.row(), 1.0);
    let seconds = timed(repetitions, |_| {
        let [cos, sin] = &angles;
        rotary::flex::rotate(&mut rows, HEADS.row(), 0..12, 32, [cos, sin], rotary::Rotation::Forward);
    });
    part("rotation", 2, 3.0 * (N * 768) as f64, 2 * N * 768, seconds);

    // In place, and a result is no input: every call has its own.
    let fresh = || vec![values(N * F, 1.0); repetitions + 1];
    let (mut gate, mut up, mut result) = (fresh(), fresh(), fresh());
    let seconds = timed(repetitions, |i| swiglu::flex::forward(&mut gate[i], &up[i]));
    part("SwiGLU", 1, 6.0 * (N * F) as f64, 3 * N * F, seconds);
    let mut gate = fresh();
    let seconds = timed(repetitions, |i| {
        swiglu::flex::backward(&mut gate[i], &mut up[i], &mut result[i])
    });
    part("SwiGLU, backward", 1, 12.0 * (N * F) as f64, 6 * N * F, seconds);
}

fn tensor(rows: usize, columns: usize, scale: f32, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values(rows * columns, scale), [rows, columns]), device)
}

fn of_the_end(parts: &mut Vec<Part>, precision: Precision, repetitions: usize) {
    let device = Device::flex().autodiff();
    let rows = 4 * N;
    let (hidden, table) = (
        tensor(rows, D, 1.7, &device).require_grad(),
        tensor(V, D, 0.07, &device).require_grad(),
    );
    let targets: Vec<i64> = (0..rows).map(|row| (row * 7919 % V) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
    let weights = Tensor::<1>::ones([rows], &device) / rows as f64;
    let accuracy = Accuracy {
        factors: precision,
        ..Accuracy::default()
    };
    let seconds = timed(repetitions, |_| {
        let (hidden, table) = (hidden.clone(), table.clone());
        let out = weighted_linear_cross_entropy_in(accuracy, hidden, table, targets.clone(), weights.clone());
        black_box(out.loss.backward());
    });
    parts.push(Part {
        name: "loss, forward and backward",
        calls: 1,
        operations: 6.0 * (rows * V * D) as f64,
        bytes: 4.0 * (2 * rows * D + 2 * V * D) as f64,
        seconds,
    });

    let device = Device::flex();
    let zeros = || Tensor::<2>::zeros([4 * F, D], &device);
    let gradient = tensor(4 * F, D, 0.01, &device);
    let mut state = Some(AdamWState {
        parameter: tensor(4 * F, D, 0.05, &device),
        moment_1: zeros(),
        moment_2: zeros(),
    });
    let step = AdamWStep {
        learning_rate: 1e-3,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 1.0,
    };
    let seconds = timed(repetitions, |_| {
        state = state.take().map(|state| adamw_step(state, gradient.clone(), step));
    });
    let count = 4 * F * D;
    let calls = WEIGHTS / count;
    parts.push(Part {
        name: "AdamW",
        calls,
        operations: 15.0 * count as f64,
        bytes: 28.0 * count as f64,
        seconds,
    });
    let seconds = timed(repetitions, |_| {
        black_box(row_square_sums(gradient.clone()).into_data());
    });
    parts.push(Part {
        name: "gradient norm",
        calls,
        operations: 2.0 * count as f64,
        bytes: 4.0 * count as f64,
        seconds,
    });
}

/// Seconds of the whole step.
fn whole(precision: Precision, repetitions: usize) -> f64 {
    let mut config = LlamaConfig::new(V, D, 30, HEADS.heads);
    config.num_key_value_heads = HEADS.kv_heads;
    config.intermediate_size = F;
    config.tie_word_embeddings = true;
    config.n_heads = 4;
    let train = TrainConfig {
        precision: match precision {
            Precision::F32 => PrecisionConfig::F32,
            Precision::Bf16 => PrecisionConfig::Bf16,
        },
        ..TrainConfig::default()
    };
    let model = config.init(1, &Device::flex().autodiff()).with_compute(train.compute());
    let mut ours = Ours::new(model, 2, LEN, StatePrecision::F32);
    timed(repetitions, |_| {
        ours.step();
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().skip_while(|a| *a != name).nth(1);
    let repetitions = after("--repetitions").and_then(|n| n.parse().ok()).unwrap_or(5);
    let precision = match after("--precision").map(String::as_str) {
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some(other) => {
            eprintln!("--precision {other}: f32 or bf16");
            std::process::exit(2);
        }
    };
    let limits = limits(precision);
    println!(
        "{precision:?}, {} threads, medians of {repetitions}; products at best {:.0} GFLOP/s, memory read at {:.1} GB/s\n",
        rayon::current_num_threads(),
        limits.rate / 1e9,
        limits.memory / 1e9
    );
    let mut parts = Vec::new();
    of_a_layer(&mut parts, precision, repetitions);
    of_the_end(&mut parts, precision, repetitions);
    let whole = whole(precision, repetitions);
    println!("| part | GFLOP | GB | least ms | measured ms | least / measured | share of the step |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let line = |name: &str, [gflop, gb, least, seconds]: [f64; 4]| {
        println!(
            "| {name} | {gflop:.1} | {gb:.2} | {:.0} | {:.0} | {:.2} | {:.2} |",
            least * 1e3,
            seconds * 1e3,
            least / seconds,
            seconds / whole
        );
    };
    let mut total = [0.0; 4];
    let mut names: Vec<&str> = Vec::new();
    for part in &parts {
        if !names.contains(&part.name) {
            names.push(part.name);
        }
    }
    for name in names {
        let mut sums = [0.0; 4];
        for part in parts.iter().filter(|part| part.name == name) {
            let of_part = [
                part.operations / 1e9,
                part.bytes / 1e9,
                limits.least(part),
                part.seconds,
            ];
            for (sum, value) in sums.iter_mut().zip(of_part) {
                *sum += value * part.calls as f64;
            }
        }
        line(name, sums);
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    line("all of these", total);
    println!(
        "| the rest | | | | {:.0} | | {:.2} |",
        (whole - total[3]) * 1e3,
        1.0 - total[3] / whole
    );
    println!(
        "| the step | | | | {:.0} | {:.2} | 1.00 |",
        whole * 1e3,
        total[2] / whole
    );
}
