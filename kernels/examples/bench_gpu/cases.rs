//! What is timed, with the bytes and operations of one call; the counts are those of
//! `docs/cuda-kernels.md`.

use burn::backend::{Backend, Cube, TensorMetadata, ops::FloatTensorOps, ops::IntTensorOps};
use burn::tensor::{DType, Device, Distribution, FloatDType, Int, Tensor, TensorData};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use std::fmt;
use wmtp_kernels::adamw::{AdamWOps, AdamWStep};
use wmtp_kernels::attention::{AttentionBackend, Inputs};
use wmtp_kernels::cube::{RowLaunch, cubes, element, empty};
use wmtp_kernels::rms_norm::RmsNormBackend;
use wmtp_kernels::rotary::{RotaryBackend, Rotation};
use wmtp_kernels::swiglu::SwigluBackend;
use wmtp_kernels::weighted_ce::cube_kernels;
use wmtp_kernels::weighted_linear_cross_entropy;

/// Sizes of a model and a batch.
pub struct Shape {
    pub name: &'static str,
    /// B and S
    pub batch: usize,
    pub seq: usize,
    /// D
    pub hidden: usize,
    /// F
    pub inner: usize,
    /// H, K and W
    pub heads: usize,
    pub kv_heads: usize,
    pub width: usize,
    /// V
    pub vocabulary: usize,
}

pub const SMOLLM2: Shape = Shape {
    name: "smollm2-135m",
    batch: 2,
    seq: 2048,
    hidden: 576,
    inner: 1536,
    heads: 9,
    kv_heads: 3,
    width: 64,
    vocabulary: 49_152,
};

pub const LLAMA: Shape = Shape {
    name: "llama-7b",
    batch: 2,
    seq: 2048,
    hidden: 4096,
    inner: 11_008,
    heads: 32,
    kv_heads: 32,
    width: 128,
    vocabulary: 32_000,
};

/// For software devices.
pub const SMALL: Shape = Shape {
    name: "small",
    batch: 2,
    seq: 65,
    hidden: 96,
    inner: 256,
    heads: 6,
    kv_heads: 2,
    width: 16,
    vocabulary: 1_000,
};

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} x {} tokens, D {}, F {}, {} heads over {} of width {}, V {}",
            self.name,
            self.batch,
            self.seq,
            self.hidden,
            self.inner,
            self.heads,
            self.kv_heads,
            self.width,
            self.vocabulary
        )
    }
}

/// One kernel, or one operation with its kernels and products.
pub struct Case {
    pub name: &'static str,
    /// Bytes moved, each tensor as often as the kernel's notes say.
    pub bytes: f64,
    /// Operations outside of matrix products.
    pub operations: f64,
    /// Operations of the matrix products.
    pub products: f64,
    pub run: Box<dyn Fn()>,
}

impl Case {
    fn new(name: &'static str, bytes: f64, operations: f64, run: impl Fn() + 'static) -> Self {
        Self {
            name,
            bytes,
            operations,
            products: 0.0,
            run: Box::new(run),
        }
    }
}

/// Random and constant tensors of one type on one device.
struct Maker<'a> {
    device: &'a CubeDevice,
    dtype: DType,
}

impl Maker<'_> {
    fn of<const D: usize>(&self, shape: [usize; D], dtype: DType) -> CubeTensor {
        let normal = Distribution::Normal(0.0, 1.0);
        Cube::float_random(shape.into(), normal, self.device, FloatDType::from(dtype))
    }

    fn random<const D: usize>(&self, shape: [usize; D]) -> CubeTensor {
        self.of(shape, self.dtype)
    }
}

/// Every case of a shape.
pub fn all(shape: &Shape, dtype: DType, device: &CubeDevice) -> Result<Vec<Case>, String> {
    let make = Maker { device, dtype };
    let mut cases = layers(shape, &make);
    cases.extend(attention(shape, &make));
    cases.extend(adamw(shape, &make));
    cases.extend(passes(shape, &make));
    cases.extend(loss(shape, &make));
    Cube::sync(device).map_err(|error| format!("{error:?}"))?;
    Ok(cases)
}

