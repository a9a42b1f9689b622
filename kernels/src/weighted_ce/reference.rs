//! The same loss written plainly: all logits at once, burn's own operations and its own autodiff.
//!
//! What the fused form is tested and timed against. It keeps several tensors of `[N, V]` alive
//! until its backward pass; nothing in training calls it.

use super::{WeightedCrossEntropy, check_arguments};
use burn::tensor::{Int, Tensor, activation::log_softmax};

/// [`weighted_linear_cross_entropy`](super::weighted_linear_cross_entropy) as one would write it
/// without a fused operation; same arguments, same results, same panics on shapes, except that rows
/// that are skipped are computed and then multiplied by zero: what is not finite in them shows.
pub fn weighted_linear_cross_entropy_plain(
    hidden: Tensor<2>,
    unembedding: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> WeightedCrossEntropy {
    check_arguments(&hidden, &unembedding, &targets, &weights);
    let [n, _] = hidden.dims();
    let weights = weights.detach();
    let skipped = targets.clone().lower_elem(0).bool_or(weights.clone().equal_elem(0.0));
    let targets = targets.clamp_min(0).reshape([n, 1]);
    let logits = hidden.matmul(unembedding.transpose());
    let ce = log_softmax(logits, 1).gather(1, targets).reshape([n]).neg();
    let ce = ce.mask_fill(skipped, 0.0);
    WeightedCrossEntropy {
        loss: (ce.clone() * weights).sum(),
        ce: ce.detach(),
    }
}
