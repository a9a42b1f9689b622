//! How the two halves reach the backends through burn's dispatch, and their rules for autodiff.
#![allow(clippy::too_many_arguments)] // burn's dispatch takes tensors one by one

use super::{LayerBackend, Sizes, attention, feed_forward};
use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use wmtp_kernels::register_gradients;

/// The halves of a decoder layer as burn's dispatch sees them.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait HalfOps: Backend {
    /// `x` `[N, D]` plus attention; shapes as in [`attention::Inputs`]. `recompute` keeps nothing but
    /// the inputs for the backward pass.
    fn attention_half(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        starts: IntTensor<Self>,
        sizes: Sizes,
        recompute: bool,
    ) -> FloatTensor<Self>;

    /// `x` `[N, D]` plus the feed-forward block; shapes as in [`feed_forward::Inputs`].
    fn feed_forward_half(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        eps: f64,
        recompute: bool,
    ) -> FloatTensor<Self>;
}

/// The halves of a backend without autodiff: nothing is kept.
macro_rules! implement {
    ($($backend:ty, $feature:meta);* $(;)?) => {$(
        #[cfg($feature)]
        #[allow(deprecated)] // upstream deprecates ndarray and tch, and they still work
        impl HalfOps for $backend {
            fn attention_half(
                x: FloatTensor<Self>,
                norm: FloatTensor<Self>,
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                o: FloatTensor<Self>,
                cos: FloatTensor<Self>,
                sin: FloatTensor<Self>,
                starts: IntTensor<Self>,
                sizes: Sizes,
                _recompute: bool,
            ) -> FloatTensor<Self> {
                let (tensors, rope) = ([x, norm, q, k, v, o], [cos, sin]);
                attention::Inputs::<Self> { tensors, rope, starts, sizes }.forward().0
            }

            fn feed_forward_half(
                x: FloatTensor<Self>,
                norm: FloatTensor<Self>,
                gate: FloatTensor<Self>,
                up: FloatTensor<Self>,
                down: FloatTensor<Self>,
                eps: f64,
                _recompute: bool,
            ) -> FloatTensor<Self> {
                let tensors = [x, norm, gate, up, down];
                feed_forward::Inputs::<Self> { tensors, eps }.forward().0
            }
        }
    )*};
}

implement! {
    burn::backend::Flex, feature = "flex";
    burn::backend::NdArray, feature = "ndarray";
    burn::backend::LibTorch, feature = "tch";
    burn::backend::Cube, any(feature = "wgpu", feature = "cuda");
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: LayerBackend> Backward<B, 6> for AttentionBackward {
    type State = (attention::Inputs<B>, Option<attention::Kept<B>>);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        register_gradients::<B, _, _>(ops, grads, |(inputs, kept), upstream, wanted| {
            inputs.backward(kept, upstream, wanted)
        });
    }
}

#[derive(Debug)]
struct FeedForwardBackward;

impl<B: LayerBackend> Backward<B, 5> for FeedForwardBackward {
    type State = (feed_forward::Inputs<B>, Option<feed_forward::Kept<B>>);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        register_gradients::<B, _, _>(ops, grads, |(inputs, kept), upstream, wanted| {
            inputs.backward(kept, upstream, wanted)
        });
    }
}

impl<B: LayerBackend, C: CheckpointStrategy> HalfOps for Autodiff<B, C> {
    fn attention_half(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        starts: IntTensor<Self>,
        sizes: Sizes,
        recompute: bool,
    ) -> FloatTensor<Self> {
        let tensors = [x, norm, q, k, v, o];
        let nodes = std::array::from_fn(|i| tensors[i].node());
        let inputs = attention::Inputs::<B> {
            tensors: tensors.map(|tensor| tensor.into_primitive()),
            rope: [cos.into_primitive(), sin.into_primitive()],
            starts,
            sizes,
        };
        let (y, kept) = inputs.forward();
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((inputs, (!recompute).then_some(kept)), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn feed_forward_half(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        eps: f64,
        recompute: bool,
    ) -> FloatTensor<Self> {
        let tensors = [x, norm, gate, up, down];
        let nodes = std::array::from_fn(|i| tensors[i].node());
        let inputs = feed_forward::Inputs::<B> {
            tensors: tensors.map(|tensor| tensor.into_primitive()),
            eps,
        };
        let (y, kept) = inputs.forward();
        match FeedForwardBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((inputs, (!recompute).then_some(kept)), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
