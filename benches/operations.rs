//! The operations of a layer and of the optimizer, as a step on flex runs them, against the same in
//! plain burn operations with its autodiff, forward and backward, in one run.
//!
//! ```text
//! just bench-operations
//! ```
//!
//! SmolLM2-135M's shapes: 2 x 256 tokens, D 576, 9 query heads over 3 key heads of width 64, F 1536,
//! V 49152. Before anything is timed both must give the same results. bf16 stands where our operation
//! has it: norm, SwiGLU and rotation work on rows in f32 in every precision.

use burn::tensor::{Bool, DType, Device, IndexingUpdateOp, Int, Tensor, TensorData, activation};
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;
use wmtp_gemm::{MatrixView, matmul};
use wmtp_kernels::adamw::{AdamWState, AdamWStep, adamw_step};
use wmtp_kernels::attention::{self, flex::Heads};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::row_sums::add_rows;
use wmtp_kernels::{Precision, SavedActivations, rms_norm, swiglu};

const B: usize = 2;
const S: usize = 256;
const N: usize = B * S;
const D: usize = 576;
const F: usize = 1536;
const V: usize = 49_152;
const HEADS: Heads = Heads {
    heads: 9,
    kv_heads: 3,
    width: 64,
};
const EPS: f64 = 1e-5;

/// Pseudo-random values uniform in [-scale, scale).
fn values(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (next() * 2.0 - 1.0) * scale).collect()
}

fn tensor<const R: usize>(values: &[f32], shape: [usize; R], dtype: DType, device: &Device) -> Tensor<R> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

fn flat<const R: usize>(tensor: Tensor<R>) -> Tensor<1> {
    let count: usize = tensor.dims().iter().product();
    tensor.reshape([count])
}

/// Results and gradients of one call.
trait Found {
    /// One list for each.
    fn lists(self) -> Vec<Vec<f32>>;
}

impl Found for Vec<Vec<f32>> {
    fn lists(self) -> Vec<Vec<f32>> {
        self
    }
}

impl Found for Vec<Tensor<1>> {
    fn lists(self) -> Vec<Vec<f32>> {
        self.into_iter()
            .map(|x| x.into_data().iter::<f32>().collect())
            .collect()
    }
}

/// Times both after having seen that each result of `ours` is within `bound` of that of `plain`, as
/// |a - b| / |b|.
fn compare<A: Found, P: Found>(
    criterion: &mut Criterion,
    name: &str,
    bound: f64,
    mut ours: impl FnMut() -> A,
    mut plain: impl FnMut() -> P,
) {
    let (found, expected) = (ours().lists(), plain().lists());
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{name}, result {i}");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
        let error = difference / norm(&mut expected.iter().map(|b| f64::from(*b)));
        assert!(error < bound, "{name}: result {i} differs by {error:e}");
    }
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    group.bench_function("ours", |b| b.iter(&mut ours));
    group.bench_function("plain", |b| b.iter(&mut plain));
    group.finish();
}

fn autodiff() -> Device {
    Device::flex().autodiff()
}

/// `y` and the gradients of `leaves` for an upstream gradient of `above`.
fn solved<const R: usize, const L: usize>(y: Tensor<R>, above: Tensor<R>, leaves: [Tensor<L>; 1]) -> Vec<Tensor<1>> {
    let gradients = (y.clone() * above).sum().backward();
    let mut found = vec![flat(y.inner())];
    found.extend(leaves.iter().filter_map(|leaf| leaf.grad(&gradients)).map(flat));
    found
}

const PRECISIONS: [(Precision, DType, f64); 2] =
    [(Precision::F32, DType::F32, 1e-4), (Precision::Bf16, DType::BF16, 3e-2)];

fn attention(criterion: &mut Criterion) {
    let row = HEADS.row();
    // Already over the root of the width, as the products before it leave them.
    let (qkv, above) = (values(N * row, 1, 1.0), values(N * D, 2, 1.0));
    let documents = [0..S, S..N];
    for (precision, dtype, bound) in PRECISIONS {
        let device = autodiff();
        let (leaf, up) = (
            tensor(&qkv, [N, row], dtype, &device).require_grad(),
            tensor(&above, [N, D], dtype, &device),
        );
        let mask = Tensor::<2, Bool>::tril_mask([S, S], 0, &device).reshape([1, 1, S, S]);
        let kept = SavedActivations::new(qkv.clone(), precision);
        let groups = HEADS.heads / HEADS.kv_heads;
        let repeat = |x: Tensor<4>| {
            x.reshape([B, HEADS.kv_heads, 1, S, HEADS.width])
                .expand([B, HEADS.kv_heads, groups, S, HEADS.width])
                .reshape([B, HEADS.heads, S, HEADS.width])
        };
        let plain = || {
            let all = leaf
                .clone()
                .reshape([B, S, row / HEADS.width, HEADS.width])
                .swap_dims(1, 2);
            let q = all.clone().narrow(1, 0, HEADS.heads);
            let k = repeat(all.clone().narrow(1, HEADS.heads, HEADS.kv_heads));
            let v = repeat(all.narrow(1, HEADS.heads + HEADS.kv_heads, HEADS.kv_heads));
            let hidden = mask.clone().expand([B, HEADS.heads, S, S]);
            let scores = q.matmul(k.swap_dims(2, 3)).mask_fill(hidden, f32::NEG_INFINITY);
            let mixed = activation::softmax(scores, 3).matmul(v);
            solved(mixed.swap_dims(1, 2).reshape([N, D]), up.clone(), [leaf.clone()])
        };
        let ours = || {
            let y = attention::flex::forward(kept.floats(), HEADS, &documents, precision);
            let d = attention::flex::backward(kept.floats(), HEADS, &documents, &above, precision);
            vec![y, d]
        };
        compare(criterion, &format!("attention {precision:?}"), bound, ours, plain);
    }
}

