//! Flex tensors as slices in host memory, and back.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, TensorData};
use wmtp_gemm::FloatSlice;
use wmtp_kernels::SavedActivations;

/// The tensors with contiguous values.
pub(crate) fn dense<const N: usize>(tensors: &[FlexTensor; N]) -> [FlexTensor; N] {
    std::array::from_fn(|i| tensors[i].to_contiguous())
}

/// Values of a dense f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.shape().num_elements()]
}

/// Values of a dense weight, f32 or bf16.
pub(crate) fn weight(tensor: &FlexTensor) -> FloatSlice<'_> {
    match tensor.dtype() {
        DType::BF16 => {
            let start = tensor.layout().start_offset();
            FloatSlice::Bf16(&tensor.storage()[start..start + tensor.shape().num_elements()])
        }
        _ => FloatSlice::F32(values(tensor)),
    }
}

/// The values of a norm's weight or of a bias in f32.
pub(crate) fn vector(tensor: &FlexTensor) -> Vec<f32> {
    let weight = weight(tensor);
    (0..weight.len()).map(|i| weight.at(i)).collect()
}

/// An f32 tensor.
pub(crate) fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A tensor of the type in which `values` are stored.
pub(crate) fn stored(values: SavedActivations, shape: Shape) -> FlexTensor {
    match values {
        SavedActivations::F32(values) => tensor(values, shape),
        SavedActivations::Bf16(values) => FlexTensor::from_data(TensorData::new(values, shape)),
    }
}
