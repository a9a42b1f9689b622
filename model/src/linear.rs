//! Linear maps and norms, the two kinds of weights.
//!
//! The linear map has a derivative of its own, which saves of its two factors only what a gradient
//! needs: with a frozen weight nothing but the weight. Whole layers are in [`crate::decoder`].

use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use wmtp_kernels::{cast, dispatched, implement_except_flex, rms_norm::rms_norm};
#[cfg(feature = "flex")]
use {
    crate::flex,
    burn::{backend::ops::FloatTensorOps, tensor::Shape},
    wmtp_gemm::{MatrixView, Precision, SKINNY_MAX_ROWS, matmul, matmul_skinny},
};

/// A linear map.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Maps the rows of `x` `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = linear(x, self.weight.val());
        match &self.bias {
            Some(bias) => {
                let bias = bias.val().cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }
}

/// Root-mean-square norm.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(weight: Param<Tensor<1>>, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// Normalises the rows of `x` `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().cast(x.dtype());
        rms_norm(x, weight, self.eps)
    }
}

/// `x` `[N, in]` times the transpose of `weight` `[out, in]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::linear_map(x.into_dispatch(), weight.into_dispatch()))
}

dispatched! { Autodiff:
    /// The linear map as burn's dispatch sees it.
    pub trait LinearOps: Backend {
        /// `x` `[N, in]` times the transpose of `weight` `[out, in]`.
        fn linear_map(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::float_matmul(x, Self::float_transpose(weight))
        }
    }
}

#[cfg(feature = "flex")]
impl LinearOps for burn::backend::Flex {
    /// Accepts f32 rows with a bf16 weight in addition to equal types: products and result are f32 then.
    fn linear_map(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.dtype() != DType::F32 || !matches!(weight.dtype(), DType::F32 | DType::BF16) {
            return Self::float_matmul(x, Self::float_transpose(weight));
        }
        let [x, weight] = flex::dense(&[x, weight]);
        let (rows, matrix) = (flex::values(&x), flex::weight(&weight));
        let (n, out, inner) = (x.shape()[0], weight.shape()[0], weight.shape()[1]);
        let mut to = vec![0.0; n * out];
        if n <= SKINNY_MAX_ROWS {
            matmul_skinny(&mut to, rows, matrix, [n, out, inner]);
        } else {
            let matrix = MatrixView::strided(matrix, [out, inner], [inner, 1]).transposed();
            matmul(
                &mut to,
                out,
                false,
                MatrixView::row_major(rows, [n, inner]),
                matrix,
                Precision::F32,
            );
        }
        flex::tensor(to, Shape::new([n, out]))
    }
}

implement_except_flex!(LinearOps, {});

#[derive(Debug)]
struct LinearBackward;

impl<B: LinearOps> Backward<B, 2> for LinearBackward {
    /// `x` for the gradient of the weight and the reverse: a frozen side saves nothing. And the
    /// weight's type, which on flex may be narrower than that of `x`.
    type State = (Option<NodeId>, Option<NodeId>, DType);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [x_node, weight_node] = ops.parents;
        let (x, weight, dtype) = ops.state;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight);
            let weight = cast::<B>(weight, upstream.dtype());
            grads.register::<B>(node.id, B::float_matmul(upstream.clone(), weight));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
            let gradient = B::float_matmul(B::float_transpose(upstream), x);
            grads.register::<B>(node.id, cast::<B>(gradient, dtype));
        }
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn linear_map(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        match LinearBackward
            .prepare::<C>([x.node(), weight.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let saved_x = weight_tracked.then(|| prep.checkpoint(&x));
                let saved_weight = x_tracked.then(|| prep.checkpoint(&weight));
                prep.finish(
                    (saved_x, saved_weight, weight.dtype()),
                    B::linear_map(x.into_primitive(), weight.into_primitive()),
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(B::linear_map(x.into_primitive(), weight.into_primitive())),
        }
    }
}
