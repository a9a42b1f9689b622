//! The input batch of a model, and where and in which types its layers are computed.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wmtp_kernels::Precision;

/// A batch of token rows that may hold several documents each; all `[B, S]`.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Token ids.
    pub tokens: Tensor<2, Int>,
    /// Position of each token in its document, from 0.
    pub positions: Tensor<2, Int>,
    /// Number of the document that each token belongs to; negative for padding.
    pub docs: Tensor<2, Int>,
}

impl Packed {
    /// One document a row, from its start, padded on the right to the longest.
    pub fn from_documents(documents: &[Vec<u32>], device: &Device) -> Self {
        let seq = documents.iter().map(Vec::len).max().unwrap_or(0);
        let (mut tokens, mut positions, mut docs) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents {
            let padding = seq - document.len();
            tokens.extend(
                document
                    .iter()
                    .map(|id| i64::from(*id))
                    .chain(std::iter::repeat_n(0, padding)),
            );
            positions.extend((0..document.len() as i64).chain(std::iter::repeat_n(0, padding)));
            docs.extend(document.iter().map(|_| 0).chain(std::iter::repeat_n(-1, padding)));
        }
        let tensor = |values: Vec<i64>| Tensor::from_data(TensorData::new(values, [documents.len(), seq]), device);
        Self {
            tokens: tensor(tokens),
            positions: tensor(positions),
            docs: tensor(docs),
        }
    }
}

/// How layers are computed where the backend leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// What the factors of matrix products are rounded to; sums and everything else stay f32.
    pub precision: Precision,
    /// The type of the matrices' gradients, summed in f32 in any case.
    pub gradients: Precision,
    /// Activation recomputation: save only the input of each sublayer and compute the rest again in the
    /// backward pass.
    pub recompute: bool,
    /// Round the activations that are multiplied with matrices to 8 bits, 32 at a time, as quantized weights do when
    /// they generate; on flex. For measuring what that costs: the gradients do not know of it.
    pub rounded_activations: bool,
}

/// Whether a device, with or without autodiff, is flex.
pub(crate) fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    return {
        let _ = device;
        false
    };
}

/// Whether training computes its layers on slices in host memory: f32 and bf16 on flex.
pub(crate) fn on_slices(dtype: DType, device: &Device) -> bool {
    matches!(dtype, DType::F32 | DType::BF16) && is_flex(device)
}
