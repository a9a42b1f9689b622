//! The two sublayers as one node each of burn's graph: how they reach the backends through burn's
//! dispatch, and their rule for autodiff.
#![allow(clippy::too_many_arguments)] // burn's dispatch takes tensors one by one

use super::execution::Execution;
use super::operations::Operations;
use super::sublayer::{self, SavedAttention, SublayerOps};
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
use std::fmt::Debug;
use wmtp_kernels::SavedActivations;
use wmtp_kernels::attention::AttentionBackend;
use wmtp_kernels::register_gradients;
use wmtp_kernels::{rms_norm::RmsNormBackend, rotary::RotaryBackend, swiglu::SwigluBackend};

/// The sublayers of a decoder layer as burn's dispatch sees them.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait DecoderOps: Backend {
    /// `x` `[N, D]` plus attention; weights as in [`crate::DecoderLayer`].
    fn attention_sublayer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        #[extension_type] execution: Execution<Self>,
    ) -> FloatTensor<Self>;

    /// `x` `[N, D]` plus the MLP.
    fn mlp_sublayer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        #[extension_type] execution: Execution<Self>,
    ) -> FloatTensor<Self>;
}

/// What a sublayer saves for its backward pass, on slices or as tensors.
#[derive(Debug, Clone)]
pub enum Saved<S, O> {
    /// By [`super::slices`].
    Slices(S),
    /// By [`super::operations`].
    Operations(O),
}

impl<S, O> Saved<S, O> {
    pub(super) fn slices(self) -> Option<S> {
        match self {
            Self::Slices(saved) => Some(saved),
            Self::Operations(_) => None,
        }
    }

    fn operations(self) -> Option<O> {
        match self {
            Self::Operations(saved) => Some(saved),
            Self::Slices(_) => None,
        }
    }
}

/// Queries, keys and values, and the output of attention.
pub type AttentionSaved<B> = Saved<(SavedActivations, SavedActivations), SavedAttention<Operations<B>>>;
/// Gate and up.
pub type MlpSaved<B> = Saved<([SavedActivations; 2], usize), <Operations<B> as SublayerOps>::GateUp>;

/// What a backend without autodiff provides: both sublayers with what they save, and their gradients as
/// requested. Inputs in the order of [`DecoderOps`]. By default in the backend's own operations.
pub trait LayerBackend: RmsNormBackend + RotaryBackend + AttentionBackend + SwigluBackend {
    /// The attention sublayer.
    fn attention_forward(
        inputs: &[FloatTensor<Self>; 6],
        execution: &Execution<Self>,
    ) -> (FloatTensor<Self>, AttentionSaved<Self>) {
        execution.operations().attention_forward(inputs)
    }

    /// Its gradients.
    fn attention_backward(
        inputs: &[FloatTensor<Self>; 6],
        saved: Option<AttentionSaved<Self>>,
        upstream: FloatTensor<Self>,
        requested: [bool; 6],
        execution: &Execution<Self>,
    ) -> [Option<FloatTensor<Self>>; 6] {
        execution
            .operations()
            .attention_backward(inputs, saved, upstream, requested)
    }

    /// The MLP sublayer.
    fn mlp_forward(
        inputs: &[FloatTensor<Self>; 5],
        execution: &Execution<Self>,
        save: bool,
    ) -> (FloatTensor<Self>, Option<MlpSaved<Self>>) {
        execution.operations().mlp_forward(inputs, save)
    }

    /// Its gradients.
    fn mlp_backward(
        inputs: &[FloatTensor<Self>; 5],
        saved: Option<MlpSaved<Self>>,
        upstream: FloatTensor<Self>,
        requested: [bool; 5],
        execution: &Execution<Self>,
    ) -> [Option<FloatTensor<Self>>; 5] {
        execution.operations().mlp_backward(inputs, saved, upstream, requested)
    }
}

impl<B: LayerBackend> Operations<B> {
    pub(super) fn attention_forward(
        &self,
        [x, norm, weights @ ..]: &[FloatTensor<B>; 6],
    ) -> (FloatTensor<B>, AttentionSaved<B>) {
        let (y, saved) = sublayer::attention(self, x, norm, weights);
        (y, Saved::Operations(saved))
    }

    pub(super) fn attention_backward(
        &self,
        [x, norm, weights @ ..]: &[FloatTensor<B>; 6],
        saved: Option<AttentionSaved<B>>,
        upstream: FloatTensor<B>,
        [_, _, of_weights @ ..]: [bool; 6],
    ) -> [Option<FloatTensor<B>>; 6] {
        let saved = saved.and_then(Saved::operations);
        let found = sublayer::attention_backward(self, x, norm, weights, saved, &upstream, of_weights);
        let [q, k, v, o] = found.weights;
        [Some(found.x), Some(found.norm), q, k, v, o]
    }

    pub(super) fn mlp_forward(
        &self,
        [x, norm, weights @ ..]: &[FloatTensor<B>; 5],
        save: bool,
    ) -> (FloatTensor<B>, Option<MlpSaved<B>>) {
        let (y, saved) = sublayer::mlp(self, x, norm, weights, save);
        (y, saved.map(Saved::Operations))
    }

