//! RMSNorm, SwiGLU, the rotation and AdamW: the kernels, and the forms in plain operations that the
//! other backends run, against the same mathematics in f64 by burn's own autodiff on flex.

use crate::common::{Numbers, distance, floats, values};
use crate::device;
use burn::tensor::{DType, Device, Tensor, activation::sigmoid};
use wmtp_kernels::adamw::{AdamWState, AdamWStep, adamw_step};
use wmtp_kernels::rms_norm::rms_norm;
use wmtp_kernels::rotary::rotate_halves;
use wmtp_kernels::swiglu::swiglu;

/// An output and the gradients of the two inputs.
type Found = [Vec<f64>; 3];

/// Output and gradients of `operation` on two inputs, for an upstream gradient of `above`.
fn solve<const A: usize, const B: usize>(
    operation: &dyn Fn(Tensor<A>, Tensor<B>) -> Tensor<A>,
    inputs: [&[f64]; 3],
    shapes: ([usize; A], [usize; B]),
    dtype: DType,
    device: &Device,
) -> Found {
    let device = device.clone().autodiff();
    let a = floats(inputs[0], shapes.0, dtype, &device).require_grad();
    let b = floats(inputs[1], shapes.1, dtype, &device).require_grad();
    let above = floats(inputs[2], shapes.0, dtype, &device);
    let y = operation(a.clone(), b.clone());
    let gradients = (y.clone() * above).sum().backward();
    let gradient_b = b.grad(&gradients).map(values).unwrap_or_default();
    [
        values(y),
        a.grad(&gradients).map(values).unwrap_or_default(),
        gradient_b,
    ]
}

fn assert_near(found: &Found, expected: &Found, bound: f64, what: &str) {
    for (part, (found, expected)) in ["y", "da", "db"].iter().zip(found.iter().zip(expected)) {
        let error = distance(found, expected);
        assert!(error < bound, "{what}: {part} is off by {error:e}");
    }
}

/// The devices and types that an operation is tried on, with the error that is allowed.
fn trials() -> Vec<(Device, DType, f64)> {
    let device = device();
    let mut trials = vec![
        (Device::flex(), DType::F64, 1e-12),
        (Device::flex(), DType::F32, 1e-5),
        (device.clone(), DType::F32, 1e-5),
    ];
    if device.supports_dtype(DType::F16) {
        trials.push((device, DType::F16, 1e-2));
    } else {
        println!("no f16 on this device");
    }
    trials
}

/// One, odd numbers, around the cube's 256 units, 64 rows (a partial sum of dw) and more.
const SHAPES: [[usize; 2]; 12] = [
    [1, 1],
    [1, 7],
    [3, 5],
    [7, 255],
    [7, 256],
    [7, 257],
    [2, 576],
    [63, 12],
    [64, 12],
    [65, 12],
    [129, 1023],
    [130, 1028],
];

#[test]
fn rms_norm_equals_f64() {
    for (seed, [n, d]) in SHAPES.into_iter().enumerate() {
        let mut numbers = Numbers(seed as u64);
        let (x, w, dy) = (
            numbers.values(n * d, 2.0),
            numbers.values(d, 1.5),
            numbers.values(n * d, 1.0),
        );
        // A single column is its own mean square: dx is eps times something, and lost in rounding if
        // eps is small.
        let eps = if d == 1 { 0.5 } else { 1e-5 };
        let plainly = |x: Tensor<2>, weight: Tensor<1>| {
            let mean = x.clone().square().mean_dim(1);
            x / (mean + eps).sqrt() * weight.unsqueeze()
        };
        let inputs = [&x[..], &w[..], &dy[..]];
        let expected = solve(&plainly, inputs, ([n, d], [d]), DType::F64, &Device::flex());
        for (device, dtype, bound) in trials() {
            let found = solve(&|x, w| rms_norm(x, w, eps), inputs, ([n, d], [d]), dtype, &device);
            assert_near(&found, &expected, bound, &format!("[{n}, {d}] in {dtype:?}"));
        }
    }
}

