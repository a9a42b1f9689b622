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
use super::spec::{LayerKind, LayerSpec};
use crate::compute::{Compute, Packed, on_slices};
use crate::config::LlamaConfig;
use crate::rope::{PerRotation, Positions, RopeTables, SliceTables};

/// Documents and rotary tables of one batch, shared by all layers and heads.
#[derive(Debug, Clone)]
pub struct AttentionContext {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// For each kind of layer that the model has.
    executions: Vec<(LayerKind, Execution<Dispatch>)>,
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
        let lengths = lengths(&docs, &positions, seq);
        let positions = Positions {
            of: &positions,
            lengths: Some(&lengths),
        };
        let spec = config.layer_spec();
        let mut kinds: Vec<LayerKind> = Vec::new();
        for kind in &spec.kinds {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        let executions = if on_slices(dtype, device) {
            let compute = match dtype {
                DType::BF16 => Compute {
                    precision: Precision::Bf16,
                    gradients: Precision::Bf16,
                    ..compute
                },
                _ => compute,
            };
            let plan = Plan::new(&spec, documents(&docs, seq), compute);
            let tables = PerRotation::new(config, positions, |config, positions| {
                Arc::new(SliceTables::new(config, positions))
            });
            let of = |kind: &LayerKind| {
                Execution::Slices(Arc::new(Plan {
                    window: kind.window,
                    rope: tables.of(*kind).clone(),
                    ..plan.clone()
                }))
            };
            kinds.iter().map(|kind| (*kind, of(kind))).collect()
        } else {
            let starts: Vec<i64> = docs.chunks(seq.max(1)).flat_map(document_starts).collect();
            let tables = PerRotation::new(config, positions, |config, positions| {
                RopeTables::new(config, positions, [batch, seq], dtype, device).tables()
            });
            let of = |kind: &LayerKind| {
                let starts = TensorData::new(seen_from(&starts, seq, kind.window), [batch, seq]);
                let [cos, sin] = tables.of(*kind).clone().map(Tensor::into_dispatch);
                Execution::Operations(Operations {
                    cos,
                    sin,
                    starts: Tensor::<2, Int>::from_data(starts, device).into_dispatch(),
                    head_width: spec.heads.width,
                    eps: spec.norm.eps(),
                    recompute: compute.recompute,
                })
            };
            kinds.iter().map(|kind| (*kind, of(kind))).collect()
        };
        Self { batch, seq, executions }
    }

    /// That of a layer. The context is made for all kinds of layers that the model has.
    pub(crate) fn execution(&self, kind: LayerKind) -> &Execution<Dispatch> {
        let of_kind = self.executions.iter().find(|(known, _)| *known == kind);
        match of_kind.or(self.executions.first()) {
            Some((_, execution)) => execution,
            None => unreachable!("a model has at least one layer, by `LlamaConfig::check`"),
        }
    }

    /// Whether layers are computed on slices in host memory.
    pub(crate) fn on_slices(&self) -> bool {
        let mut executions = self.executions.iter();
        executions.any(|(_, execution)| matches!(execution, Execution::Slices(_)))
    }
}

/// The first position of its row that each position sees, given that of its document.
fn seen_from(starts: &[i64], seq: usize, window: Option<usize>) -> Vec<i64> {
    let Some(window) = window else {
        return starts.to_vec();
    };
    let first = |(i, start): (usize, &i64)| {
        let in_window = (i % seq.max(1) + 1).saturating_sub(window);
        (*start).max(in_window as i64)
    };
    starts.iter().enumerate().map(first).collect()
}

/// The number of tokens of the text that each token belongs to; 0 for padding.
fn lengths(docs: &[i64], positions: &[i64], seq: usize) -> Vec<usize> {
    let mut lengths = vec![0; docs.len()];
    for rows in documents(docs, seq) {
        let last = positions[rows.clone()].iter().max().copied().unwrap_or(0);
        lengths[rows].fill(usize::try_from(last + 1).unwrap_or(0));
    }
    lengths
}

/// The values of an integer tensor, row by row.
fn host(tensor: &Tensor<2, Int>) -> Vec<i64> {
    tensor.to_data().iter::<i64>().collect()
}

/// What slices need of one batch for one kind of layer: documents, rotary tables and sizes.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Rows of each document.
    documents: Arc<[Range<usize>]>,
    /// The layer's sliding window.
    window: Option<usize>,
    pub(crate) rope: Arc<SliceTables>,
    pub(crate) precision: Precision,
    /// The type of the matrices' gradients.
    pub(crate) gradients: Precision,
    /// Save only the inputs of both sublayers, and compute the rest again in the backward pass.
    pub(crate) recompute: bool,
    /// See [`Compute::rounded_activations`].
    pub(crate) rounded_activations: bool,
}

impl Plan {
    /// For layers without a window, its rotary tables still empty.
    fn new(spec: &LayerSpec, documents: Vec<Range<usize>>, compute: Compute) -> Self {
        let Compute {
            precision,
            gradients,
            recompute,
            rounded_activations,
        } = compute;
        Self {
            heads: spec.heads,
            eps: spec.norm.eps() as f32,
            documents: documents.into(),
            window: None,
            rope: Arc::default(),
            precision,
            gradients,
            recompute,
            rounded_activations,
        }
    }

    /// What queries see.
    #[cfg(feature = "flex")]
    pub(crate) fn attended(&self) -> wmtp_kernels::attention::flex::Documents<'_> {
        wmtp_kernels::attention::flex::Documents {
            rows: &self.documents,
            window: self.window,
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
    use super::{documents, seen_from};

    #[test]
    fn a_window_ends_at_the_start_of_its_document_and_row() {
        // Rows of 5: documents from 0 and 1, and from 0 and 3.
        let starts = [0, 1, 1, 1, 1, 0, 0, 0, 3, 3];
        assert_eq!(seen_from(&starts, 5, None), starts);
        assert_eq!(seen_from(&starts, 5, Some(2)), [0, 1, 1, 2, 3, 0, 0, 1, 3, 3]);
        assert_eq!(seen_from(&starts, 5, Some(1)), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn documents_end_at_boundaries_rows_and_padding() {
        assert_eq!(documents(&[0, 0, 1, 1, 1, 2, -1, -1], 4), [0..2, 2..4, 4..5, 5..6]);
        assert!(documents(&[-1, -1], 2).is_empty());
        assert!(documents(&[], 0).is_empty());
    }
}
