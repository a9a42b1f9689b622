//! The two sublayers as one node each of burn's graph: how they reach the backends through burn's
//! dispatch, and their rule for autodiff.

use super::execution::Execution;
use super::operations::Operations;
#[cfg(feature = "flex")]
use super::slices::Slices;
use super::sublayer::{Attention, LinearMap, Mlp, Parameters, Requested, Sublayer};
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use wmtp_kernels::attention::AttentionBackend;
use wmtp_kernels::{dispatched, implement_everywhere, implement_except_flex, register_gradients};
use wmtp_kernels::{rms_norm::RmsNormBackend, rotary::RotaryBackend, swiglu::SwigluBackend};

/// A sublayer's inputs: the residual stream, and the parameters with its L linear maps.
#[derive(Debug, Clone)]
pub struct Inputs<B: Backend, const L: usize> {
    /// `[N, D]`.
    pub x: FloatTensor<B>,
    /// `[D]`.
    pub norm: FloatTensor<B>,
    /// `[out, in]` each.
    pub matrices: [FloatTensor<B>; L],
    /// `[out]` each, of the maps that have one.
    pub biases: [Option<FloatTensor<B>>; L],
    /// `[W]` each: norms of the heads of queries and keys, both or none.
    pub head_norms: [Option<FloatTensor<B>>; 2],
}

/// Linear maps of queries, keys, values and output.
pub type AttentionInputs<B> = Inputs<B, 4>;
/// Linear maps of gate, up and down.
pub type MlpInputs<B> = Inputs<B, 3>;

impl<B: Backend, const L: usize> Inputs<B, L> {
    /// The same with each tensor replaced.
    pub fn map<T: Backend>(self, replaced: impl Fn(FloatTensor<B>) -> FloatTensor<T>) -> Inputs<T, L> {
        Inputs {
            x: replaced(self.x),
            norm: replaced(self.norm),
            matrices: self.matrices.map(&replaced),
            biases: self.biases.map(|bias| bias.map(&replaced)),
            head_norms: self.head_norms.map(|norm| norm.map(&replaced)),
        }
    }

    /// Biases, head norms, stream, norm and matrices.
    pub fn in_order(&self) -> impl Iterator<Item = Option<&FloatTensor<B>>> {
        let others = [&self.x, &self.norm].into_iter().chain(&self.matrices);
        let optional = self.biases.iter().chain(&self.head_norms);
        optional.map(Option::as_ref).chain(others.map(Some))
    }

    /// The parameters for sublayers in the backend's own operations.
    fn parameters(&self) -> Parameters<'_, Operations<B>, L>
    where
        B: LayerBackend,
    {
        Parameters {
            norm: &self.norm,
            head_norms: both(self.head_norms.each_ref().map(Option::as_ref)),
            maps: std::array::from_fn(|i| LinearMap {
                matrix: &self.matrices[i],
                bias: self.biases[i].as_ref(),
            }),
        }
    }
}

/// Both of two values, or none.
pub(super) fn both<T>([a, b]: [Option<T>; 2]) -> Option<[T; 2]> {
    Some([a?, b?])
}

/// What burn derives for structs without arrays.
impl<B: Backend, const L: usize> ExtensionType<B> for Inputs<B, L> {
    type Target = Inputs<Dispatch, L>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        self.map(|tensor| DispatchTensor {
            kind: map_kind(BackendTensor::Float(tensor)),
            autodiff,
        })
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        target.map(|tensor| unwrap_kind(tensor).float())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.x)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.x)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let tensors = target.in_order().flatten();
        tensors.fold(DispatchAutodiffContext::Disabled, |context, tensor| {
            context.merge(tensor.autodiff)
        })
    }
}

dispatched! { Autodiff:
    /// The sublayers of a decoder layer as burn's dispatch sees them.
    pub trait DecoderOps: Backend {
        /// `x` plus attention.
        fn attention_sublayer(
            #[extension_type] inputs: AttentionInputs<Self>,
            #[extension_type] execution: Execution<Self>,
        ) -> FloatTensor<Self>;

        /// `x` plus the MLP.
        fn mlp_sublayer(
            #[extension_type] inputs: MlpInputs<Self>,
            #[extension_type] execution: Execution<Self>,
        ) -> FloatTensor<Self>;
    }
}

/// What a sublayer saves for its backward pass.
#[derive(Debug, Clone)]
pub enum Saved<B: LayerBackend, S: Sublayer<L>, const L: usize> {
    /// On slices in host memory.
    #[cfg(feature = "flex")]
    Slices(S::Saved<Slices>),
    /// As tensors.
    Operations(S::Saved<Operations<B>>),
}

impl<B: LayerBackend, S: Sublayer<L>, const L: usize> Saved<B, S, L> {
    #[cfg(feature = "flex")]
    pub(super) fn slices(self) -> Option<S::Saved<Slices>> {
        match self {
            Self::Slices(saved) => Some(saved),
            Self::Operations(_) => None,
        }
    }

    fn operations(self) -> Option<S::Saved<Operations<B>>> {
        match self {
            Self::Operations(saved) => Some(saved),
            #[cfg(feature = "flex")]
            Self::Slices(_) => None,
        }
    }
}