/// x = (3, 4): the mean square is 12.5.
#[test]
fn rms_norm_by_hand() {
    let device = device();
    let y = rms_norm(
        floats(&[3.0, 4.0], [1, 2], DType::F32, &device),
        floats(&[1.0, 2.0], [2], DType::F32, &device),
        0.0,
    );
    let root = 12.5f64.sqrt();
    assert!(distance(&values(y), &[3.0 / root, 8.0 / root]) < 1e-6);
}

#[test]
fn swiglu_equals_f64() {
    let plainly = |gate: Tensor<2>, up: Tensor<2>| gate.clone() * sigmoid(gate) * up;
    for (seed, [n, d]) in SHAPES.into_iter().enumerate() {
        let mut numbers = Numbers(seed as u64);
        let (gate, up, dy) = (
            numbers.values(n * d, 6.0),
            numbers.values(n * d, 2.0),
            numbers.values(n * d, 1.0),
        );
        let inputs = [&gate[..], &up[..], &dy[..]];
        let expected = solve(&plainly, inputs, ([n, d], [n, d]), DType::F64, &Device::flex());
        for (device, dtype, bound) in trials() {
            let found = solve(&swiglu, inputs, ([n, d], [n, d]), dtype, &device);
            assert_near(&found, &expected, bound, &format!("[{n}, {d}] in {dtype:?}"));
        }
    }
}

/// silu(1e4) = 1e4 and silu(-1e4) = 0: neither the exponential's overflow nor its underflow shows.
#[test]
fn swiglu_of_large_gates_is_finite() {
    for device in [device(), Device::flex()] {
        let found = solve(
            &swiglu,
            [&[1e4, -1e4], &[2.0, 3.0], &[1.0, 1.0]],
            ([1, 2], [1, 2]),
            DType::F32,
            &device,
        );
        assert_near(
            &found,
            &[vec![2e4, 0.0], vec![2.0, 0.0], vec![1e4, 0.0]],
            1e-6,
            "large gates",
        );
    }
}

/// A transposed input: it is not contiguous.
#[test]
fn inputs_that_are_not_contiguous() {
    let mut numbers = Numbers(4);
    let (x, w) = (numbers.values(35, 2.0), numbers.values(5, 2.0));
    let run = |device: &Device, dtype| {
        let x = floats(&x, [5, 7], dtype, device).transpose();
        values(rms_norm(x.clone(), floats(&w, [5], dtype, device), 1e-6) + swiglu(x.clone(), x))
    };
    assert!(distance(&run(&device(), DType::F32), &run(&Device::flex(), DType::F64)) < 1e-5);
}

#[test]
fn rotation_equals_f64_and_turns_back() {
    let shapes = [
        [1, 1, 1, 2],
        [1, 3, 5, 6],
        [2, 2, 7, 64],
        [3, 1, 65, 10],
        [2, 9, 33, 128],
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        let [b, h, s, w] = shape;
        let mut numbers = Numbers(seed as u64);
        let (x, dy) = (numbers.values(b * h * s * w, 2.0), numbers.values(b * h * s * w, 1.0));
        let angles = numbers.values(b * s * w / 2, 3.0);
        let [cos, sin] = [f64::cos, f64::sin].map(|f| angles.iter().map(|a| f(*a)).collect::<Vec<_>>());
        let table = |values: &[f64], dtype, device: &Device| floats(values, [b, s, w / 2], dtype, device);
        // In f64, element by element; the gradient by the transpose of the same rotation.
        let turned = |x: &[f64], sign: f64| {
            let mut y = vec![0.0; x.len()];
            for row in 0..b * h * s {
                let (batch, position) = (row / (h * s), row % s);
                for i in 0..w / 2 {
                    let at = (batch * s + position) * w / 2 + i;
                    let (first, second) = (x[row * w + i], x[row * w + w / 2 + i]);
                    y[row * w + i] = first * cos[at] - sign * second * sin[at];
                    y[row * w + w / 2 + i] = second * cos[at] + sign * first * sin[at];
                }
            }
            y
        };
        let expected = [turned(&x, 1.0), turned(&dy, -1.0), vec![]];
        for (device, dtype, bound) in trials() {
            let autodiff = device.clone().autodiff();
            let leaf = floats(&x, shape, dtype, &autodiff).require_grad();
            let y = rotate_halves(
                leaf.clone(),
                table(&cos, dtype, &autodiff),
                table(&sin, dtype, &autodiff),
            );
            let gradients = (y.clone() * floats(&dy, shape, dtype, &autodiff)).sum().backward();
            let dx = values(leaf.grad(&gradients).expect("gradient of x"));
            let what = format!("{shape:?} in {dtype:?}");
            assert_near(&[values(y), dx, vec![]], &expected, bound, &what);
        }
    }
}

