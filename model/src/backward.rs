//! The end of every backward rule: the gradients go to the parents that asked for one.

use burn::backend::{
    Backend,
    autodiff::{grads::Gradients, ops::Ops},
    tensor::FloatTensor,
};

/// Consumes the node's upstream gradient, asks `rule` for the gradients of the parents and registers
/// them. `rule` gets the operation's state, the upstream gradient and, for each parent, whether its
/// gradient is wanted; what it returns for a parent that is not tracked is dropped.
pub(crate) fn register<B: Backend, S, const N: usize>(
    ops: Ops<S, N>,
    grads: &mut Gradients,
    rule: impl FnOnce(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N],
) {
    let upstream = grads.consume::<B>(&ops.node);
    let wanted = std::array::from_fn(|i| ops.parents[i].is_some());
    let found = rule(ops.state, upstream, wanted);
    for (parent, gradient) in ops.parents.into_iter().zip(found) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            grads.register::<B>(parent.id, gradient);
        }
    }
}
