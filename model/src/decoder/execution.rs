//! How the layers of a batch are computed, with what they share: rotary tables, documents, sizes.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, autodiff::checkpoint::strategy::CheckpointStrategy};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wmtp_kernels::{
    Precision,
    attention::{document_starts, flex::Heads},
};

use super::operations::Operations;
use crate::compute::{Compute, Packed, on_slices};
use crate::config::LlamaConfig;
use crate::rope::{RopeTables, SliceTables};

/// Documents and rotary tables of one batch, shared by all layers and heads.
#[derive(Debug, Clone)]
pub struct AttentionContext {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) execution: Execution<Dispatch>,
}

/// How layers are computed, with what that needs of a batch.
#[derive(Debug, Clone, ExtensionType)]
pub enum Execution<B: Backend> {
    /// On slices in host memory: f32 and bf16 on flex.
    Slices(Arc<Plan>),
    /// In the backend's own operations.
    Operations(#[extension_type] Operations<B>),
}

impl<B: Backend> Execution<B> {
    /// Whether the backward pass computes again what forward could have saved.
    pub fn recompute(&self) -> bool {
        match self {
            Self::Slices(plan) => plan.recompute,
            Self::Operations(operations) => operations.recompute,
        }
    }

    /// For backends that have no slices in host memory.
    pub fn operations(&self) -> &Operations<B> {
        match self {
            Self::Operations(operations) => operations,
            Self::Slices(_) => {
                unreachable!("`AttentionContext` plans slices for flex only, which computes them itself")
            }
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> Execution<Autodiff<B, C>> {
    /// The same without autodiff: none of these tensors has a gradient.
    pub fn inner(self) -> Execution<B> {
        match self {
            Self::Slices(plan) => Execution::Slices(plan),
            Self::Operations(of) => Execution::Operations(Operations {
                cos: of.cos.into_primitive(),
                sin: of.sin.into_primitive(),
                starts: of.starts,
                head_width: of.head_width,
                eps: of.eps,
                recompute: of.recompute,
            }),
        }
    }
}

impl AttentionContext {
    /// For whole rows: token `i` attends to token `j` where `j <= i` and both are of one document.
    /// Padding attends to nothing on slices, and to itself elsewhere.
    pub(crate) fn packed(
        config: &LlamaConfig,
        input: &Packed,
        compute: Compute,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let [batch, seq] = input.tokens.dims();
        let docs = host(&input.docs);
        let positions = host(&input.positions);
        let execution = if on_slices(dtype, device) {
            let compute = match dtype {
                DType::BF16 => Compute {
                    precision: Precision::Bf16,
                    gradients: Precision::Bf16,
                    ..compute
                },
                _ => compute,
            };
            Execution::Slices(Arc::new(Plan::new(config, &positions, &docs, seq, compute)))
        } else {
            let spec = config.layer_spec();
            let starts: Vec<i64> = docs.chunks(seq.max(1)).flat_map(document_starts).collect();
            let starts = Tensor::<2, Int>::from_data(TensorData::new(starts, [batch, seq]), device);
            let tables = RopeTables::new(config, &positions, [batch, seq], dtype, device).tables();
            let [cos, sin] = tables.map(Tensor::into_dispatch);
            Execution::Operations(Operations {
                cos,
                sin,
                starts: starts.into_dispatch(),
                head_width: spec.heads.width,
                eps: spec.norm.eps(),
                recompute: compute.recompute,
            })
        };
        Self { batch, seq, execution }
    }
}

/// The values of an integer tensor, row by row.
fn host(tensor: &Tensor<2, Int>) -> Vec<i64> {
    tensor.to_data().iter::<i64>().collect()
}

/// What slices need of one batch: documents, rotary tables and sizes.
#[derive(Debug)]
pub struct Plan {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Rows of each document.
    pub(crate) documents: Vec<Range<usize>>,
    pub(crate) rope: SliceTables,
    pub(crate) precision: Precision,
    /// The type of the matrices' gradients.
    pub(crate) gradients: Precision,
    /// Save only the inputs of both sublayers, and compute the rest again in the backward pass.
    pub(crate) recompute: bool,
}

impl Plan {
    /// `positions` and `docs` row by row, rows of `seq` tokens; a negative document is padding.
    pub fn new(config: &LlamaConfig, positions: &[i64], docs: &[i64], seq: usize, compute: Compute) -> Self {
        let Compute {
            precision,
            gradients,
            recompute,
        } = compute;
        let spec = config.layer_spec();
        Self {
            heads: spec.heads,
            eps: spec.norm.eps() as f32,
            documents: documents(docs, seq),
            rope: SliceTables::new(config, positions),
            precision,
            gradients,
            recompute,
        }
    }
}

/// The runs of equal, non-negative documents in each row of `seq` tokens.
fn documents(docs: &[i64], seq: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, doc) in docs.iter().enumerate() {
        let continues = i % seq.max(1) > 0 && docs[i - 1] == *doc;
        match runs.last_mut() {
            _ if *doc < 0 => {}
            Some(last) if continues => last.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn documents_end_at_boundaries_rows_and_padding() {
        assert_eq!(documents(&[0, 0, 1, 1, 1, 2, -1, -1], 4), [0..2, 2..4, 4..5, 5..6]);
        assert!(documents(&[-1, -1], 2).is_empty());
        assert!(documents(&[], 0).is_empty());
    }
}
