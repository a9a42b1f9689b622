//! GFLOP/s of the products of a training step at SmolLM2-135M's shape, best of many calls, on all threads:
//! `WMTP_GEMM=avx2 cargo run --release --example products -p wmtp-gemm -- [SECONDS]`.

use half::bf16;
use std::time::{Duration, Instant};
use wmtp_gemm::{FloatSlice, Isa, MatrixView, Precision, matmul};

/// Rows, values along K, columns; whether the right factor is the transpose of a weight, or the left one that of a
/// gradient.
const SHAPES: [(&str, [usize; 3], [bool; 2]); 7] = [
    ("gate, forward", [512, 576, 1536], [false, true]),
    ("down, forward", [512, 1536, 576], [false, true]),
    ("key, forward", [512, 576, 192], [false, true]),
    ("gate, of rows", [512, 1536, 576], [false, false]),
    ("gate, of weights", [1536, 512, 576], [true, false]),
    ("logits", [49152, 576, 256], [false, true]),
    ("unembedding", [49152, 256, 576], [false, false]),
];

fn noise(count: usize) -> Vec<f32> {
    let next = |seed: &mut u32| {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*seed >> 8) as f32 / (1 << 24) as f32 - 0.5)
    };
    std::iter::repeat_with({
        let mut seed = 7;
        move || next(&mut seed).unwrap_or_default()
    })
    .take(count)
    .collect()
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    match Isa::chosen() {
        Ok(isa) => println!("{}, {} threads, GFLOP/s", isa.name(), rayon::current_num_threads()),
        Err(problem) => return eprintln!("error: {problem}"),
    }
    println!(
        "{:18} {:>20} {:>8} {:>8} {:>8}",
        "", "m x k x n", "f32", "bf16", "of bf16"
    );
    for (name, [m, k, n], [left_is_transposed, right_is_transposed]) in SHAPES {
        let (left, right) = (noise(m * k), noise(k * n));
        let shorts = |values: &[f32]| values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
        let (short_left, short_right) = (shorts(&left), shorts(&right));
        let views = |left, right| {
            let view = |data, [rows, columns]: [usize; 2], is_transposed: bool| match is_transposed {
                true => MatrixView::strided(data, [columns, rows], [rows, 1]).transposed(),
                false => MatrixView::strided(data, [rows, columns], [columns, 1]),
            };
            [
                view(left, [m, k], left_is_transposed),
                view(right, [k, n], right_is_transposed),
            ]
        };
        let mut to = vec![0.0; m * n];
        let mut rate = |[left, right]: [MatrixView<'_>; 2], precision| {
            let (begun, mut best) = (Instant::now(), Duration::MAX);
            while begun.elapsed().as_secs_f64() < seconds {
                let call = Instant::now();
                matmul(&mut to, n, false, left, right, precision);
                best = best.min(call.elapsed());
            }
            2e-9 * (m * k * n) as f64 / best.as_secs_f64()
        };
        let long = views(FloatSlice::F32(&left), FloatSlice::F32(&right));
        let short = views(FloatSlice::Bf16(&short_left), FloatSlice::Bf16(&short_right));
        let rates = [
            rate(long, Precision::F32),
            rate(long, Precision::Bf16),
            rate(short, Precision::Bf16),
        ];
        let [f32s, bf16s, of_bf16] = rates.map(|rate| format!("{rate:.0}"));
        println!(
            "{name:18} {:>20} {f32s:>8} {bf16s:>8} {of_bf16:>8}",
            format!("{m} x {k} x {n}")
        );
    }
}
