//! One forward pass of a micro-batch, with its heads together in one graph or each in its own.

use super::{loss::HeadHidden, tensors};
use burn::tensor::{Device, Gradients, Tensor};
use wmtp_data::Batch;
use wmtp_model::{AttentionContext, CausalLm, Packed};

/// One forward pass through the trunk, from which heads are taken.
pub(super) struct Forward<'a> {
    model: &'a dyn CausalLm,
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
    /// With `cut_at_embedding`, the graph starts at the embedded tokens: their gradient is added to the
    /// embedding's afterwards, in place, where autodiff would make a second matrix of its size.
    pub fn of(model: &'a dyn CausalLm, batch: &Batch, device: &Device, cut_at_embedding: bool) -> Self {
        let input = packed(batch, device);
        let context = model.context(&input);
        let embedded = cut_at_embedding.then(|| model.embedded(&input).require_grad());
        let trunk = match &embedded {
            Some(embedded) => model.trunk_of(embedded.clone(), &context),
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
    /// with [`Forward::trunk_backward`]. Unless `learns`, it has none.
    pub fn with_sequential_heads(mut self, learns: bool) -> Self {
        let start = self.trunk.clone().detach();
        self.leaf = Some(Leaf {
            start: if learns { start.require_grad() } else { start },
            gradient: None,
        });
        self
    }

    /// B * S.
    pub fn positions(&self) -> usize {
        let [batch, seq, _] = self.trunk.dims();
        batch * seq
    }

    /// The model's unembedding `[V, D]`.
    pub fn unembedding(&self) -> Tensor<2> {
        self.model.unembedding()
    }

    /// Head `k` at `positions`.
    pub fn head(&self, k: usize, positions: Vec<usize>) -> HeadHidden {
        let start = self.leaf.as_ref().map_or(&self.trunk, |leaf| &leaf.start);
        HeadHidden::at(self.model, k, start.clone(), &self.context, positions)
    }

    /// Head 1 at all positions, `[B, S, D]`.
    pub fn head_1_everywhere(&self) -> Tensor<3> {
        let [batch, seq, _] = self.trunk.dims();
        let hidden = self.head(1, (0..batch * seq).collect()).hidden;
        let size = hidden.dims()[1];
        hidden.reshape([batch, seq, size])
    }

    /// Adds the gradient that a head's backward pass found for the trunk's output.
    pub fn collect_trunk_gradient(&mut self, gradients: &mut Gradients) {
        if let Some(leaf) = &mut self.leaf
            && let Some(fresh) = leaf.start.grad_remove(gradients)
        {
            leaf.gradient = Some(match leaf.gradient.take() {
                Some(sum) => sum + fresh,
                None => fresh,
            });
        }
    }

    /// The trunk's backward pass, if heads were sequential and any gradient reached it.
    pub fn trunk_backward(&mut self) -> Option<Gradients> {
        let gradient = self.leaf.take()?.gradient?;
        // A tensor outside of any graph is a constant of the other's, whatever that one recomputes.
        Some((self.trunk.clone() * gradient).sum().backward())
    }
}

/// A batch's tensors on a device.
pub fn packed(batch: &Batch, device: &Device) -> Packed {
    Packed {
        tokens: tensors::tokens(batch, device),
        positions: tensors::positions(batch, device),
        docs: tensors::docs(batch, device),
    }
}