fn rms_norm(criterion: &mut Criterion) {
    let (x, weight, above) = (values(N * D, 3, 1.7), values(D, 4, 1.0), values(N * D, 5, 1.0));
    let device = autodiff();
    let (leaf, w) = (
        tensor(&x, [N, D], DType::F32, &device).require_grad(),
        tensor(&weight, [D], DType::F32, &device).require_grad(),
    );
    let up = tensor(&above, [N, D], DType::F32, &device);
    let plain = || {
        let mean = leaf.clone().square().mean_dim(1);
        let y = leaf.clone() / (mean + EPS).sqrt() * w.clone().unsqueeze();
        let gradients = (y.clone() * up.clone()).sum().backward();
        let mut found = vec![flat(y.inner())];
        found.extend(leaf.grad(&gradients).map(flat));
        found.extend(w.grad(&gradients));
        found
    };
    let ours = || {
        let (mut y, mut d_x) = (vec![0.0; N * D], vec![0.0; N * D]);
        rms_norm::flex::forward(&x, &weight, EPS as f32, &mut y);
        let d_weight = rms_norm::flex::backward(&x, &weight, EPS as f32, &above, &mut d_x);
        vec![y, d_x, d_weight]
    };
    compare(criterion, "rms_norm F32", 1e-4, ours, plain);
}

fn rotary(criterion: &mut Criterion) {
    let half = HEADS.width / 2;
    let (x, above) = (values(N * D, 6, 1.0), values(N * D, 7, 1.0));
    let angles = values(N * half, 8, 3.0);
    let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|a| f(*a)).collect::<Vec<_>>());
    let device = autodiff();
    let shape = [N, HEADS.heads, HEADS.width];
    let leaf = tensor(&x, shape, DType::F32, &device).require_grad();
    let up = tensor(&above, shape, DType::F32, &device);
    let table = |values| {
        let table: Tensor<3> = tensor(values, [N, 1, half], DType::F32, &device);
        Tensor::cat(vec![table.clone(), table], 2)
    };
    let (cosines, sines) = (table(&cos), table(&sin));
    let plain = || {
        let [first, second] = [0, half].map(|from| leaf.clone().narrow(2, from, half));
        let crossed = Tensor::cat(vec![second.neg(), first], 2);
        let y = leaf.clone() * cosines.clone() + crossed * sines.clone();
        solved(y, up.clone(), [leaf.clone()])
    };
    let ours = || {
        let (mut y, mut d) = (x.clone(), above.clone());
        for (rows, rotation) in [(&mut y, Rotation::Forward), (&mut d, Rotation::Inverse)] {
            rotary::flex::rotate(rows, D, 0..HEADS.heads, half, [&cos, &sin], rotation);
        }
        vec![y, d]
    };
    compare(criterion, "rotary F32", 1e-4, ours, plain);
}

fn swiglu(criterion: &mut Criterion) {
    let [gate, up, above] = [(9, 6.0), (10, 2.0), (11, 1.0)].map(|(seed, scale)| values(N * F, seed, scale));
    let device = autodiff();
    let [g, u] = [&gate, &up].map(|x| tensor(x, [N, F], DType::F32, &device).require_grad());
    let d = tensor(&above, [N, F], DType::F32, &device);
    let plain = || {
        let y = activation::silu(g.clone()) * u.clone();
        let gradients = (y.clone() * d.clone()).sum().backward();
        let mut found = vec![flat(y.inner())];
        found.extend([&g, &u].into_iter().filter_map(|leaf| leaf.grad(&gradients)).map(flat));
        found
    };
    let ours = || {
        let mut y = gate.clone();
        swiglu::flex::forward(&mut y, &up);
        let (mut d_gate, mut d_up, mut result) = (gate.clone(), up.clone(), above.clone());
        swiglu::flex::backward(&mut d_gate, &mut d_up, &mut result);
        vec![y, d_gate, d_up]
    };
    compare(criterion, "swiglu F32", 1e-4, ours, plain);
}

