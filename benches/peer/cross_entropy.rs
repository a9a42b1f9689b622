//! `weighted_linear_cross_entropy` alone, forward and backward, on the inputs in a file.

use crate::protocol::{reset_peak, serve, status_bytes};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{path::Path, time::Instant};
use wmtp_kernels::{Accuracy, Precision, WeightedCrossEntropy, weighted_linear_cross_entropy_in};

type Operation = fn(Accuracy, Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> WeightedCrossEntropy;

/// One way to compute it.
#[derive(Clone, Copy)]
struct Form {
    /// Type of hidden states and unembedding, and so of their gradients.
    storage: DType,
    /// What the factors of products are rounded to.
    precision: Precision,
    /// Tolerance of the filter, 0 for none.
    filter: f64,
    operation: Operation,
}

impl Form {
    const PLAIN: Self = Self {
        storage: DType::F32,
        precision: Precision::F32,
        filter: 0.0,
        operation: weighted_linear_cross_entropy_in,
    };

    /// The form of this name with the one that its gradients are compared with.
    fn named(mode: &str) -> Option<(Self, Self)> {
        let products = Self {
            precision: Precision::Bf16,
            ..Self::PLAIN
        };
        let all = Self {
            storage: DType::BF16,
            ..products
        };
        let (mode, filter) = match mode.split_once("-filter=") {
            Some((mode, tolerance)) => (mode, tolerance.parse().ok()?),
            None => (mode, 0.0),
        };
        let form = match mode {
            "f32" => Self::PLAIN,
            "bf16-master" => products,
            "bf16" => all,
            _ => return None,
        };
        Some((Self { filter, ..form }, Self::PLAIN))
    }
}

/// A form's inputs on the device.
struct Inputs {
    hidden: Tensor<2>,
    unembedding: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
}

/// Loss, gradients of the hidden states and of the unembedding, and seconds forward and backward.
struct Found {
    loss: f64,
    gradients: [Tensor<2>; 2],
    seconds: [f64; 2],
}

impl Inputs {
    /// From a file as `torch_ce.py --write` makes it.
    fn read(path: &Path, storage: DType) -> Self {
        let bytes = std::fs::read(path).expect("a readable --data FILE");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let device = Device::flex().autodiff();
        let floats = |name: &str| -> (Vec<f32>, Vec<usize>) {
            let view = file.tensor(name).expect("x, w, targets and weights");
            assert!(
                view.dtype() == safetensors::Dtype::F32,
                "{name} is {:?}, not f32",
                view.dtype()
            );
            let values = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            (values.collect(), view.shape().to_vec())
        };
        let matrix = |name: &str| {
            let (values, shape) = floats(name);
            Tensor::<2>::from_data(TensorData::new(values, shape), &device).cast(storage)
        };
        let targets = file.tensor("targets").expect("targets");
        assert!(
            targets.dtype() == safetensors::Dtype::I64,
            "targets are {:?}, not i64",
            targets.dtype()
        );
        let targets: Vec<i64> = targets
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect();
        let rows = targets.len();
        Self {
            hidden: matrix("x"),
            unembedding: matrix("w"),
            targets: Tensor::from_data(TensorData::new(targets, [rows]), &device),
            weights: Tensor::from_data(TensorData::new(floats("weights").0, [rows]), &device),
        }
    }

    /// A few small rows: what every call sets up once is set up before memory is measured.
    fn small(storage: DType) -> Self {
        const N: usize = 64;
        let device = Device::flex().autodiff();
        let wave = |i: usize| (i % 13) as f32 / 6.0 - 1.0;
        let matrix = || {
            let values = TensorData::new((0..N * N).map(wave).collect::<Vec<_>>(), [N, N]);
            Tensor::<2>::from_data(values, &device).cast(storage)
        };
        Self {
            hidden: matrix(),
            unembedding: matrix(),
            targets: Tensor::from_data(TensorData::new((0..N as i64).collect::<Vec<_>>(), [N]), &device),
            weights: Tensor::from_data(TensorData::new(vec![1f32; N], [N]), &device),
        }
    }

    fn run(&self, form: Form) -> Found {
        let hidden = self.hidden.clone().require_grad();
        let unembedding = self.unembedding.clone().require_grad();
        let start = Instant::now();
        let found = (form.operation)(
            Accuracy {
                factors: form.precision,
                filter: form.filter,
                gradient: if form.storage == DType::BF16 {
                    Precision::Bf16
                } else {
                    Precision::F32
                },
            },
            hidden.clone(),
            unembedding.clone(),
            self.targets.clone(),
            self.weights.clone(),
        );
        let forward = start.elapsed().as_secs_f64();
        let mut gradients = found.loss.backward();
        let backward = start.elapsed().as_secs_f64() - forward;
        let gradient = |tensor: &Tensor<2>, from: &mut _| tensor.grad_remove(from).expect("a gradient");
        Found {
            loss: found.loss.into_scalar::<f64>(),
            gradients: [
                gradient(&hidden, &mut gradients),
                gradient(&unembedding, &mut gradients),
            ],
            seconds: [forward, backward],
        }
    }

    /// Bytes of the two gradients.
    fn gradient_bytes(&self) -> u64 {
        let bytes = |t: &Tensor<2>| t.dims().iter().product::<usize>() * t.dtype().size();
        (bytes(&self.hidden) + bytes(&self.unembedding)) as u64
    }
}

/// Serves as a peer until it is told to quit.
pub fn run(mode: &str, path: &Path) {
    let Some((form, reference)) = Form::named(mode) else {
        eprintln!(
            "--peer-ce {mode}: f32, bf16-master (products of f32 tensors) and bf16 (everything) are known, each also with -filter=TOLERANCE"
        );
        std::process::exit(2);
    };
    let runtime = status_bytes("VmRSS");
    let inputs = Inputs::read(path, form.storage);
    Inputs::small(form.storage).run(form);
    reset_peak();
    let before = status_bytes("VmRSS");
    // As the program does; not before, or what reading the inputs took would hide what a step takes.
    wmtp_kernels::disable_malloc_trim();
    let step = || {
        let found = inputs.run(form);
        let [forward, backward] = found.seconds;
        json!({"loss": found.loss, "seconds": forward + backward, "forward": forward, "backward": backward})
    };
    serve(step, runtime, || {
        let extra = status_bytes("VmHWM").saturating_sub(before + inputs.gradient_bytes());
        let [dx, dw] = errors(path, &inputs, form, reference);
        json!({"extra_bytes": extra, "dx_error": dx, "dw_error": dw})
    });
}

/// Relative errors of both gradients, |ours - reference| / |reference|; null for the reference itself.
fn errors(path: &Path, inputs: &Inputs, form: Form, reference: Form) -> [Value; 2] {
    let same = form.storage == reference.storage
        && form.precision == reference.precision
        && form.filter == reference.filter
        && std::ptr::fn_addr_eq(form.operation, reference.operation);
    if same {
        return [Value::Null, Value::Null];
    }
    let ours = inputs.run(form).gradients;
    let theirs = Inputs::read(path, reference.storage).run(reference).gradients;
    let norm = |t: Tensor<2>| t.powi_scalar(2).sum().sqrt().into_scalar::<f64>();
    let mut pairs = ours.into_iter().zip(theirs).map(|(ours, theirs)| {
        let theirs = theirs.cast(DType::F32);
        json!(norm(ours.cast(DType::F32) - theirs.clone()) / norm(theirs))
    });
    [pairs.next().unwrap_or_default(), pairs.next().unwrap_or_default()]
}
