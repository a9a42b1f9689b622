//! Operations with derivatives of their own, so that training keeps few activations.
//!
//! Left to autodiff, a decoder layer would keep every intermediate of softmax, SiLU and RMSNorm. Each
//! operation here keeps its inputs only and computes the rest again in the backward pass, which costs
//! one extra score product and some element-wise work a layer. Written in the backends' own
//! operations: the same code runs on all of them.

use burn::backend::{
    Autodiff, Backend, TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{DType, FloatDType, Shape};

/// The operations as burn's dispatch sees them; [`crate::ops`] gives shapes.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait LayerOps: Backend {
    /// `x` `[N, in]` times the transpose of `weight` `[out, in]`.
    fn layer_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(x, Self::float_transpose(weight))
    }

    /// RMSNorm of the rows of `x` `[N, D]`.
    fn layer_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let dtype = x.dtype();
        let (normal, _) = normalised::<Self>(x, eps);
        Self::float_mul(cast::<Self>(normal, dtype), row::<Self>(weight))
    }

    /// `silu(gate) * up` times the transpose of `weight` `[out, in]`.
    fn layer_swiglu_linear(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let silu = Self::float_mul(gate.clone(), Self::sigmoid(gate));
        Self::layer_linear(Self::float_mul(silu, up), weight)
    }

    /// Softmax attention of scaled queries under an additive bias.
    fn layer_attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        seq: usize,
    ) -> FloatTensor<Self> {
        let shares = shares::<Self>(q, k, bias, seq);
        Self::float_matmul(shares, v)
    }
}

#[cfg(feature = "flex")]
impl LayerOps for burn::backend::Flex {}
#[cfg(feature = "ndarray")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerOps for burn::backend::NdArray {}
#[cfg(feature = "tch")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerOps for burn::backend::LibTorch {}
#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LayerOps for burn::backend::Cube {}

/// f64 stays f64; everything else is summed in f32.
fn statistics(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype {
        x
    } else {
        B::float_cast(x, FloatDType::from(dtype))
    }
}

/// A vector `[D]` as `[1, D]`.
fn row<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape().num_elements();
    B::float_reshape(x, Shape::from([1, d]))
}

/// The rows of `x` over their root mean square, and one over it `[N, 1]`, both in the statistics' type.
fn normalised<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let wide = cast::<B>(x.clone(), statistics(x.dtype()));
    let mean = B::float_mean_dim(B::float_mul(wide.clone(), wide.clone()), 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    (B::float_mul(wide, scale.clone()), scale)
}

/// Softmax over keys `[B, K, G * S, T]` of `q` `[B, K, G * S, W]` and `k` `[B, K, T, W]` under
/// `bias` `[B or 1, 1, 1, S, T]`.
fn shares<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, bias: FloatTensor<B>, seq: usize) -> FloatTensor<B> {
    let dtype = q.dtype();
    let scores = B::float_matmul(q, B::float_swap_dims(k, 2, 3));
    let flat = scores.shape();
    let [batch, heads, rows, columns] = flat.dims();
    let grouped = Shape::from([batch, heads, rows / seq, seq, columns]);
    let scores = B::float_add(B::float_reshape(scores, grouped), bias);
    let shares = B::softmax(cast::<B>(scores, statistics(dtype)), 4);
    B::float_reshape(cast::<B>(shares, dtype), flat)
}

/// What an operation kept for its backward pass, in the order of its inputs.
type Kept<const N: usize> = [NodeId; N];

/// Gives back the tensors that an operation kept.
fn recall<B: Backend, const N: usize>(checkpointer: &mut Checkpointer, kept: Kept<N>) -> [FloatTensor<B>; N] {
    kept.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node))
}

#[derive(Debug)]
struct LinearBackward;