fn layers(shape: &Shape, make: &Maker<'_>) -> Vec<Case> {
    let (tokens, d, f) = (shape.batch * shape.seq, shape.hidden, shape.inner);
    let b = make.dtype.size() as f64;
    let elements = (tokens * d) as f64;
    let (x, dy, weight) = (make.random([tokens, d]), make.random([tokens, d]), make.random([d]));
    let inputs = (x.clone(), weight.clone());
    let forward = Case::new("rms_norm", 2.0 * b * elements, 4.0 * elements, move || {
        let (x, weight) = inputs.clone();
        <Cube as RmsNormBackend>::forward(x, weight, 1e-5);
    });
    let backward = Case::new("rms_norm, backward", 5.0 * b * elements, 11.0 * elements, move || {
        <Cube as RmsNormBackend>::backward(x.clone(), weight.clone(), dy.clone(), 1e-5);
    });
    let mut cases = vec![forward, backward];

    let elements = (tokens * f) as f64;
    let [gate, up, dy] = std::array::from_fn(|_| make.random([tokens, f]));
    let inputs = (gate.clone(), up.clone());
    cases.push(Case::new("swiglu", 3.0 * b * elements, 6.0 * elements, move || {
        let (gate, up) = inputs.clone();
        <Cube as SwigluBackend>::forward(gate, up);
    }));
    cases.push(Case::new(
        "swiglu, backward",
        5.0 * b * elements,
        12.0 * elements,
        move || {
            <Cube as SwigluBackend>::backward(gate.clone(), up.clone(), dy.clone());
        },
    ));

    let elements = (tokens * shape.heads * shape.width) as f64;
    let q = make.random([shape.batch, shape.heads, shape.seq, shape.width]);
    let table = || make.of([shape.batch, shape.seq, shape.width / 2], DType::F32);
    let (cos, sin) = (table(), table());
    for (name, rotation) in [("rotary", Rotation::Forward), ("rotary, backward", Rotation::Inverse)] {
        let (q, cos, sin) = (q.clone(), cos.clone(), sin.clone());
        cases.push(Case::new(name, 2.0 * b * elements, 3.0 * elements, move || {
            Cube::rotate(q.clone(), cos.clone(), sin.clone(), rotation);
        }));
    }
    cases
}

fn attention(shape: &Shape, make: &Maker<'_>) -> Vec<Case> {
    let &Shape {
        batch,
        seq,
        heads,
        kv_heads,
        width,
        ..
    } = shape;
    let b = make.dtype.size() as f64;
    let of_queries = (batch * heads * seq * width) as f64;
    let of_keys = (batch * kv_heads * seq * width) as f64;
    // One document a row: every position sees all before it.
    let pairs = (batch * heads * seq * (seq + 1) / 2) as f64;
    let starts = TensorData::new(vec![0i32; batch * seq], [batch, seq]);
    let inputs = Inputs::<Cube> {
        q: make.random([batch, heads, seq, width]),
        k: make.random([batch, kv_heads, seq, width]),
        v: make.random([batch, kv_heads, seq, width]),
        starts: Cube::int_from_data(starts, make.device),
        scale: 1.0 / (width as f64).sqrt(),
    };
    let upstream = make.random([batch, heads, seq, width]);
    let attended = <Cube as AttentionBackend>::forward(inputs.clone());
    let again = inputs.clone();
    let (forward, backward) = (4.0 * width as f64, 14.0 * width as f64);
    vec![
        Case::new(
            "attention",
            b * (2.0 * of_queries + 2.0 * of_keys),
            forward * pairs,
            move || {
                <Cube as AttentionBackend>::forward(inputs.clone());
            },
        ),
        Case::new(
            "attention, backward",
            b * (4.0 * of_queries + 4.0 * of_keys),
            backward * pairs,
            move || {
                <Cube as AttentionBackend>::backward(again.clone(), attended.clone(), upstream.clone());
            },
        ),
    ]
}

/// A step of the gate's matrix, in place, moments in f32.
fn adamw(shape: &Shape, make: &Maker<'_>) -> Vec<Case> {
    let size = [shape.inner, shape.hidden];
    let elements = (shape.inner * shape.hidden) as f64;
    let (b, gradient) = (make.dtype.size() as f64, make.random(size));
    let [first, second] = std::array::from_fn(|_| Cube::float_zeros(size.into(), make.device, FloatDType::F32));
    let state = std::cell::RefCell::new(Some((make.random(size), first, second)));
    let step = AdamWStep {
        learning_rate: 1e-3,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 1.0,
    };
    let run = move || {
        // Taken and put back, so that nothing else refers to the buffers and they are overwritten.
        let taken = state.borrow_mut().take();
        let stepped = taken.map(|(p, m, v)| Cube::adamw_step(p, m, v, gradient.clone(), step));
        *state.borrow_mut() = stepped;
    };
    vec![Case::new(
        "adamw, of the gate",
        (16.0 + 3.0 * b) * elements,
        15.0 * elements,
        run,
    )]
}

