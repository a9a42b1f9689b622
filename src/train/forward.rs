//! One forward pass of a micro-batch, with its heads together in one graph or each in its own.

use super::loss::HeadStates;
use crate::data::Batch;
use burn::tensor::{Device, Gradients, Tensor};
use std::borrow::Cow;
use wmtp_model::{AttentionContext, MtpLlama, Packed};

/// One forward pass through the trunk, from which heads are taken.
pub(super) struct Forward<'a> {
    model: &'a MtpLlama,
    trunk: Tensor<3>,
    context: AttentionContext,
    /// The embedded tokens `[B * S, D]` where they are a leaf of the graph.
    pub embedded: Option<Tensor<2>>,
    /// Where heads start from when their backward passes end at the trunk's output.
    leaf: Option<Leaf>,
}

/// The trunk's output as a leaf, with the gradients that have arrived.
struct Leaf {
    start: Tensor<3>,
    gradient: Option<Tensor<3>>,
}

impl<'a> Forward<'a> {
    /// With `cut`, the graph starts at the embedded tokens: their gradient is added to the
    /// embedding's afterwards, in place, where autodiff would make a second matrix of its size.
    pub fn of(model: &'a MtpLlama, batch: &Batch, device: &Device, cut: bool) -> Self {
        let input = packed(batch, device);
        let context = model.context(&input);
        let embedded = cut.then(|| model.embedded(&input).require_grad());
        let trunk = match &embedded {
            Some(rows) => model.trunk_of(rows.clone(), &context),
            None => model.trunk(&input, &context),
        };
        Self {
            model,
            trunk,
            context,
            embedded,
            leaf: None,
        }
    }

    /// The same, but heads end at the trunk's output, one backward pass for each; the trunk's own comes
    /// with [`Forward::backward`]. Unless `learns`, it has none.
    pub fn with_heads_in_turn(mut self, learns: bool) -> Self {
        let start = self.trunk.clone().detach();
        self.leaf = Some(Leaf {
            start: if learns { start.require_grad() } else { start },
            gradient: None,
        });
        self
    }

    /// Head `k` at `rows`.
    pub fn head(&self, k: usize, rows: Vec<usize>) -> HeadStates {
        let start = self.leaf.as_ref().map_or(&self.trunk, |leaf| &leaf.start);
        HeadStates::at(self.model, k, start.clone(), &self.context, rows)
    }

    /// Takes what a head's backward pass found for the trunk's output.
    pub fn take(&mut self, gradients: &mut Gradients) {
        if let Some(leaf) = &mut self.leaf
            && let Some(fresh) = leaf.start.grad_remove(gradients)
        {
            leaf.gradient = Some(match leaf.gradient.take() {
                Some(sum) => sum + fresh,
                None => fresh,
            });
        }
    }

    /// The trunk's backward pass, if heads ran in turn and any reached it.
    pub fn backward(&mut self) -> Option<Gradients> {
        let gradient = self.leaf.take()?.gradient?;
        // A tensor outside of any graph is a constant of the other's, whatever that one recomputes.
        Some((self.trunk.clone() * gradient).sum().backward())
    }
}

/// `batch` as `model` computes it at the least cost: without padding where attention goes document by
/// document, as it is elsewhere.
pub fn unpadded<'a>(model: &MtpLlama, batch: &'a Batch) -> Cow<'a, Batch> {
    if model.attends_by_document() {
        Cow::Owned(batch.without_padding())
    } else {
        Cow::Borrowed(batch)
    }
}

/// A batch's tensors on a device.
pub fn packed(batch: &Batch, device: &Device) -> Packed {
    Packed {
        tokens: batch.tokens_tensor(device),
        positions: batch.positions_tensor(device),
        docs: batch.docs_tensor(device),
    }
}
