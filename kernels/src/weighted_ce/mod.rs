//! The weighted cross-entropy of a linear layer, without its logits.
//!
//! With `hidden` X `[N, D]`, `unembedding` W `[V, D]`, `targets` y `[N]` and `weights` w `[N]`,
//!
//! ```text
//! ce_i = log sum_v exp(x_i . w_v) - x_i . w_{y_i}        nats
//! loss = sum over kept rows i of  w_i * ce_i
//! dX_i = w_i * (softmax(W x_i) - onehot(y_i)) W          dW = sum_i w_i * (softmax(W x_i) - onehot(y_i)) x_i^T
//! ```
//!
//! A row is *kept* when its target is not negative and its weight is not zero; all other rows are dropped
//! before the first product and cost nothing, and their values do not matter.
//!
//! # How
//!
//! The loss is a scalar, so its gradients are known in the forward pass up to one factor, the upstream
//! gradient. Kept rows are processed in chunks: the logits of the chunk, log-sum-exp and cross-entropy per
//! row; then the same buffer becomes `w * (softmax - onehot)` in place and is multiplied into dX and dW at
//! once. Only one chunk of logits exists at a time: 256 rows, fewer where the vocabulary is so large that
//! they would take more than 48 MiB. With all scratch memory that is under 64 MB at D = 576, V = 49152,
//! whatever N (`tests/memory.rs`). The backward pass is a multiplication by a scalar. Gradients that are not
//! requested (frozen unembedding, detached hidden states, no autodiff) are not computed.
//!
//! On flex, f32 stores no logits but their exponentials, relative to the maximum of their part of the row,
//! computed while the logits are in the cache; with products in bf16 ([`Accuracy::factors`]) the exponentials
//! are stored in bf16, and 512 rows take as much memory as 256. (Where dW is bf16 too, the lower bits of its sums take a
//! byte an element more: 28 MB.) On a processor with tiles, bf16 stores nothing of `[V, N]` and computes the logits twice, of up to 5,120
//! rows at once. With [`Accuracy::filter`] the elements of a
//! chunk's gradient that are too small to matter individually enter dX and dW as a matrix of rank one, their
//! row sums times their column sums, if that changes the chunk's gradient of the logits by at most this share
//! (Frobenius norm). Otherwise, as with flat distributions, all elements of the chunk are computed. On
//! SmolLM2-135M's hidden states a filter of 1e-3 changed dX by 6.5e-4 and dW by 1.8e-4 (`benches/peers/run.py
//! --ce`).
//!
//! Each tracked call keeps its dW `[V, D]` until its backward pass. So that memory does not grow with the
//! number of prediction heads, either run `backward` for one head before the next one's forward pass, or pass
//! all heads' rows in one call, `[H * N, D]`: the result is the same sum.
//!
//! # Where
//!
//! | backend | form |
//! |---|---|
//! | flex | slices, `wmtp-gemm` and rayon, in f32 (f16 and bf16 through f32) |
//! | CubeCL (wgpu, cuda) | the same chunks: burn's products and two kernels on the logits, stored in the hidden states' type |
//! | ndarray, libtorch; f64 on all | the same chunks in the backend's own operations, logits cast to f32 (f64 stays f64) |
//!
//! Log-sum-exp and all sums are computed in f32 or better; dW is accumulated in f32 (f64 for f64; where its result is
//! bf16, chunks of rows are added in 24 bits). On flex no
//! result in f32 or bf16 depends on the number of threads or on their timing. `loss` and `ce` are f32, or f64
//! when the hidden states are.
//!
//! # Speed
//!
//! `cargo bench -p wmtp-benches --bench weighted_ce` measures it against
//! [`weighted_linear_cross_entropy_plain`] in the same run; its header holds what was expected and what was
//! measured.
//!
//! # Sources
//!
//! Gloeckle et al. 2024, arXiv 2404.19737, section 2: sequential heads, so that only one head's logits exist.
//! Hsu et al. 2024, Liger Kernel, arXiv 2410.10989: gradients in the forward pass, chunk by chunk, logits
//! overwritten by their gradient. Wijmans et al. 2024, Cut your losses, arXiv 2411.09009: logits need not be
//! materialised, and skipping rows pays off.

mod backend;
mod chunked;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "cube")]
pub mod cube_kernels;
#[cfg(feature = "flex")]
mod flex;
mod rows;

use crate::Precision;
use backend::{Inputs, WeightedCrossEntropyOps};
use burn::backend::Dispatch;
use burn::tensor::{DType, Int, Tensor, activation::log_softmax};

