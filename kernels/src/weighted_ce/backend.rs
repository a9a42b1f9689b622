//! The operation on the backends: burn's dispatch, the rule for autodiff, and each backend's implementation.

use super::contract::{LossAndGradients, RequestedGradients};
use super::{Accuracy, chunked};
use crate::backends::{cast, register_gradients};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::DType;

/// The operation as burn's dispatch sees it; shapes as in
/// [`weighted_linear_cross_entropy`](super::weighted_linear_cross_entropy).
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait WeightedCrossEntropyOps: Backend {
    /// The loss `[1]` and the cross-entropies `[N]`.
    fn weighted_linear_cross_entropy(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// What a backend without autodiff provides.
pub trait LossBackend: Backend {
    /// The loss, the cross-entropies and the requested gradients, for an upstream gradient of one.
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        requested: RequestedGradients,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // The precision of these backends follows from their tensors' type.
        let _ = accuracy;
        chunked::loss_and_gradients::<Self>(hidden, unembedding, targets, weights, requested)
    }

    /// `gradient` `[R, C]` times `upstream` `[1]`.
    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        chunked::scale::<Self>(gradient, upstream)
    }
}

macro_rules! implement {
    ($condition:meta, $backend:path, { $($body:tt)* }) => {
        #[$condition]
        #[allow(deprecated)] // ndarray and libtorch are deprecated upstream and still work
        impl LossBackend for $backend { $($body)* }

        #[$condition]
        #[allow(deprecated)]
        impl WeightedCrossEntropyOps for $backend {
            fn weighted_linear_cross_entropy(
                hidden: FloatTensor<Self>,
                unembedding: FloatTensor<Self>,
                targets: IntTensor<Self>,
                weights: FloatTensor<Self>,
                accuracy: Accuracy,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let output = Self::loss_and_gradients(hidden, unembedding, targets, weights, RequestedGradients::NONE, accuracy);
                (output.loss, output.ce)
            }
        }
    };
}

implement!(cfg(feature = "ndarray"), burn::backend::NdArray, {});
implement!(cfg(feature = "tch"), burn::backend::LibTorch, {});
implement!(cfg(any(feature = "wgpu", feature = "cuda")), burn::backend::Cube, {
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        requested: RequestedGradients,
        _accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // The precision of this backend follows from its tensors' type.
        super::cube::loss_and_gradients(hidden, unembedding, targets, weights, requested)
    }
});
implement!(cfg(feature = "flex"), burn::backend::Flex, {
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        requested: RequestedGradients,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        super::flex::loss_and_gradients(hidden, unembedding, targets, weights, requested, accuracy)
    }

    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        super::flex::scale(gradient, upstream)
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
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let requested = RequestedGradients {
            hidden: hidden.is_tracked(),
            unembedding: unembedding.is_tracked(),
        };
        let dtypes = [hidden.dtype(), unembedding.dtype()];
        let (hidden, hidden_node) = hidden.into_parts();
        let (unembedding, unembedding_node) = unembedding.into_parts();
        let weights = weights.into_primitive();
        let output = B::loss_and_gradients(hidden, unembedding, targets, weights, requested, accuracy);
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
