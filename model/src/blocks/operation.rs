//! How the two halves reach flex through burn's dispatch, and their rule for autodiff.

use super::Plan;
use super::half::{Attention, FeedForward, Kept};
use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use std::sync::Arc;

/// The halves of a decoder layer as burn's dispatch sees them; only flex has them.
#[backend_extension(Autodiff, Flex: cfg(feature = "flex"))]
pub trait BlockOps: Backend {
    /// `x` `[N, D]` plus attention; weights as in [`crate::DecoderLayer`].
    fn attention_block(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        plan: Arc<Plan>,
    ) -> FloatTensor<Self>;

    /// `x` `[N, D]` plus the feed-forward block.
    fn feed_forward_block(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        plan: Arc<Plan>,
    ) -> FloatTensor<Self>;
}

/// What a backend provides: both halves with what they keep, and their gradients. Inputs in the
/// order of [`BlockOps`].
pub trait HostBlocks: Backend {
    /// The attention half.
    fn attention_half(inputs: &[FloatTensor<Self>; 6], plan: &Plan) -> (FloatTensor<Self>, Kept);

    /// Its gradients, as wanted.
    fn attention_gradients(
        inputs: &[FloatTensor<Self>; 6],
        kept: Option<Kept>,
        upstream: FloatTensor<Self>,
        wanted: [bool; 6],
        plan: &Plan,
    ) -> [Option<FloatTensor<Self>>; 6];

    /// The feed-forward half.
    fn feed_forward(inputs: &[FloatTensor<Self>; 5], plan: &Plan, keep: bool) -> (FloatTensor<Self>, Option<Kept>);

    /// Its gradients, as wanted.
    fn feed_forward_gradients(
        inputs: &[FloatTensor<Self>; 5],
        kept: Option<Kept>,
        upstream: FloatTensor<Self>,
        wanted: [bool; 5],
        plan: &Plan,
    ) -> [Option<FloatTensor<Self>>; 5];
}

/// What waits for the backward pass.
#[derive(Debug, Clone)]
struct State<B: Backend, const N: usize> {
    inputs: [FloatTensor<B>; N],
    kept: Option<Kept>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: HostBlocks> Backward<B, 6> for AttentionBackward {
    type State = State<B, 6>;

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let State { inputs, kept, plan } = ops.state;
        let wanted = std::array::from_fn(|i| ops.parents[i].is_some());
        let found = B::attention_gradients(&inputs, kept, upstream, wanted, &plan);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct FeedForwardBackward;

impl<B: HostBlocks> Backward<B, 5> for FeedForwardBackward {
    type State = State<B, 5>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let State { inputs, kept, plan } = ops.state;
        let wanted = std::array::from_fn(|i| ops.parents[i].is_some());
        let found = B::feed_forward_gradients(&inputs, kept, upstream, wanted, &plan);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: HostBlocks, C: CheckpointStrategy> BlockOps for Autodiff<B, C> {
    fn attention_block(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        plan: Arc<Plan>,
    ) -> FloatTensor<Self> {
        let inputs = [x, norm, q, k, v, o];
        let nodes = std::array::from_fn(|i| inputs[i].node());
        let inputs = inputs.map(|input| input.into_primitive());
        let (y, kept) = B::attention_half(&inputs, &plan);
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept = (!plan.recompute).then_some(kept);
                prep.finish(State { inputs, kept, plan }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn feed_forward_block(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        plan: Arc<Plan>,
    ) -> FloatTensor<Self> {
        let inputs = [x, norm, gate, up, down];
        let nodes = std::array::from_fn(|i| inputs[i].node());
        let inputs = inputs.map(|input| input.into_primitive());
        match FeedForwardBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (y, kept) = B::feed_forward(&inputs, &plan, !plan.recompute);
                prep.finish(State { inputs, kept, plan }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::feed_forward(&inputs, &plan, false).0),
        }
    }
}

#[cfg(feature = "flex")]
mod flex {
    use super::*;
    use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
    use burn::tensor::{Shape, TensorData};

    impl BlockOps for Flex {
        fn attention_block(
            x: FlexTensor,
            norm: FlexTensor,
            q: FlexTensor,
            k: FlexTensor,
            v: FlexTensor,
            o: FlexTensor,
            plan: Arc<Plan>,
        ) -> FlexTensor {
            Self::attention_half(&[x, norm, q, k, v, o], &plan).0
        }

        fn feed_forward_block(
            x: FlexTensor,
            norm: FlexTensor,
            gate: FlexTensor,
            up: FlexTensor,
            down: FlexTensor,
            plan: Arc<Plan>,
        ) -> FlexTensor {
            Self::feed_forward(&[x, norm, gate, up, down], &plan, false).0
        }
    }

    /// The tensors with their values one after another, f32.
    fn dense<const N: usize>(tensors: &[FlexTensor; N]) -> [FlexTensor; N] {
        std::array::from_fn(|i| tensors[i].to_contiguous())
    }

    /// Values of a dense tensor.
    fn values(tensor: &FlexTensor) -> &[f32] {
        let start = tensor.layout().start_offset();
        &tensor.storage::<f32>()[start..start + tensor.shape().num_elements()]
    }

    fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, shape))
    }

    fn attention_of(inputs: &[FlexTensor; 6]) -> Attention<'_> {
        Attention {
            norm: values(&inputs[1]),
            q: values(&inputs[2]),
            k: values(&inputs[3]),
            v: values(&inputs[4]),
            o: values(&inputs[5]),
        }
    }

