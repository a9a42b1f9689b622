//! The loss and its gradients on flex, on slices in f32: [`fused`] with gradients, [`loss_only`] without, and
//! [`tiles`] for both in bf16 where the processor has tiles. f64 takes the form in burn's operations.
//!
//! No result depends on the number of threads or on their timing: every element is summed by one thread in a
//! fixed order, and the row losses are summed in f64, in row order.

mod filter;
mod fused;
mod loss_only;
mod sums;
#[cfg(target_arch = "x86_64")]
mod tiles;

use super::backend::{Inputs, LossAndGradients, RequestedGradients};
use super::rows::{read_floats, read_rows};
use super::{Accuracy, chunked};
use crate::Precision;
use crate::backends::{cast, flex_memory};
use crate::saved::narrow_releasing;
use crate::simd::ELEMENTS_PER_BLOCK;
use burn::backend::{Flex, TensorMetadata, flex::FlexTensor, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, TensorData};
use half::bf16;
use rayon::prelude::*;
use wmtp_gemm::simd::{to_bf16, to_f32, vectorized};
use wmtp_gemm::{FloatSlice, MatrixView};
#[cfg(target_arch = "x86_64")]
use wmtp_gemm::{Isa, tiles::Amx};

/// What the computations on slices return.
struct LossOutput {
    /// Weighted sum of the cross-entropies.
    loss: f32,
    /// `[N]`, zero for rows that are not kept.
    ce: Vec<f32>,
    /// dX `[N, D]`, if requested.
    d_hidden: Option<Vec<f32>>,
    /// dW `[V, D]`, if requested.
    d_unembedding: Option<UnembeddingGradient>,
}

/// dW in one of the two storage types.
enum UnembeddingGradient {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl UnembeddingGradient {
    /// In the type `gradient`.
    fn tensor(self, gradient: Precision, shape: [usize; 2]) -> FlexTensor {
        FlexTensor::from_data(match (self, gradient) {
            (Self::F32(values), Precision::F32) => TensorData::new(values, shape),
            (Self::F32(values), Precision::Bf16) => TensorData::new(narrow_releasing(values), shape),
            (Self::Bf16(values), _) => TensorData::new(values, shape),
        })
    }
}

/// A row's log-sum-exp, as maximum and sum, and its label's logit.
#[derive(Debug, Clone, Copy, Default)]
struct RowStats {
    max: f32,
    sum: f64,
    label: f32,
}

impl RowStats {
    /// In nats.
    fn cross_entropy(&self) -> f64 {
        self.sum.ln() + f64::from(self.max) - f64::from(self.label)
    }

    /// What turns `exp(logit - max)` into the loss's gradient, for a row of this weight.
    fn factor(&self, weight: f64) -> f32 {
        let factor = (weight / self.sum) as f32;
        // Of all NaNs the one that rounding to bf16 leaves one.
        if factor.is_nan() { f32::NAN } else { factor }
    }

