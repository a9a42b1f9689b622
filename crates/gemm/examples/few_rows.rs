//! Milliseconds for all products of a decoding step of SmolLM2-135M, out of memory, by rows and type of the weights:
//! `cargo run --release --example few_rows -p wmtp-gemm -- [REPETITIONS]`.

use half::bf16;
use std::time::Instant;
use wmtp_gemm::{Bits, FloatSlice, QuantizedMatrix, SkinnyOutput, SkinnyWeight, matmul_skinny_many};

/// Layers, and the products of one: weights that share their rows, `[out, in]`.
const LAYERS: usize = 30;
const PRODUCTS: [(&[usize], usize); 4] = [
    (&[576, 192, 192], 576),
    (&[576], 576),
    (&[1536, 1536], 576),
    (&[576], 1536),
];
/// The unembedding.
const VOCABULARY: [usize; 2] = [49152, 576];
const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16];

/// A weight of one of the types.
enum Weight {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Quantized(QuantizedMatrix),
}

impl Weight {
    fn new(kind: usize, [n, k]: [usize; 2], seed: &mut u32) -> Self {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..n * k).map(|_| next()).collect();
        let row = |i: usize| values[i * k..(i + 1) * k].to_vec();
        match kind {
            0 => Self::F32(values),
            1 => Self::Bf16(values.iter().map(|x| bf16::from_f32(*x)).collect()),
            2 => Self::Quantized(QuantizedMatrix::new(Bits::Eight, row, [n, k])),
            _ => Self::Quantized(QuantizedMatrix::new(Bits::Four, row, [n, k])),
        }
    }

    fn get(&self) -> SkinnyWeight<'_> {
        match self {
            Self::F32(values) => FloatSlice::F32(values).into(),
            Self::Bf16(values) => FloatSlice::Bf16(values).into(),
            Self::Quantized(matrix) => matrix.into(),
        }
    }
}

fn main() {
    let repetitions = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    println!("{:6} {}", "rows", ROWS.map(|r| format!("{r:>7}")).join(""));
    for (kind, name) in ["f32", "bf16", "int8", "int4"].into_iter().enumerate() {
        let mut seed = 7;
        let mut products: Vec<(Vec<(Weight, usize)>, usize)> = Vec::new();
        for _ in 0..LAYERS {
            for (outs, k) in PRODUCTS {
                let weights = outs.iter().map(|n| (Weight::new(kind, [*n, k], &mut seed), *n));
                products.push((weights.collect(), k));
            }
        }
        let [n, k] = VOCABULARY;
        products.push((vec![(Weight::new(kind, [n, k], &mut seed), n)], k));
        let mut line = format!("{name:6} ");
        for r in ROWS {
            let rows = vec![0.25; r * 1536];
            let mut to = vec![0.0; r * VOCABULARY[0]];
            let mut best = f64::INFINITY;
            for _ in 0..repetitions {
                let started = Instant::now();
                rayon::scope(|_| {
                    for (weights, k) in &products {
                        let mut rest = &mut to[..];
                        let mut outputs = Vec::new();
                        for (weight, n) in weights {
                            let (to, other) = rest.split_at_mut(r * n);
                            rest = other;
                            outputs.push(SkinnyOutput {
                                to,
                                weight: weight.get(),
                                n: *n,
                            });
                        }
                        matmul_skinny_many(&mut outputs, &rows[..r * k], [r, *k]);
                    }
                });
                best = best.min(started.elapsed().as_secs_f64());
            }
            line += &format!("{:7.1}", best * 1e3);
        }
        println!("{line}");
    }
}
