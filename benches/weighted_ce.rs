//! The fused weighted cross-entropy against the plain form in burn's own operations, in one run.
//!
//! ```text
//! cargo bench -p wmtp-benches --bench weighted_ce
//! ```
//!
//! Forward and backward, f32, on flex: N = 512 rows, D = 576, V = 49152 (SmolLM2-135M's), all rows
//! kept; then the same with half of the rows masked, and the forward pass alone.
//!
//! Expected, before measuring: both forms need the same three products of 29 GFLOP, and the plain
//! one some ten passes over 100 MB of logits on top of them, so 1.3 to 1.6 times its speed with all
//! rows. Only the fused form leaves masked rows out.
//!
//! Measured on 2 cores with AVX-512 at a load of four to five from other processes, two runs of all
//! of it, mean seconds. The forms ran one after the other under a load that changed, so even the
//! ratios are rough; repeat it on an idle machine before relying on them.
//!
//! | | fused | plain | ratio |
//! |---|---|---|---|
//! | forward and backward, all rows | 0.95, 2.21 | 1.61, 3.89 | 1.70, 1.76 |
//! | forward and backward, every second row masked | 0.69, 1.31 | 1.21, 3.91 | 1.77, 2.98 |
//! | forward alone | 0.36, 0.80 | 1.08, 1.43 | 2.97, 1.78 |
//!
//! Core-seconds (CPU time, which the load disturbs less) within the fused form, for a chunk of 256 rows:
//! logits 0.079, log-sum-exp and softmax 0.014, dX 0.075, dW 0.080; a core does some 190 GFLOP/s. The row
//! pass is 6 percent of it, so the exponentials are left to what the compiler makes of them for plain x86-64.

use burn::tensor::{Device, Int, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use wmtp_kernels::weighted_ce::weighted_linear_cross_entropy_plain;
use wmtp_kernels::{WeightedCrossEntropy, weighted_linear_cross_entropy};

const N: usize = 512;
const D: usize = 576;
const V: usize = 49_152;

type Operation = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> WeightedCrossEntropy;

struct Inputs {
    hidden: Tensor<2>,
    unembedding: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
}

impl Inputs {
    /// Every `masked_every`-th row without a target.
    fn new(device: &Device, masked_every: Option<usize>) -> Self {
        let mut state = 1u64;
        let mut unit = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut values =
            |count: usize, scale: f32| -> Vec<f32> { (0..count).map(|_| (unit() * 2.0 - 1.0) * scale).collect() };
        let hidden = TensorData::new(values(N * D, 1.7), [N, D]);
        let unembedding = TensorData::new(values(V * D, 0.07), [V, D]);
        let weights = TensorData::new(values(N, 1.0), [N]);
        let targets: Vec<i64> = (0..N)
            .map(|row| match masked_every {
                Some(every) if row % every == 0 => -1,
                _ => (row * 7919 % V) as i64,
            })
            .collect();
        Self {
            hidden: Tensor::from_data(hidden, device),
            unembedding: Tensor::from_data(unembedding, device),
            targets: Tensor::from_data(TensorData::new(targets, [N]), device),
            weights: Tensor::from_data(weights, device),
        }
    }

    fn forward(&self, operation: Operation) -> f32 {
        let found = operation(
            self.hidden.clone(),
            self.unembedding.clone(),
            self.targets.clone(),
            self.weights.clone(),
        );
        found.loss.into_scalar()
    }

    /// As in training: the sum of the losses divided by a count of tokens.
    fn forward_and_backward(&self, operation: Operation) {
        let hidden = self.hidden.clone().require_grad();
        let unembedding = self.unembedding.clone().require_grad();
        let found = operation(
            hidden.clone(),
            unembedding.clone(),
            self.targets.clone(),
            self.weights.clone(),
        );
        let gradients = (found.loss / N as f32).backward();
        black_box((hidden.grad(&gradients), unembedding.grad(&gradients)));
    }
}

fn weighted_ce(criterion: &mut Criterion) {
    let device = Device::flex();
    let forms: [(&str, Operation); 2] = [
        ("fused", weighted_linear_cross_entropy),
        ("plain", weighted_linear_cross_entropy_plain),
    ];
    for (name, masked_every) in [("all rows", None), ("every second row masked", Some(2))] {
        let inputs = Inputs::new(&device.clone().autodiff(), masked_every);
        let mut group = criterion.benchmark_group(format!("forward and backward, {name}"));
        group.throughput(Throughput::Elements(N as u64));
        group.sample_size(10).measurement_time(Duration::from_secs(15));
        for (form, operation) in forms {
            group.bench_function(form, |b| b.iter(|| inputs.forward_and_backward(operation)));
        }
        group.finish();
    }
    let inputs = Inputs::new(&device, None);
    let mut group = criterion.benchmark_group("forward alone, all rows");
    group.throughput(Throughput::Elements(N as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (form, operation) in forms {
        group.bench_function(form, |b| b.iter(|| inputs.forward(operation)));
    }
    group.finish();
}

criterion_group!(benches, weighted_ce);
criterion_main!(benches);