    fn feed_forward_of(inputs: &[FlexTensor; 5]) -> FeedForward<'_> {
        FeedForward {
            norm: values(&inputs[1]),
            gate: values(&inputs[2]),
            up: values(&inputs[3]),
            down: values(&inputs[4]),
        }
    }

    /// The wanted gradients as tensors of their inputs' shapes.
    fn tensors<const N: usize>(
        inputs: &[FlexTensor; N],
        mut found: [Option<Vec<f32>>; N],
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        std::array::from_fn(|i| {
            let values = found[i].take().filter(|_| wanted[i])?;
            Some(tensor(values, inputs[i].shape()))
        })
    }

    impl HostBlocks for Flex {
        fn attention_half(inputs: &[FlexTensor; 6], plan: &Plan) -> (FlexTensor, Kept) {
            let dense = dense(inputs);
            let (y, kept) = attention_of(&dense).forward(values(&dense[0]), plan);
            (tensor(y, inputs[0].shape()), kept)
        }

        fn attention_gradients(
            inputs: &[FlexTensor; 6],
            kept: Option<Kept>,
            upstream: FlexTensor,
            wanted: [bool; 6],
            plan: &Plan,
        ) -> [Option<FlexTensor>; 6] {
            let (dense, upstream) = (dense(inputs), upstream.to_contiguous());
            let matrices = [wanted[2], wanted[3], wanted[4], wanted[5]];
            let half = attention_of(&dense);
            let found = half.backward(values(&dense[0]), kept, values(&upstream), matrices, plan);
            let [q, k, v, o] = found.matrices;
            tensors(inputs, [Some(found.x), Some(found.norm), q, k, v, o], wanted)
        }

        fn feed_forward(inputs: &[FlexTensor; 5], plan: &Plan, keep: bool) -> (FlexTensor, Option<Kept>) {
            let dense = dense(inputs);
            let (y, kept) = feed_forward_of(&dense).forward(values(&dense[0]), plan, keep);
            (tensor(y, inputs[0].shape()), kept)
        }

        fn feed_forward_gradients(
            inputs: &[FlexTensor; 5],
            kept: Option<Kept>,
            upstream: FlexTensor,
            wanted: [bool; 5],
            plan: &Plan,
        ) -> [Option<FlexTensor>; 5] {
            let (dense, upstream) = (dense(inputs), upstream.to_contiguous());
            let matrices = [wanted[2], wanted[3], wanted[4]];
            let half = feed_forward_of(&dense);
            let found = half.backward(values(&dense[0]), kept, values(&upstream), matrices, plan);
            let [gate, up, down] = found.matrices;
            tensors(inputs, [Some(found.x), Some(found.norm), gate, up, down], wanted)
        }
    }
}
