//! The loss and its gradients in the operations of any backend, a chunk of rows at a time.
//!
//! Used on ndarray and libtorch, and for f64 everywhere; the form that CubeCL's kernels are compared with.
//! Targets and weights are read back once, to know which rows are kept.

use super::backend::{Inputs, LossAndGradients, RequestedGradients};
use super::rows::{read_rows, rows_per_chunk};
use crate::backends::{accumulator_dtype, cast};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{FloatDType, IndexingUpdateOp, Shape, TensorData};

/// See [`LossBackend::loss_and_gradients`](super::backend::LossBackend::loss_and_gradients).
pub(super) fn loss_and_gradients<B: Backend>(inputs: Inputs<B>, requested: RequestedGradients) -> LossAndGradients<B> {
    let Inputs {
        hidden,
        unembedding,
        targets,
        weights,
    } = inputs;
    let device = hidden.device();
    let storage = hidden.dtype();
    let sums = accumulator_dtype(storage);
    let index_type = targets.dtype();
    let (n, d) = (hidden.shape()[0], hidden.shape()[1]);
    let vocabulary = unembedding.shape()[0];
    let rows = read_rows::<B>(targets, weights, vocabulary);

    let zeros = |shape: Shape| B::float_zeros(shape, &device, FloatDType::from(sums));
    let indices = |values: Vec<i64>, shape: Shape| {
        let values = TensorData::new(values, shape).convert_dtype(index_type);
        B::int_from_data(values, &device)
    };
    let mut loss = zeros(Shape::new([1, 1]));
    let mut ce = zeros(Shape::new([n, 1]));
    let mut d_hidden = requested.hidden.then(|| zeros(Shape::new([n, d])));
    let mut d_unembedding = requested.unembedding.then(|| zeros(Shape::new([vocabulary, d])));

    // Logits are f32 or f64 here, whatever the storage type.
    for chunk in rows.chunks(rows_per_chunk(rows.len(), vocabulary, sums.size())) {
        let r = chunk.len();
        let index = chunk.iter().map(|row| row.index as i64).collect();
        let index = indices(index, Shape::new([r]));
        let target = chunk.iter().map(|row| row.target as i64).collect();
        let target = indices(target, Shape::new([r, 1]));
        let weight: Vec<f64> = chunk.iter().map(|row| row.weight).collect();
        let weight = TensorData::new(weight, [r, 1]).convert_dtype(sums);
        let weight = B::float_from_data(weight, &device);

        let x = B::float_select(hidden.clone(), 0, index.clone());
        let logits = B::float_matmul(x.clone(), B::float_transpose(unembedding.clone()));
        let logits = cast::<B>(logits, sums);
        let largest = B::float_max_dim(logits.clone(), 1);
        let shifted = B::float_sub(logits, largest);
        let label = B::float_gather(1, shifted.clone(), target.clone());
        let exponentials = B::float_exp(shifted);
        let sum = B::float_sum_dim(exponentials.clone(), 1);
        let chunk_ce = B::float_sub(B::float_log(sum.clone()), label);
        let weighted = B::float_mul(chunk_ce.clone(), weight.clone());
        loss = B::float_add(loss, B::float_sum_dim(weighted, 0));
        ce = B::float_select_assign(ce, 0, index.clone(), chunk_ce, IndexingUpdateOp::Add);
        if requested == RequestedGradients::NONE {
            continue;
        }

        // weight * (softmax - onehot), `[r, V]`
        let gradient = B::float_mul(exponentials, B::float_div(weight.clone(), sum));
        let onehot = B::float_neg(weight);
        let gradient = B::float_scatter(1, gradient, target, onehot, IndexingUpdateOp::Add);
        let gradient = cast::<B>(gradient, storage);
        d_hidden = d_hidden.map(|total| {
            let rows = B::float_matmul(gradient.clone(), unembedding.clone());
            let rows = cast::<B>(rows, sums);
            B::float_select_assign(total, 0, index, rows, IndexingUpdateOp::Add)
        });
        d_unembedding = d_unembedding.map(|total| {
            let part = B::float_matmul(B::float_transpose(gradient), x);
            B::float_add(total, cast::<B>(part, sums))
        });
    }
    LossAndGradients {
        loss: B::float_reshape(loss, Shape::new([1])),
        ce: B::float_reshape(ce, Shape::new([n])),
        d_hidden,
        d_unembedding,
    }
}

/// `gradient` `[R, C]` times `upstream` `[1]`, without waiting for the device.
pub(super) fn scale<B: Backend>(gradient: FloatTensor<B>, upstream: FloatTensor<B>) -> FloatTensor<B> {
    let upstream = cast::<B>(upstream, gradient.dtype());
    B::float_mul(gradient, B::float_reshape(upstream, Shape::new([1, 1])))
}

