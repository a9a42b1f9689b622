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
use wmtp_kernels::register_gradients;

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
        register_gradients::<B, _, _>(ops, grads, |state, upstream, wanted| {
            B::attention_gradients(&state.inputs, state.kept, upstream, wanted, &state.plan)
        });
    }
}

#[derive(Debug)]
struct FeedForwardBackward;

impl<B: HostBlocks> Backward<B, 5> for FeedForwardBackward {
    type State = State<B, 5>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        register_gradients::<B, _, _>(ops, grads, |state, upstream, wanted| {
            B::feed_forward_gradients(&state.inputs, state.kept, upstream, wanted, &state.plan)
        });
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
pub(crate) mod flex {
    use super::super::half::Gradients as HalfGradients;
    use super::*;
    use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
    use burn::tensor::{DType, Shape, TensorData};
    use wmtp_gemm::{FloatSlice, Precision};
    use wmtp_kernels::SavedActivations;

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

    /// The tensors with their values one after another.
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

    /// The values of a norm's weight in f32.
    fn norm(tensor: &FlexTensor) -> Vec<f32> {
        let weight = weight(tensor);
        (0..weight.len()).map(|i| weight.at(i)).collect()
    }

    pub(crate) fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, shape))
    }

    fn stored(values: SavedActivations, shape: Shape) -> FlexTensor {
        match values {
            SavedActivations::F32(values) => tensor(values, shape),
            SavedActivations::Bf16(values) => FlexTensor::from_data(TensorData::new(values, shape)),
        }
    }

    fn attention_of<'a>(inputs: &'a [FlexTensor; 6], norm: &'a [f32]) -> Attention<'a> {
        Attention {
            norm,
            q: weight(&inputs[2]),
            k: weight(&inputs[3]),
            v: weight(&inputs[4]),
            o: weight(&inputs[5]),
        }
    }

    fn feed_forward_of<'a>(inputs: &'a [FlexTensor; 5], norm: &'a [f32]) -> FeedForward<'a> {
        FeedForward {
            norm,
            gate: weight(&inputs[2]),
            up: weight(&inputs[3]),
            down: weight(&inputs[4]),
        }
    }

    /// The wanted gradients as tensors of their inputs' shapes: of the rows in f32, of the norm in its
    /// own type, of the matrices as they are.
    fn tensors<const N: usize, const M: usize>(
        inputs: &[FlexTensor; N],
        found: HalfGradients<M>,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        let as_norm = match inputs[1].dtype() {
            DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        };
        let vectors = [
            SavedActivations::F32(found.x),
            SavedActivations::new(found.norm, as_norm),
        ]
        .map(Some);
        let mut all = vectors.into_iter().chain(found.matrices);
        std::array::from_fn(|i| {
            let values = all.next().flatten().filter(|_| wanted[i])?;
            Some(stored(values, inputs[i].shape()))
        })
    }

    impl HostBlocks for Flex {
        fn attention_half(inputs: &[FlexTensor; 6], plan: &Plan) -> (FlexTensor, Kept) {
            let dense = dense(inputs);
            let norm = norm(&dense[1]);
            let (y, kept) = attention_of(&dense, &norm).forward(values(&dense[0]), plan);
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
            let norm = norm(&dense[1]);
            let half = attention_of(&dense, &norm);
            let found = half.backward(values(&dense[0]), kept, values(&upstream), matrices, plan);
            tensors(inputs, found, wanted)
        }

        fn feed_forward(inputs: &[FlexTensor; 5], plan: &Plan, keep: bool) -> (FlexTensor, Option<Kept>) {
            let dense = dense(inputs);
            let norm = norm(&dense[1]);
            let (y, kept) = feed_forward_of(&dense, &norm).forward(values(&dense[0]), plan, keep);
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
            let norm = norm(&dense[1]);
            let half = feed_forward_of(&dense, &norm);
            let found = half.backward(values(&dense[0]), kept, values(&upstream), matrices, plan);
            tensors(inputs, found, wanted)
        }
    }
}