/// The gate's product `x W^T` with both of its gradients.
fn products(criterion: &mut Criterion) {
    let (x, w, above) = (values(N * D, 12, 1.7), values(F * D, 13, 0.07), values(N * F, 14, 1.0));
    for (precision, dtype, bound) in PRECISIONS {
        let device = autodiff();
        let leaf = tensor(&x, [N, D], dtype, &device).require_grad();
        let weight = tensor(&w, [F, D], dtype, &device).require_grad();
        let up = tensor(&above, [N, F], dtype, &device);
        let stored = SavedActivations::new(w.clone(), precision);
        let plain = || {
            let y = leaf.clone().matmul(weight.clone().transpose());
            let gradients = (y.clone() * up.clone()).sum().backward();
            let mut found = vec![flat(y.inner())];
            found.extend(
                [&leaf, &weight]
                    .into_iter()
                    .filter_map(|leaf| leaf.grad(&gradients))
                    .map(flat),
            );
            found
        };
        let ours = || {
            let (mut y, mut d_x, mut d_w) = (vec![0.0; N * F], vec![0.0; N * D], vec![0.0; F * D]);
            let weight = MatrixView::strided(stored.floats(), [F, D], [D, 1]);
            let (x, above) = (MatrixView::row_major(&x, [N, D]), MatrixView::row_major(&above, [N, F]));
            matmul(&mut y, F, false, x, weight.transposed(), precision);
            matmul(&mut d_x, D, false, above, weight, precision);
            matmul(&mut d_w, D, false, above.transposed(), x, precision);
            vec![y, d_x, d_w]
        };
        compare(criterion, &format!("product {precision:?}"), bound, ours, plain);
    }
}

const STEP: AdamWStep = AdamWStep {
    learning_rate: 1e-3,
    beta_1: 0.9,
    beta_2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 1.0,
};

/// A step of the gate's matrix; the plain one takes its formulas one after the other.
fn adamw(criterion: &mut Criterion) {
    let (start, gradient) = (values(F * D, 15, 0.07), values(F * D, 16, 0.01));
    for (precision, dtype, bound) in PRECISIONS {
        let device = Device::flex();
        let gradient = tensor(&gradient, [F, D], dtype, &device);
        let zeros = || Tensor::<2>::zeros([F, D], (&device, dtype));
        let state = || AdamWState {
            parameter: tensor(&start, [F, D], dtype, &device),
            moment_1: zeros(),
            moment_2: zeros(),
        };
        let mut kept = Some(state());
        let ours = || {
            kept = kept.take().map(|state| adamw_step(state, gradient.clone(), STEP));
            kept.iter()
                .map(|state| flat(state.parameter.clone()))
                .collect::<Vec<_>>()
        };
        let mut other = Some(state());
        let plain = || {
            other = other.take().map(|state| {
                let g = gradient.clone();
                let moment_1 = state.moment_1 * STEP.beta_1 + g.clone() * (1.0 - STEP.beta_1);
                let moment_2 = state.moment_2 * STEP.beta_2 + g.square() * (1.0 - STEP.beta_2);
                let first = moment_1.clone() / (1.0 - STEP.beta_1);
                let second = moment_2.clone() / (1.0 - STEP.beta_2);
                let moved = first / (second.sqrt() + STEP.epsilon) * STEP.learning_rate;
                let kept = state.parameter * (1.0 - STEP.learning_rate * STEP.weight_decay);
                AdamWState {
                    parameter: kept - moved,
                    moment_1,
                    moment_2,
                }
            });
            other
                .iter()
                .map(|state| flat(state.parameter.clone()))
                .collect::<Vec<_>>()
        };
        compare(criterion, &format!("adamw {precision:?}"), bound, ours, plain);
    }
}

/// The embedding's rows added to the gradient of tied weights; plainly through a matrix of its size,
/// as autodiff does.
fn row_sums(criterion: &mut Criterion) {
    let rows = values(N * D, 17, 1.0);
    let ids: Vec<i64> = (0..N).map(|i| (i * 7919 % 400 * 100) as i64).collect();
    for (precision, dtype, bound) in PRECISIONS {
        let device = Device::flex();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [N]), &device);
        let rows = tensor(&rows, [N, D], dtype, &device);
        let zeros = || Tensor::<2>::zeros([V, D], (&device, dtype));
        let mut kept = Some(zeros());
        let ours = || {
            kept = kept.take().map(|matrix| add_rows(matrix, ids.clone(), rows.clone()));
            kept.iter().cloned().map(flat).collect::<Vec<_>>()
        };
        let mut other = Some(zeros());
        let plain = || {
            let sums = zeros().select_assign(0, ids.clone(), rows.clone(), IndexingUpdateOp::Add);
            other = other.take().map(|matrix| matrix + sums);
            other.iter().cloned().map(flat).collect::<Vec<_>>()
        };
        compare(criterion, &format!("row sums {precision:?}"), bound, ours, plain);
    }
}

criterion_group!(benches, attention, rms_norm, rotary, swiglu, products, adamw, row_sums);
criterion_main!(benches);