/// What a backend without autodiff provides: a sublayer with what it saves, and its requested gradients. By
/// default in the backend's own operations.
pub trait LayerBackend: RmsNormBackend + RotaryBackend + AttentionBackend + SwigluBackend {
    /// The result and, if `save`, what backward needs in addition to the inputs.
    fn sublayer_forward<S: Sublayer<L>, const L: usize>(
        inputs: &Inputs<Self, L>,
        execution: &Execution<Self>,
        save: bool,
    ) -> (FloatTensor<Self>, Option<Saved<Self, S, L>>) {
        execution.operations().forward(inputs, save)
    }

    /// The gradients of the inputs in the order of [`Inputs::in_order`], those of linear maps as requested.
    fn sublayer_backward<S: Sublayer<L>, const L: usize>(
        inputs: &Inputs<Self, L>,
        saved: Option<Saved<Self, S, L>>,
        upstream: FloatTensor<Self>,
        requested: [Requested; L],
        execution: &Execution<Self>,
    ) -> Vec<Option<FloatTensor<Self>>> {
        execution.operations().backward(inputs, saved, upstream, requested)
    }
}

impl<B: LayerBackend> Operations<B> {
    pub(super) fn forward<S: Sublayer<L>, const L: usize>(
        &self,
        inputs: &Inputs<B, L>,
        save: bool,
    ) -> (FloatTensor<B>, Option<Saved<B, S, L>>) {
        let (y, saved) = S::forward(self, &inputs.x, &inputs.parameters(), save);
        (y, saved.map(Saved::Operations))
    }

    pub(super) fn backward<S: Sublayer<L>, const L: usize>(
        &self,
        inputs: &Inputs<B, L>,
        saved: Option<Saved<B, S, L>>,
        upstream: FloatTensor<B>,
        requested: [Requested; L],
    ) -> Vec<Option<FloatTensor<B>>> {
        let saved = saved.and_then(Saved::operations);
        let found = S::backward(self, &inputs.x, &inputs.parameters(), saved, &upstream, requested);
        found.in_order(|x| x, |vector| vector, |matrix| matrix)
    }
}

/// What waits for the backward pass.
#[derive(Debug, Clone)]
struct State<B: LayerBackend, S: Sublayer<L>, const L: usize> {
    inputs: Inputs<B, L>,
    saved: Option<Saved<B, S, L>>,
    execution: Execution<B>,
}

/// A sublayer as a node of the graph with P = 2 L + 4 parents: its inputs in their order, and `x` in the
/// place of a bias or head norm that there is none of, which gets no gradient for it.
#[derive(Debug)]
struct Node<S, const L: usize>(S);

impl<B: LayerBackend, S: Sublayer<L>, const L: usize, const P: usize> Backward<B, P> for Node<S, L> {
    type State = State<B, S, L>;

    fn backward(self, ops: Ops<Self::State, P>, grads: &mut Gradients, _: &mut Checkpointer) {
        register_gradients::<B, _, P>(ops, grads, |state, upstream, needed| {
            let requested = std::array::from_fn(|i| Requested {
                matrix: needed[L + 4 + i],
                bias: needed[i] && state.inputs.biases[i].is_some(),
            });
            let found = B::sublayer_backward::<S, L>(&state.inputs, state.saved, upstream, requested, &state.execution);
            let mut found = found.into_iter();
            std::array::from_fn(|_| found.next().flatten())
        });
    }
}

/// A sublayer on an autodiff backend, recorded in the graph where an input is tracked.
fn recorded<B: LayerBackend, C: CheckpointStrategy, S: Sublayer<L>, const L: usize, const P: usize>(
    sublayer: S,
    inputs: Inputs<Autodiff<B, C>, L>,
    execution: Execution<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let mut parents = inputs.in_order();
    let nodes = std::array::from_fn::<_, P, _>(|_| parents.next().flatten().unwrap_or(&inputs.x).node());
    drop(parents);
    let inputs = inputs.map(|input| input.into_primitive());
    let execution = execution.inner();
    match Node::<S, L>(sublayer).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, saved) = B::sublayer_forward::<S, L>(&inputs, &execution, !execution.recompute());
            let state = State {
                inputs,
                saved,
                execution,
            };
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::sublayer_forward::<S, L>(&inputs, &execution, false).0),
    }
}

impl<B: LayerBackend, C: CheckpointStrategy> DecoderOps for Autodiff<B, C> {
    fn attention_sublayer(inputs: AttentionInputs<Self>, execution: Execution<Self>) -> FloatTensor<Self> {
        recorded::<B, C, _, 4, 12>(Attention, inputs, execution)
    }

    fn mlp_sublayer(inputs: MlpInputs<Self>, execution: Execution<Self>) -> FloatTensor<Self> {
        recorded::<B, C, _, 3, 10>(Mlp, inputs, execution)
    }
}

implement_except_flex!(LayerBackend, {});
implement_everywhere!(DecoderOps, {
    fn attention_sublayer(inputs: AttentionInputs<Self>, execution: Execution<Self>) -> FloatTensor<Self> {
        Self::sublayer_forward::<Attention, 4>(&inputs, &execution, false).0
    }

    fn mlp_sublayer(inputs: MlpInputs<Self>, execution: Execution<Self>) -> FloatTensor<Self> {
        Self::sublayer_forward::<Mlp, 3>(&inputs, &execution, false).0
    }
});