/// The two passes of the loss over a chunk of 256 rows of logits.
fn passes(shape: &Shape, make: &Maker<'_>) -> Vec<Case> {
    const ROWS: usize = 256;
    let (v, b) = (shape.vocabulary, make.dtype.size() as f64);
    let elements = (ROWS * v) as f64;
    let logits = make.random([ROWS, v]);
    let launch = RowLaunch::new(&logits.client, v, logits.dtype);
    let pairs: Vec<u32> = (0..ROWS).flat_map(|row| [(row * 7 % v) as u32, row as u32]).collect();
    let pairs = Cube::int_from_data(TensorData::new(pairs, [ROWS, 2]), make.device);
    let weights = Cube::float_from_data(TensorData::new(vec![1f32; ROWS], [ROWS]), make.device);
    let statistics = empty(&logits, [ROWS, 2], DType::F32);
    let inputs = (logits.clone(), pairs.clone(), weights.clone(), statistics.clone());
    let forward = move || {
        let (logits, pairs, weights, statistics) = inputs.clone();
        let [ce, terms] = std::array::from_fn(|_| empty(&logits, [ROWS], DType::F32));
        let launch = RowLaunch::new(&logits.client, logits.shape()[1], logits.dtype);
        let client = logits.client.clone();
        let dtype = element(logits.dtype);
        cube_kernels::cross_entropy::launch(
            &client,
            cubes(ROWS),
            launch.cube(),
            launch.vector,
            logits.into_tensor_arg(),
            pairs.into_tensor_arg(),
            weights.into_tensor_arg(),
            ce.into_tensor_arg(),
            terms.into_tensor_arg(),
            statistics.into_tensor_arg(),
            launch.units,
            launch.inner.planes(),
            dtype,
        );
    };
    // In place: after the first call the logits are gradients, which takes the same time.
    let backward = move || {
        cube_kernels::gradient::launch(
            &logits.client,
            cubes(ROWS),
            launch.cube(),
            launch.vector,
            logits.clone().into_tensor_arg(),
            pairs.clone().into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            statistics.clone().into_tensor_arg(),
            launch.units,
            element(logits.dtype),
        );
    };
    vec![
        Case::new("cross_entropy, 256 rows", b * elements, 10.0 * elements, forward),
        Case::new(
            "its gradient in place, 256 rows",
            2.0 * b * elements,
            10.0 * elements,
            backward,
        ),
    ]
}

/// The whole loss: the library's products and both passes, chunk by chunk. The bytes are the logits'
/// alone: written by the product and read by the first pass; read, written and read twice more for
/// the gradients.
fn loss(shape: &Shape, make: &Maker<'_>) -> Vec<Case> {
    let (n, d, v) = (shape.batch * shape.seq, shape.hidden, shape.vocabulary);
    let (b, logits) = (make.dtype.size() as f64, (n * v) as f64);
    let case = |name, gradients: bool| {
        let device = Device::from(make.device.clone());
        let device = if gradients { device.autodiff() } else { device };
        let random = |shape: [usize; 2], scale: f64| -> Tensor<2> {
            let normal = Distribution::Normal(0.0, scale);
            Tensor::random(shape, normal, (&device, make.dtype))
        };
        let track = |x: Tensor<2>| if gradients { x.require_grad() } else { x };
        let hidden = track(random([n, d], 1.0));
        let unembedding = track(random([v, d], 1.0 / (d as f64).sqrt()));
        let targets: Vec<i32> = (0..n).map(|row| (row * 7 % v) as i32).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &device);
        let weights = Tensor::<1>::ones([n], (&device, DType::F32));
        let run = move || {
            let (hidden, unembedding) = (hidden.clone(), unembedding.clone());
            let found = weighted_linear_cross_entropy(hidden, unembedding, targets.clone(), weights.clone());
            if gradients {
                found.loss.backward();
            }
        };
        let (products, passes, moved) = if gradients { (6.0, 20.0, 6.0) } else { (2.0, 10.0, 2.0) };
        Case {
            products: products * logits * d as f64,
            ..Case::new(name, moved * b * logits, passes * logits, run)
        }
    };
    vec![case("loss", false), case("loss and gradients", true)]
}
