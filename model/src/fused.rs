//! The linear map with a derivative of its own, which keeps of its two factors only what a gradient
//! needs: with a frozen weight nothing but the weight. Whole layers are in [`crate::blocks`] and
//! [`crate::halves`].

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::{backend::TensorMetadata, tensor::DType};
use wmtp_kernels::cast;
#[cfg(feature = "flex")]
use {
    crate::blocks::flex,
    burn::{backend::ops::FloatTensorOps, tensor::Shape},
    wmtp_gemm::{MatrixView, Precision, SKINNY_MAX_ROWS, matmul, matmul_skinny},
};

/// The operation as burn's dispatch sees it.
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
}

#[cfg(feature = "flex")]
impl LayerOps for burn::backend::Flex {
    /// Beside equal types also f32 rows with a bf16 weight: products and result are f32 then.
    fn layer_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
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
#[cfg(feature = "ndarray")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerOps for burn::backend::NdArray {}
#[cfg(feature = "tch")]
#[allow(deprecated)] // upstream deprecates it, and it still works
impl LayerOps for burn::backend::LibTorch {}
#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LayerOps for burn::backend::Cube {}

#[derive(Debug)]
struct LinearBackward;

impl<B: LayerOps> Backward<B, 2> for LinearBackward {
    /// `x` for the gradient of the weight and the reverse: a frozen side keeps nothing. And the
    /// weight's type, which on flex may be narrower than the other's.
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
                    (kept_x, kept_weight, weight.dtype()),
                    B::layer_linear(x.into_primitive(), weight.into_primitive()),
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(B::layer_linear(x.into_primitive(), weight.into_primitive())),
        }
    }
}