impl<B: LayerOps> Backward<B, 2> for LinearBackward {
    /// `x` for the gradient of the weight and the reverse: a frozen side keeps nothing.
    type State = (Option<NodeId>, Option<NodeId>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [x_node, weight_node] = ops.parents;
        let (x, weight) = ops.state;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let [weight] = recall::<B, 1>(checkpointer, [weight]);
            grads.register::<B>(node.id, B::float_matmul(upstream.clone(), weight));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let [x] = recall::<B, 1>(checkpointer, [x]);
            grads.register::<B>(node.id, B::float_matmul(B::float_transpose(upstream), x));
        }
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: LayerOps> Backward<B, 2> for RmsNormBackward {
    type State = (Kept<2>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [x_node, weight_node] = ops.parents;
        let (kept, eps) = ops.state;
        let [x, weight] = recall::<B, 2>(checkpointer, kept);
        let (dtype, wide) = (x.dtype(), statistics(x.dtype()));
        let upstream = cast::<B>(upstream, wide);
        let (normal, scale) = normalised::<B>(x, eps);
        if let Some(node) = weight_node {
            let shape = weight.shape();
            let sum = B::float_sum_dim(B::float_mul(upstream.clone(), normal.clone()), 0);
            grads.register::<B>(node.id, cast::<B>(B::float_reshape(sum, shape), weight.dtype()));
        }
        if let Some(node) = x_node {
            // With n = x / rms and u = weight * upstream: dx = (u - n * mean(u * n)) / rms.
            let inner = B::float_mul(upstream, row::<B>(cast::<B>(weight, wide)));
            let along = B::float_mean_dim(B::float_mul(inner.clone(), normal.clone()), 1);
            let dx = B::float_mul(B::float_sub(inner, B::float_mul(normal, along)), scale);
            grads.register::<B>(node.id, cast::<B>(dx, dtype));
        }
    }
}

#[derive(Debug)]
struct SwigluLinearBackward;

impl<B: LayerOps> Backward<B, 3> for SwigluLinearBackward {
    type State = Kept<3>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [gate_node, up_node, weight_node] = ops.parents;
        let [gate, up, weight] = recall::<B, 3>(checkpointer, ops.state);
        let sigmoid = B::sigmoid(gate.clone());
        let silu = B::float_mul(gate.clone(), sigmoid.clone());
        if let Some(node) = weight_node {
            let product = B::float_mul(silu.clone(), up.clone());
            let gradient = B::float_matmul(B::float_transpose(upstream.clone()), product);
            grads.register::<B>(node.id, gradient);
        }
        if gate_node.is_none() && up_node.is_none() {
            return;
        }
        let inner = B::float_matmul(upstream, weight);
        if let Some(node) = gate_node {
            // d silu / d gate = s + silu * (1 - s), s the sigmoid.
            let rest = B::float_add_scalar(B::float_neg(sigmoid.clone()), 1.0.into());
            let slope = B::float_add(B::float_mul(silu.clone(), rest), sigmoid);
            grads.register::<B>(node.id, B::float_mul(B::float_mul(inner.clone(), up), slope));
        }
        if let Some(node) = up_node {
            grads.register::<B>(node.id, B::float_mul(inner, silu));
        }
    }
}

#[derive(Debug)]
struct AttendBackward;

impl<B: LayerOps> Backward<B, 3> for AttendBackward {
    type State = (Kept<3>, FloatTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [q_node, k_node, v_node] = ops.parents;
        let (kept, bias, seq) = ops.state;
        let [q, k, v] = recall::<B, 3>(checkpointer, kept);
        let shares = shares::<B>(q.clone(), k.clone(), bias, seq);
        if let Some(node) = v_node {
            let turned = B::float_swap_dims(shares.clone(), 2, 3);
            grads.register::<B>(node.id, B::float_matmul(turned, upstream.clone()));
        }
        if q_node.is_none() && k_node.is_none() {
            return;
        }
        // Softmax: d scores = p * (d p - sum over keys of p * d p).
        let weighted = B::float_mul(B::float_matmul(upstream, B::float_swap_dims(v, 2, 3)), shares.clone());
        let total = B::float_sum_dim(weighted.clone(), 3);
        let d_scores = B::float_sub(weighted, B::float_mul(shares, total));
        if let Some(node) = k_node {
            let turned = B::float_swap_dims(d_scores.clone(), 2, 3);
            grads.register::<B>(node.id, B::float_matmul(turned, q));
        }
        if let Some(node) = q_node {
            grads.register::<B>(node.id, B::float_matmul(d_scores, k));
        }
    }
}

impl<B: LayerOps, C: CheckpointStrategy> LayerOps for Autodiff<B, C> {
    fn layer_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        match LinearBackward
            .prepare::<C>([x.node(), weight.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let kept_x = weight_tracked.then(|| prep.checkpoint(&x));
                let kept_weight = x_tracked.then(|| prep.checkpoint(&weight));
                prep.finish(
                    (kept_x, kept_weight),
                    B::layer_linear(x.into_primitive(), weight.into_primitive()),
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(B::layer_linear(x.into_primitive(), weight.into_primitive())),
        }
    }

    fn layer_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        match RmsNormBackward
            .prepare::<C>([x.node(), weight.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let kept = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                prep.finish(
                    (kept, eps),
                    B::layer_rms_norm(x.into_primitive(), weight.into_primitive(), eps),
                )
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::layer_rms_norm(x.into_primitive(), weight.into_primitive(), eps))
            }
        }
    }

    fn layer_swiglu_linear(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node(), weight.node()];
        let run = |gate: FloatTensor<Self>, up: FloatTensor<Self>, weight: FloatTensor<Self>| {
            B::layer_swiglu_linear(gate.into_primitive(), up.into_primitive(), weight.into_primitive())
        };
        match SwigluLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let kept = [prep.checkpoint(&gate), prep.checkpoint(&up), prep.checkpoint(&weight)];
                prep.finish(kept, run(gate, up, weight))
            }
            OpsKind::UnTracked(prep) => prep.finish(run(gate, up, weight)),
        }
    }

    fn layer_attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        seq: usize,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), k.node(), v.node()];
        let bias = bias.into_primitive();
        let run = |q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, bias: FloatTensor<B>| {
            B::layer_attend(q.into_primitive(), k.into_primitive(), v.into_primitive(), bias, seq)
        };
        match AttendBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let kept = [prep.checkpoint(&q), prep.checkpoint(&k), prep.checkpoint(&v)];
                prep.finish((kept, bias.clone(), seq), run(q, k, v, bias))
            }
            OpsKind::UnTracked(prep) => prep.finish(run(q, k, v, bias)),
        }
    }
}