/// flex stands in for the backends that run this form: same operations, and an implementation on slices to
/// compare with.
#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::backend::LossBackend;
    use super::*;
    use burn::backend::{Flex, ops::FloatTensorOps, ops::IntTensorOps};
    use burn::tensor::DType;

    type Primitive = FloatTensor<Flex>;

    /// 600 rows (three chunks), with masked rows and rows of weight zero among them.
    fn inputs(dtype: DType) -> Inputs<Flex> {
        const N: usize = 600;
        let wave = |count: usize, step: usize, scale: f64| -> Vec<f64> {
            let term = |i: usize| (i * step % 1009) as f64 / 504.5 - 1.0;
            (0..count).map(|i| scale * term(i)).collect()
        };
        let device = Default::default();
        let floats = |values: Vec<f64>, shape: Vec<usize>, dtype| {
            Flex::float_from_data(TensorData::new(values, shape).convert_dtype(dtype), &device)
        };
        let targets: Vec<i64> = (0..N as i64).map(|i| (i * 7) % 25 - 2).collect();
        let weights = (0..N).map(|i| (i % 5) as f64 * 0.4).collect();
        Inputs {
            hidden: floats(wave(N * 8, 577, 2.0), vec![N, 8], dtype),
            unembedding: floats(wave(23 * 8, 331, 1.5), vec![23, 8], dtype),
            targets: Flex::int_from_data(TensorData::new(targets, [N]), &device),
            weights: floats(weights, vec![N], DType::F32),
        }
    }

    const BOTH: RequestedGradients = RequestedGradients {
        hidden: true,
        unembedding: true,
    };

    fn values(tensor: Primitive) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    fn assert_near(found: Option<Primitive>, expected: Option<Primitive>, bound: f64) {
        let (Some(found), Some(expected)) = (found, expected) else {
            panic!("a result is missing");
        };
        assert_eq!(found.shape(), expected.shape());
        assert_eq!(found.dtype(), expected.dtype());
        let (found, expected) = (values(found), values(expected));
        let size: f64 = expected.iter().map(|e| e * e).sum();
        let pairs = found.iter().zip(&expected);
        let difference: f64 = pairs.map(|(f, e)| (f - e) * (f - e)).sum();
        let error = (difference / size).sqrt();
        assert!(error < bound, "relative error {error:e}");
    }

    fn compare(dtype: DType, bound: f64) {
        let inputs = inputs(dtype);
        let found = loss_and_gradients(inputs.clone(), BOTH);
        let expected = Flex::loss_and_gradients(inputs, BOTH, crate::Accuracy::default());
        assert_near(Some(found.loss), Some(expected.loss), bound);
        assert_near(Some(found.ce), Some(expected.ce), bound);
        assert_near(found.d_hidden, expected.d_hidden, bound);
        assert_near(found.d_unembedding, expected.d_unembedding, bound);
    }

    #[test]
    fn equals_the_slice_level_form() {
        compare(DType::F32, 1e-5);
        // Logits and their gradients are rounded to the storage type here, not on slices.
        compare(DType::F16, 2e-3);
        compare(DType::BF16, 2e-2);
    }

    #[test]
    fn gradients_that_are_not_requested_are_absent() {
        let found = loss_and_gradients(inputs(DType::F32), RequestedGradients::NONE);
        assert!(found.d_hidden.is_none() && found.d_unembedding.is_none());
    }

    #[test]
    fn nothing_kept_is_a_loss_and_gradients_of_zero() {
        let mut inputs = inputs(DType::F32);
        inputs.weights = Flex::float_mul_scalar(inputs.weights, 0.0.into());
        let found = loss_and_gradients(inputs, BOTH);
        let gradients = [found.d_hidden, found.d_unembedding].map(|g| g.map(values));
        assert_eq!(values(found.loss), [0.0]);
        assert_eq!(gradients, [Some(vec![0.0; 4800]), Some(vec![0.0; 184])]);
    }

    #[test]
    fn scaling_multiplies_every_element() {
        let device = Default::default();
        let matrix = TensorData::from([[1.0f32, -2.0, 3.0], [0.5, 0.0, 4.0]]);
        let factor = TensorData::from([0.5f32]);
        let scaled = scale::<Flex>(
            Flex::float_from_data(matrix, &device),
            Flex::float_from_data(factor, &device),
        );
        assert_eq!(values(scaled), [0.5, -1.0, 1.5, 0.25, 0.0, 2.0]);
    }
}