/// The accuracy of the operation on flex; elsewhere the tensors' types decide, and nothing is filtered. The
/// default computes everything in the tensors' type.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// The factors of the products.
    pub factors: Precision,
    /// The type of the unembedding's gradient, after it has been summed in more bits.
    pub gradient: Precision,
    /// Relative error that the gradient may have because small probabilities are summed instead of multiplied
    /// individually (see the [module](self)); 0 computes them all, as does f64.
    pub filter: f64,
}

/// What [`weighted_linear_cross_entropy`] returns.
#[derive(Debug, Clone)]
pub struct WeightedCrossEntropy {
    /// `[1]`: the sum of `weights[i] * ce[i]` over kept rows, in nats. Differentiable with respect
    /// to the hidden states and the unembedding; the weights are constants. Zero when no row is kept.
    pub loss: Tensor<1>,
    /// `[N]`: cross-entropy of each row in nats, 0 where the row was skipped. Carries no gradient.
    pub ce: Tensor<1>,
}

/// Weighted sum of the cross-entropies of `hidden * unembedding^T` against `targets`; see the
/// [module](self) for the formulas and for what it costs.
///
/// * `hidden`: `[N, D]`
/// * `unembedding`: `[V, D]`, of the same float type
/// * `targets`: `[N]`, ids below V; a negative one means that the row is skipped
/// * `weights`: `[N]`, any float type; a row of weight 0 is skipped
///
/// A NaN in a kept row, or in its weight, reaches `loss` and that row's `ce`.
///
/// # Panics
/// If the shapes or the float types of `hidden` and `unembedding` do not fit together, or if a kept
/// row's target is V or more.
pub fn weighted_linear_cross_entropy(
    hidden: Tensor<2>,
    unembedding: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> WeightedCrossEntropy {
    weighted_linear_cross_entropy_in(Accuracy::default(), hidden, unembedding, targets, weights)
}

/// [`weighted_linear_cross_entropy`] with the rounding and the filter of `accuracy` on flex; cross-entropies
/// and sums stay those of f32 logits. On flex the unembedding may also be bf16 with hidden states in f32: it
/// is read without a copy, and its gradient is bf16.
///
/// # Panics
/// As [`weighted_linear_cross_entropy`].
pub fn weighted_linear_cross_entropy_in(
    accuracy: Accuracy,
    hidden: Tensor<2>,
    unembedding: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> WeightedCrossEntropy {
    check_arguments(&hidden, &unembedding, &targets, &weights);
    let inputs = Inputs {
        hidden: hidden.into_dispatch(),
        unembedding: unembedding.into_dispatch(),
        targets: targets.into_dispatch(),
        weights: weights.into_dispatch(),
    };
    let (loss, ce) = Dispatch::weighted_linear_cross_entropy(inputs, accuracy);
    WeightedCrossEntropy {
        loss: Tensor::from_dispatch(loss),
        ce: Tensor::from_dispatch(ce),
    }
}

/// Panics with the offending shapes or types.
fn check_arguments(hidden: &Tensor<2>, unembedding: &Tensor<2>, targets: &Tensor<1, Int>, weights: &Tensor<1>) {
    let ([n, d], [v, d_unembedding]) = (hidden.dims(), unembedding.dims());
    let ([n_targets], [n_weights]) = (targets.dims(), weights.dims());
    assert!(
        d == d_unembedding,
        "weighted_linear_cross_entropy: hidden [{n}, {d}] and unembedding [{v}, {d_unembedding}] differ in their last dimension"
    );
    assert!(
        n == n_targets && n == n_weights,
        "weighted_linear_cross_entropy: hidden has {n} rows but there are {n_targets} targets and {n_weights} weights"
    );
    assert!(
        d > 0 && v > 0,
        "weighted_linear_cross_entropy: the unembedding [{v}, {d}] is empty"
    );
    let mixed = hidden.dtype() == DType::F32 && unembedding.dtype() == DType::BF16;
    assert!(
        mixed || hidden.dtype() == unembedding.dtype(),
        "weighted_linear_cross_entropy: hidden is {:?} but unembedding is {:?}",
        hidden.dtype(),
        unembedding.dtype()
    );
}

/// [`weighted_linear_cross_entropy`] without a fused operation: all logits at once, burn's own operations and
/// autodiff. The reference of tests and benches; nothing in training calls it. It keeps several tensors of
/// `[N, V]` until its backward pass, and skipped rows are computed and multiplied by zero: their non-finite
/// values show.
///
/// # Panics
/// As [`weighted_linear_cross_entropy`], on shapes and types.
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
