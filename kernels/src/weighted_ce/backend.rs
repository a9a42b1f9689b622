//! The operation on the backends: burn's dispatch, the rule for autodiff, and each backend's implementation.

use super::{Accuracy, chunked};
use crate::backends::{cast, register_gradients};
use crate::{dispatched, implement_everywhere, implement_except_flex_and_cube};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, ExtensionType, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::DType;

/// The inputs of one call; shapes as in
/// [`weighted_linear_cross_entropy`](super::weighted_linear_cross_entropy).
#[derive(Debug, Clone, ExtensionType)]
pub struct Inputs<B: Backend> {
    /// `[N, D]`
    pub hidden: FloatTensor<B>,
    /// `[V, D]`
    pub unembedding: FloatTensor<B>,
    /// `[N]`
    pub targets: IntTensor<B>,
    /// `[N]`
    pub weights: FloatTensor<B>,
}

/// Which gradients are to be computed along with the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedGradients {
    /// dX `[N, D]`.
    pub hidden: bool,
    /// dW `[V, D]`.
    pub unembedding: bool,
}

impl RequestedGradients {
    /// The loss alone.
    pub const NONE: Self = Self {
        hidden: false,
        unembedding: false,
    };
}

/// The loss and the requested gradients, for an upstream gradient of one. All f32 (f64 if the hidden states
/// are f64); on flex dW may be bf16 ([`Accuracy::gradient`](super::Accuracy)).
#[derive(Debug)]
pub struct LossAndGradients<B: Backend> {
    /// `[1]`
    pub loss: FloatTensor<B>,
    /// `[N]`
    pub ce: FloatTensor<B>,
    /// dX `[N, D]`, if requested.
    pub d_hidden: Option<FloatTensor<B>>,
    /// dW `[V, D]`, if requested.
    pub d_unembedding: Option<FloatTensor<B>>,
}

dispatched! { Autodiff:
    /// The operation as burn's dispatch sees it.
    pub trait WeightedCrossEntropyOps: Backend {
        /// The loss `[1]` and the cross-entropies `[N]`.
        fn weighted_linear_cross_entropy(
            #[extension_type] inputs: Inputs<Self>,
            accuracy: Accuracy,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }
}

/// What a backend without autodiff provides.
pub trait LossBackend: Backend {
    /// The loss, the cross-entropies and the requested gradients, for an upstream gradient of one.
    fn loss_and_gradients(
        inputs: Inputs<Self>,
        requested: RequestedGradients,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // The precision of these backends follows from their tensors' type.
        let _ = accuracy;
        chunked::loss_and_gradients(inputs, requested)
    }

    /// `gradient` `[R, C]` times `upstream` `[1]`.
    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        chunked::scale::<Self>(gradient, upstream)
    }
}

implement_except_flex_and_cube!(LossBackend, {});

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LossBackend for burn::backend::Cube {
    fn loss_and_gradients(
        inputs: Inputs<Self>,
        requested: RequestedGradients,
        _accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // The precision of this backend follows from its tensors' type.
        super::cube::loss_and_gradients(inputs, requested)
    }
}

#[cfg(feature = "flex")]
impl LossBackend for burn::backend::Flex {
    fn loss_and_gradients(
        inputs: Inputs<Self>,
        requested: RequestedGradients,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        super::flex::loss_and_gradients(inputs, requested, accuracy)
    }

    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        super::flex::scale(gradient, upstream)
    }
}

implement_everywhere!(WeightedCrossEntropyOps, {
    fn weighted_linear_cross_entropy(
        inputs: Inputs<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let output = Self::loss_and_gradients(inputs, RequestedGradients::NONE, accuracy);
        (output.loss, output.ce)
    }
});

/// The gradients that the forward pass computed, and the types of the tensors that they belong to.
#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    gradients: [Option<FloatTensor<B>>; 2],
    dtypes: [DType; 2],
}

#[derive(Debug)]
struct WeightedCrossEntropyBackward;

impl<B: LossBackend> Backward<B, 2> for WeightedCrossEntropyBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        register_gradients::<B, _, 2>(ops, grads, |Saved { gradients, dtypes }, upstream, _| {
            let finish = |gradient: FloatTensor<B>, dtype| {
                let scaled = B::scale(gradient, upstream.clone());
                // A gradient that was rounded on purpose is not widened again.
                let rounded = scaled.dtype() == DType::BF16 && dtype == DType::F32;
                if rounded { scaled } else { cast::<B>(scaled, dtype) }
            };
            let [d_hidden, d_unembedding] = gradients;
            [
                d_hidden.map(|gradient| finish(gradient, dtypes[0])),
                d_unembedding.map(|gradient| finish(gradient, dtypes[1])),
            ]
        });
    }
}

impl<B: LossBackend, C: CheckpointStrategy> WeightedCrossEntropyOps for Autodiff<B, C> {
    fn weighted_linear_cross_entropy(
        inputs: Inputs<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let Inputs {
            hidden,
            unembedding,
            targets,
            weights,
        } = inputs;
        let requested = RequestedGradients {
            hidden: hidden.is_tracked(),
            unembedding: unembedding.is_tracked(),
        };
        let dtypes = [hidden.dtype(), unembedding.dtype()];
        let (hidden, hidden_node) = hidden.into_parts();
        let (unembedding, unembedding_node) = unembedding.into_parts();
        let inputs = Inputs {
            hidden,
            unembedding,
            targets,
            weights: weights.into_primitive(),
        };
        let output = B::loss_and_gradients(inputs, requested, accuracy);
        let operation = WeightedCrossEntropyBackward
            .prepare::<C>([hidden_node, unembedding_node])
            .compute_bound()
            .stateful();
        let loss = match operation {
            OpsKind::Tracked(operation) => {
                let gradients = [output.d_hidden, output.d_unembedding];
                operation.finish(Saved { gradients, dtypes }, output.loss)
            }
            OpsKind::UnTracked(operation) => operation.finish(output.loss),
        };
        (loss, <Self as AutodiffBackend>::from_inner(output.ce))
    }
}