    pub(super) fn mlp_backward(
        &self,
        [x, norm, weights @ ..]: &[FloatTensor<B>; 5],
        saved: Option<MlpSaved<B>>,
        upstream: FloatTensor<B>,
        [_, _, of_weights @ ..]: [bool; 5],
    ) -> [Option<FloatTensor<B>>; 5] {
        let saved = saved.and_then(Saved::operations);
        let found = sublayer::mlp_backward(self, x, norm, weights, saved, &upstream, of_weights);
        let [gate, up, down] = found.weights;
        [Some(found.x), Some(found.norm), gate, up, down]
    }
}

/// A sublayer as a node of the graph.
trait Sublayer<B: Backend, const N: usize>: Debug + Send + 'static {
    type Saved: Clone + Debug + Send + 'static;

    /// The result and, if `save`, what backward needs in addition to the inputs.
    fn forward(
        inputs: &[FloatTensor<B>; N],
        execution: &Execution<B>,
        save: bool,
    ) -> (FloatTensor<B>, Option<Self::Saved>);

    /// The requested gradients of the inputs.
    fn backward(
        state: State<B, Self::Saved, N>,
        upstream: FloatTensor<B>,
        requested: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// What waits for the backward pass.
#[derive(Debug, Clone)]
struct State<B: Backend, S, const N: usize> {
    inputs: [FloatTensor<B>; N],
    saved: Option<S>,
    execution: Execution<B>,
}

#[derive(Debug)]
struct Attention;

impl<B: LayerBackend> Sublayer<B, 6> for Attention {
    type Saved = AttentionSaved<B>;

    fn forward(
        inputs: &[FloatTensor<B>; 6],
        execution: &Execution<B>,
        save: bool,
    ) -> (FloatTensor<B>, Option<Self::Saved>) {
        let (y, saved) = B::attention_forward(inputs, execution);
        (y, save.then_some(saved))
    }

    fn backward(
        state: State<B, Self::Saved, 6>,
        upstream: FloatTensor<B>,
        requested: [bool; 6],
    ) -> [Option<FloatTensor<B>>; 6] {
        B::attention_backward(&state.inputs, state.saved, upstream, requested, &state.execution)
    }
}

#[derive(Debug)]
struct Mlp;

impl<B: LayerBackend> Sublayer<B, 5> for Mlp {
    type Saved = MlpSaved<B>;

    fn forward(
        inputs: &[FloatTensor<B>; 5],
        execution: &Execution<B>,
        save: bool,
    ) -> (FloatTensor<B>, Option<Self::Saved>) {
        B::mlp_forward(inputs, execution, save)
    }

    fn backward(
        state: State<B, Self::Saved, 5>,
        upstream: FloatTensor<B>,
        requested: [bool; 5],
    ) -> [Option<FloatTensor<B>>; 5] {
        B::mlp_backward(&state.inputs, state.saved, upstream, requested, &state.execution)
    }
}

#[derive(Debug)]
struct Node<S>(S);

impl<B: Backend, S: Sublayer<B, N>, const N: usize> Backward<B, N> for Node<S> {
    type State = State<B, S::Saved, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        register_gradients::<B, _, _>(ops, grads, S::backward);
    }
}

/// A sublayer on an autodiff backend, recorded in the graph where an input is tracked.
fn recorded<B: Backend, C: CheckpointStrategy, S: Sublayer<B, N>, const N: usize>(
    sublayer: S,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    execution: Execution<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = std::array::from_fn(|i| inputs[i].node());
    let inputs = inputs.map(|input| input.into_primitive());
    let execution = execution.inner();
    match Node(sublayer).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, saved) = S::forward(&inputs, &execution, !execution.recompute());
            let state = State {
                inputs,
                saved,
                execution,
            };
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(S::forward(&inputs, &execution, false).0),
    }
}

impl<B: LayerBackend, C: CheckpointStrategy> DecoderOps for Autodiff<B, C> {
    fn attention_sublayer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        execution: Execution<Self>,
    ) -> FloatTensor<Self> {
        recorded::<B, C, _, 6>(Attention, [x, norm, q, k, v, o], execution)
    }

    fn mlp_sublayer(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        execution: Execution<Self>,
    ) -> FloatTensor<Self> {
        recorded::<B, C, _, 5>(Mlp, [x, norm, gate, up, down], execution)
    }
}

/// The sublayers of a backend without autodiff: nothing is saved.
macro_rules! implement {
    ($($backend:ty, $feature:meta);* $(;)?) => {$(
        #[cfg($feature)]
        #[allow(deprecated)] // upstream deprecates ndarray and tch, and they still work
        impl DecoderOps for $backend {
            fn attention_sublayer(
                x: FloatTensor<Self>,
                norm: FloatTensor<Self>,
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                o: FloatTensor<Self>,
                execution: Execution<Self>,
            ) -> FloatTensor<Self> {
                Self::attention_forward(&[x, norm, q, k, v, o], &execution).0
            }

            fn mlp_sublayer(
                x: FloatTensor<Self>,
                norm: FloatTensor<Self>,
                gate: FloatTensor<Self>,
                up: FloatTensor<Self>,
                down: FloatTensor<Self>,
                execution: Execution<Self>,
            ) -> FloatTensor<Self> {
                Self::mlp_forward(&[x, norm, gate, up, down], &execution, false).0
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

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerBackend for burn::backend::NdArray {}
#[cfg(feature = "tch")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerBackend for burn::backend::LibTorch {}
#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LayerBackend for burn::backend::Cube {}