    /// The loss's gradient with respect to the label's logit, for a row of this weight.
    fn gradient_at_label(&self, weight: f64) -> f64 {
        // (p - 1) as (e - sum) / sum: no cancellation when p is near 1.
        let e = f64::from(self.label - self.max).exp();
        weight * ((e - self.sum) / self.sum)
    }
}

/// See [`LossBackend::loss_and_gradients`](super::backend::LossBackend::loss_and_gradients).
pub(super) fn loss_and_gradients(
    inputs: Inputs<Flex>,
    requested: RequestedGradients,
    accuracy: Accuracy,
) -> LossAndGradients<Flex> {
    if inputs.hidden.dtype() == DType::F64 {
        return chunked::loss_and_gradients(inputs, requested);
    }
    let Inputs {
        hidden,
        unembedding,
        targets,
        weights,
    } = inputs;
    let ([n, d], [v, _]) = (hidden.shape().dims(), unembedding.shape().dims());
    let rows = read_rows::<Flex>(targets, weights, v);
    let [hidden, unembedding] = [hidden, unembedding].map(readable);
    let (x, w) = (view(&hidden), view(&unembedding));
    let output = match (requested, accuracy.factors) {
        #[cfg(target_arch = "x86_64")]
        (_, Precision::Bf16) if on_tiles(requested, accuracy) => {
            tiles::loss_and_gradients::<Amx>(x, w, &rows, requested, accuracy.gradient)
        }
        (RequestedGradients::NONE, precision) => loss_only::loss(x, w, &rows, precision),
        (_, Precision::F32) => {
            fused::loss_and_gradients::<f32>(x, w, &rows, requested, accuracy.gradient, accuracy.filter)
        }
        (_, Precision::Bf16) => {
            fused::loss_and_gradients::<bf16>(x, w, &rows, requested, accuracy.gradient, accuracy.filter)
        }
    };
    let tensor = |values: Vec<f32>, shape: &[usize]| FlexTensor::from_data(TensorData::new(values, shape));
    LossAndGradients {
        loss: tensor(vec![output.loss], &[1]),
        ce: tensor(output.ce, &[n]),
        d_hidden: output.d_hidden.map(|values| tensor(values, &[n, d])),
        d_unembedding: output
            .d_unembedding
            .map(|values| values.tensor(accuracy.gradient, [v, d])),
    }
}

/// Whether the tile unit computes the loss. What the filter leaves out, the form with stored logits leaves out too.
#[cfg(target_arch = "x86_64")]
fn on_tiles(requested: RequestedGradients, accuracy: Accuracy) -> bool {
    Isa::chosen() == Ok(Isa::Amx) && (accuracy.filter == 0.0 || requested == RequestedGradients::NONE)
}

/// `gradient` times `upstream` `[1]`; the multiplication is left out where the factor is exactly one.
pub(super) fn scale(gradient: FloatTensor<Flex>, upstream: FloatTensor<Flex>) -> FloatTensor<Flex> {
    match read_floats::<Flex>(upstream).iter::<f64>().next() {
        Some(factor) if factor != 1.0 && gradient.dtype() == DType::BF16 => scale_in_place(gradient, factor as f32),
        Some(factor) if factor != 1.0 => Flex::float_mul_scalar(gradient, factor.into()),
        _ => gradient,
    }
}

/// In the memory of the bf16 values, where nothing else refers to it; flex's own operation takes as much again.
fn scale_in_place(gradient: FloatTensor<Flex>, factor: f32) -> FloatTensor<Flex> {
    let shape = gradient.shape();
    match read_floats::<Flex>(gradient).try_into_vec::<bf16>() {
        Ok(mut values) => {
            values.par_chunks_mut(ELEMENTS_PER_BLOCK).for_each(|values| {
                vectorized(
                    #[inline(always)]
                    || {
                        values
                            .iter_mut()
                            .for_each(|value| *value = to_bf16(to_f32(*value) * factor))
                    },
                );
            });
            FlexTensor::from_data(TensorData::new(values, shape))
        }
        Err(error) => unreachable!("a bf16 tensor has bf16 values: {error:?}"),
    }
}

/// `tensor` in f32 or bf16 and without negative strides (flipped tensors are copied).
fn readable(tensor: FlexTensor) -> FlexTensor {
    let tensor = if flex_memory::is_supported(tensor.dtype()) {
        tensor
    } else {
        cast::<Flex>(tensor, DType::F32)
    };
    if tensor.layout().strides().iter().any(|stride| *stride < 0) {
        tensor.to_contiguous()
    } else {
        tensor
    }
}

/// A matrix in place, with its strides.
fn view(tensor: &FlexTensor) -> MatrixView<'_> {
    let layout = tensor.layout();
    let (start, shape, strides) = (layout.start_offset(), layout.shape(), layout.strides());
    let values = match tensor.dtype() {
        DType::BF16 => FloatSlice::Bf16(&tensor.storage()[start..]),
        _ => FloatSlice::F32(&tensor.storage()[start..]),
    };
    MatrixView::strided(values, [shape[0], shape[1]], [strides[0] as usize, strides[1] as usize])
}