const STEP: AdamWStep = AdamWStep {
    learning_rate: 3e-3,
    beta_1: 0.9,
    beta_2: 0.99,
    epsilon: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 0.5,
};

/// Three steps against the formulas in f64.
#[test]
fn adamw_equals_f64() {
    for (seed, count) in [1usize, 3, 255, 256, 257, 1024, 5001].into_iter().enumerate() {
        let mut numbers = Numbers(seed as u64);
        let start = numbers.values(count, 1.0);
        let gradients: Vec<_> = (0..3).map(|_| numbers.values(count, 0.1)).collect();
        let mut expected = [start.clone(), vec![0.0; count], vec![0.0; count]];
        for (t, gradient) in gradients.iter().enumerate() {
            let [p, m, v] = &mut expected;
            for i in 0..count {
                let g = 0.5 * gradient[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (m_hat, v_hat) = (
                    m[i] / (1.0 - 0.9f64.powi(t as i32 + 1)),
                    v[i] / (1.0 - 0.99f64.powi(t as i32 + 1)),
                );
                p[i] = p[i] - 3e-3 * 0.1 * p[i] - 3e-3 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        for (device, dtype, bound) in trials() {
            let mut state = AdamWState {
                parameter: floats(&start, [count], dtype, &device),
                moment_1: Tensor::<1>::zeros([count], (&device, DType::F32)),
                moment_2: Tensor::<1>::zeros([count], (&device, DType::F32)),
            };
            if dtype == DType::F64 {
                state.moment_1 = state.moment_1.cast(DType::F64);
                state.moment_2 = state.moment_2.cast(DType::F64);
            }
            for (t, gradient) in gradients.iter().enumerate() {
                let step = AdamWStep {
                    step: t as u32 + 1,
                    ..STEP
                };
                state = adamw_step(state, floats(gradient, [count], dtype, &device), step);
            }
            let found = [state.parameter, state.moment_1, state.moment_2].map(values);
            assert_near(&found, &expected, bound, &format!("{count} in {dtype:?}"));
        }
    }
}

/// A clone of the state that someone keeps must not change under him.
#[test]
fn adamw_leaves_a_kept_clone_alone() {
    for device in [device(), Device::flex()] {
        let full = |value: f64| floats(&[value; 9], [3, 3], DType::F32, &device);
        let state = AdamWState {
            parameter: full(1.0),
            moment_1: full(0.0),
            moment_2: full(0.0),
        };
        let kept = state.clone();
        let after = adamw_step(state, full(0.5), STEP);
        assert_eq!(values(kept.parameter), [1.0; 9]);
        assert_eq!(values(kept.moment_1), [0.0; 9]);
        // The first step's direction is the gradient's sign.
        let expected = 1.0 - 3e-3 * 0.1 - 3e-3;
        assert!(distance(&values(after.parameter), &[expected; 9]) < 1e-6);
    }
}
