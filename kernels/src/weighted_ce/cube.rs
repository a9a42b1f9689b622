//! The loss and its gradients on CubeCL: burn's matrix products, and two kernels between them.
//!
//! Logits stay in the hidden states' type (f32, f16 or bf16). The first kernel reads them once for
//! log-sum-exp and label logit, the second turns them in place into their gradient. Statistics,
//! cross-entropies, dX and dW are f32: the products that make dX and dW accumulate and write f32
//! from the narrow operands. f64 takes the plain form.
//!
//! Each kernel gives a row to a cube of up to 256 units, with loads of up to 16 bytes. Per logit of `b` bytes
//! the first pass moves `b` and the second `2 b`, with about 10 operations and one exponential each,
//! so that memory bounds them: at V = 49152 in bf16, 0.3 MB a row, 0.19 us on an A100's 1.56 TB/s and
//! 0.09 us on an H100's 3.35 TB/s.

use super::backend::{Inputs, LossAndGradients, RequestedGradients};
use super::chunked;
use super::cube_kernels::{self, STATISTICS};
use super::rows::{KeptRow, read_rows, rows_per_chunk};
use crate::cube::{self, RowLaunch, element, empty};
use burn::backend::{Cube, TensorMetadata, ops::FloatTensorOps, ops::IntTensorOps};
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Shape, TensorData};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;

/// See [`LossBackend::loss_and_gradients`](super::backend::LossBackend::loss_and_gradients).
pub(super) fn loss_and_gradients(inputs: Inputs<Cube>, requested: RequestedGradients) -> LossAndGradients<Cube> {
    if !cube::is_supported(inputs.hidden.dtype) {
        return chunked::loss_and_gradients(inputs, requested);
    }
    let Inputs {
        hidden,
        unembedding,
        targets,
        weights,
    } = inputs;
    let device = hidden.device();
    let (n, d) = (hidden.shape()[0], hidden.shape()[1]);
    let vocabulary = unembedding.shape()[0];
    let rows = read_rows::<Cube>(targets, weights, vocabulary);
    let zeros = |shape: Shape| Cube::float_zeros(shape, &device, FloatDType::F32);
    let mut d_hidden = requested.hidden.then(|| zeros(Shape::new([n, d])));
    let ce = zeros(Shape::new([n]));
    if rows.is_empty() {
        return LossAndGradients {
            loss: zeros(Shape::new([1])),
            ce,
            d_hidden,
            d_unembedding: requested.unembedding.then(|| zeros(Shape::new([vocabulary, d]))),
        };
    }

    let mut loss: Option<CubeTensor> = None;
    let mut d_unembedding: Option<CubeTensor> = None;
    let across = Cube::float_transpose(unembedding.clone());
    for rows in rows.chunks(rows_per_chunk(rows.len(), vocabulary, hidden.dtype.size())) {
        let chunk = Chunk::upload(rows, &hidden);
        let x = Cube::float_select(hidden.clone(), 0, chunk.index.clone());
        let logits = empty(&hidden, [rows.len(), vocabulary], hidden.dtype);
        let logits = product(x.clone(), across.clone(), Some(logits), hidden.dtype);
        let (terms, statistics) = launch_cross_entropy(&logits, &chunk, &ce);
        add(&mut loss, Cube::float_sum(terms));
        if requested == RequestedGradients::NONE {
            continue;
        }
        let gradient = launch_gradient(logits, &chunk, statistics);
        d_hidden = d_hidden.map(|total| {
            let rows = product(gradient.clone(), unembedding.clone(), None, DType::F32);
            Cube::float_select_assign(total, 0, chunk.index, rows, IndexingUpdateOp::Add)
        });
        if requested.unembedding {
            let part = product(Cube::float_transpose(gradient), x, None, DType::F32);
            add(&mut d_unembedding, part);
        }
    }
    LossAndGradients {
        loss: loss.unwrap_or_else(|| zeros(Shape::new([1]))),
        ce,
        d_hidden,
        d_unembedding,
    }
}

/// What the kernels need to know of a chunk's rows, on the device.
struct Chunk {
    /// `[r]`: the rows of the hidden states.
    index: CubeTensor,
    /// `[r, 2]`, u32: target and row of the hidden states.
    rows: CubeTensor,
    /// `[r]`, f32.
    weights: CubeTensor,
}

impl Chunk {
    fn upload(rows: &[KeptRow], like: &CubeTensor) -> Self {
        let device = like.device();
        let r = rows.len();
        let index: Vec<i32> = rows.iter().map(|row| row.index as i32).collect();
        let pairs: Vec<u32> = rows
            .iter()
            .flat_map(|row| [row.target as u32, row.index as u32])
            .collect();
        let weights: Vec<f32> = rows.iter().map(|row| row.weight as f32).collect();
        Self {
            index: Cube::int_from_data(TensorData::new(index, [r]), &device),
            rows: Cube::int_from_data(TensorData::new(pairs, [r, 2]), &device),
            weights: Cube::float_from_data(TensorData::new(weights, [r]), &device),
        }
    }
}

/// The first pass over contiguous `logits` `[r, V]`: writes the chunk's rows of `ce`, and returns the
/// weighted cross-entropies `[r]` and the statistics for the second pass.
fn launch_cross_entropy(logits: &CubeTensor, chunk: &Chunk, ce: &CubeTensor) -> (CubeTensor, CubeTensor) {
    let (r, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let row = RowLaunch::new(&logits.client, vocabulary, logits.dtype);
    let terms = empty(logits, [r], DType::F32);
    let statistics = empty(logits, [r, STATISTICS], DType::F32);
    cube_kernels::cross_entropy::launch(
        &logits.client,
        cube::cubes(r),
        row.cube(),
        row.vector,
        logits.clone().into_tensor_arg(),
        chunk.rows.clone().into_tensor_arg(),
        chunk.weights.clone().into_tensor_arg(),
        ce.clone().into_tensor_arg(),
        terms.clone().into_tensor_arg(),
        statistics.clone().into_tensor_arg(),
        row.units,
        row.inner.planes(),
        element(logits.dtype),
    );
    (terms, statistics)
}

/// The second pass: `logits` `[r, V]` become their gradient in place.
fn launch_gradient(logits: CubeTensor, chunk: &Chunk, statistics: CubeTensor) -> CubeTensor {
    let (r, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let row = RowLaunch::new(&logits.client, vocabulary, logits.dtype);
    cube_kernels::gradient::launch(
        &logits.client,
        cube::cubes(r),
        row.cube(),
        row.vector,
        logits.clone().into_tensor_arg(),
        chunk.rows.clone().into_tensor_arg(),
        chunk.weights.clone().into_tensor_arg(),
        statistics.into_tensor_arg(),
        row.units,
        element(logits.dtype),
    );
    logits
}

/// A matrix product that writes `dtype`, whatever its operands hold; a failure to launch is a
/// programmer's error, as in burn's own product.
fn product(left: CubeTensor, right: CubeTensor, out: Option<CubeTensor>, dtype: DType) -> CubeTensor {
    matmul(left, right, out, MatmulStrategy::default(), dtype)
        .unwrap_or_else(|error| panic!("weighted_linear_cross_entropy: the matrix product failed: {error:?}"))
}

/// `part` added to `total`, or the first one.
fn add(total: &mut Option<CubeTensor>, part: CubeTensor) {
    *total = Some(match total.take() {
        Some(total) => Cube::float_add(total, part),
        None => part,
    });
}
