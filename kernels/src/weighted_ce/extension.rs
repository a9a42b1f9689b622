//! How the operation reaches the backends: burn's dispatch, the rule for autodiff, and the choice
//! between the slice-level form and the one in the backend's own operations.

use super::chunked;
use crate::Accuracy;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType};

/// The operation as burn's dispatch sees it; shapes as in
/// [`weighted_linear_cross_entropy`](super::weighted_linear_cross_entropy).
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait WeightedCrossEntropyOps: Backend {
    /// The loss `[1]` and the cross-entropies `[N]`.
    fn weighted_linear_cross_entropy(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Which gradients are to be computed along with the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// dX `[N, D]`.
    pub hidden: bool,
    /// dW `[V, D]`.
    pub unembedding: bool,
}

impl Wanted {
    /// The loss alone.
    pub const NOTHING: Self = Self {
        hidden: false,
        unembedding: false,
    };
}

/// The loss and, where wanted, its gradients, all f32 (f64 if the hidden states are f64).
#[derive(Debug)]
pub struct LossAndGradients<B: Backend> {
    /// `[1]`
    pub loss: FloatTensor<B>,
    /// `[N]`
    pub ce: FloatTensor<B>,
    /// dX `[N, D]`, if wanted.
    pub d_hidden: Option<FloatTensor<B>>,
    /// dW `[V, D]`, if wanted.
    pub d_unembedding: Option<FloatTensor<B>>,
}

/// What a backend without autodiff provides.
pub trait LossBackend: Backend {
    /// The loss, the cross-entropies and the wanted gradients for an upstream gradient of one.
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        wanted: Wanted,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // What these backends multiply in follows from their tensors' type.
        let _ = accuracy;
        chunked::loss_and_gradients::<Self>(hidden, unembedding, targets, weights, wanted)
    }

    /// `gradient` `[R, C]` times `upstream` `[1]`.
    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        chunked::scale::<Self>(gradient, upstream)
    }
}

macro_rules! implement {
    ($condition:meta, $backend:path, { $($body:tt)* }) => {
        #[$condition]
        #[allow(deprecated)] // ndarray and libtorch are deprecated upstream and still work
        impl LossBackend for $backend { $($body)* }

        #[$condition]
        #[allow(deprecated)]
        impl WeightedCrossEntropyOps for $backend {
            fn weighted_linear_cross_entropy(
                hidden: FloatTensor<Self>,
                unembedding: FloatTensor<Self>,
                targets: IntTensor<Self>,
                weights: FloatTensor<Self>,
                accuracy: Accuracy,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let found = Self::loss_and_gradients(hidden, unembedding, targets, weights, Wanted::NOTHING, accuracy);
                (found.loss, found.ce)
            }
        }
    };
}

implement!(cfg(feature = "tch"), burn::backend::LibTorch, {});
implement!(cfg(any(feature = "wgpu", feature = "cuda")), burn::backend::Cube, {
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        wanted: Wanted,
        _accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        // What this backend multiplies in follows from its tensors' type.
        super::cube::loss_and_gradients(hidden, unembedding, targets, weights, wanted)
    }
});
implement!(cfg(feature = "flex"), burn::backend::Flex, {
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        wanted: Wanted,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        on_host::flex(hidden, unembedding, targets, weights, (wanted, accuracy))
    }

    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        on_host::scale::<Self>(gradient, upstream)
    }
});
implement!(cfg(feature = "ndarray"), burn::backend::NdArray, {
    fn loss_and_gradients(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        wanted: Wanted,
        accuracy: Accuracy,
    ) -> LossAndGradients<Self> {
        on_host::ndarray(hidden, unembedding, targets, weights, (wanted, accuracy))
    }

    fn scale(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        on_host::scale::<Self>(gradient, upstream)
    }
});

/// The gradients that the forward pass left, and the types of the tensors that they belong to.
#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    gradients: [Option<FloatTensor<B>>; 2],
    dtypes: [DType; 2],
}

#[derive(Debug)]
struct WeightedCrossEntropyBackward;

impl<B: LossBackend> Backward<B, 2> for WeightedCrossEntropyBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let Saved { gradients, dtypes } = ops.state;
        for ((parent, gradient), dtype) in ops.parents.into_iter().zip(gradients).zip(dtypes) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                let scaled = B::scale(gradient, upstream.clone());
                // A gradient that was rounded on purpose is not made wide again.
                let rounded = scaled.dtype() == DType::BF16 && dtype == DType::F32;
                let scaled = if rounded { scaled } else { cast::<B>(scaled, dtype) };
                grads.register::<B>(parent.id, scaled);
            }
        }
    }
}

impl<B: LossBackend, C: CheckpointStrategy> WeightedCrossEntropyOps for Autodiff<B, C> {
    fn weighted_linear_cross_entropy(
        hidden: FloatTensor<Self>,
        unembedding: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        accuracy: Accuracy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let wanted = Wanted {
            hidden: hidden.is_tracked(),
            unembedding: unembedding.is_tracked(),
        };
        let dtypes = [hidden.dtype(), unembedding.dtype()];
        let (hidden, hidden_node) = hidden.into_parts();
        let (unembedding, unembedding_node) = unembedding.into_parts();
        let weights = weights.into_primitive();
        let found = B::loss_and_gradients(hidden, unembedding, targets, weights, wanted, accuracy);
        let operation = WeightedCrossEntropyBackward
            .prepare::<C>([hidden_node, unembedding_node])
            .compute_bound()
            .stateful();
        let loss = match operation {
            OpsKind::Tracked(operation) => {
                let gradients = [found.d_hidden, found.d_unembedding];
                operation.finish(Saved { gradients, dtypes }, found.loss)
            }
            OpsKind::UnTracked(operation) => operation.finish(found.loss),
        };
        (loss, <Self as AutodiffBackend>::from_inner(found.ce))
    }
}

/// `tensor` as `dtype`; itself where it is that already.
pub(super) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, FloatDType::from(dtype))
    }
}

/// Getting at the memory of the two backends that live in host memory.
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod on_host {
    use super::super::chunked::{read_floats, read_rows};
    use super::super::host::{self, Matrix, Real, Table};
    use super::super::rows::KeptRow;
    use super::*;
    use crate::Precision;
    use crate::host::rounded_away;
    use wmtp_gemm::{FloatSlice, MatrixView};
    use burn::tensor::TensorData;

    /// Reads the upstream gradient, and leaves the multiplication out when it is exactly one.
    pub(super) fn scale<B: Backend>(gradient: FloatTensor<B>, upstream: FloatTensor<B>) -> FloatTensor<B> {
        match read_floats::<B>(upstream).iter::<f64>().next() {
            Some(factor) if factor != 1.0 => B::float_mul_scalar(gradient, factor.into()),
            _ => gradient,
        }
    }

    /// Runs the slice-level form and hands its vectors over as tensors, without copying them.
    fn run<B: Backend, T: Real>(
        hidden: Matrix<'_, T>,
        unembedding: Table<'_, T>,
        rows: &[KeptRow],
        (wanted, accuracy): (Wanted, Accuracy),
        device: &B::Device,
    ) -> LossAndGradients<B> {
        let (n, d, v) = (hidden.rows(), hidden.columns(), unembedding.rows());
        let found = host::loss_and_gradients(hidden, unembedding, rows, wanted, accuracy);
        let matrix = |values: Vec<T>, rows: usize| B::float_from_data(TensorData::new(values, [rows, d]), device);
        LossAndGradients {
            loss: B::float_from_data(TensorData::new(vec![found.loss], [1]), device),
            ce: B::float_from_data(TensorData::new(found.ce, [n]), device),
            d_hidden: found.d_hidden.map(|values| matrix(values, n)),
            d_unembedding: found.d_unembedding.map(|values| matrix(values, v)),
        }
    }

    #[cfg(feature = "flex")]
    pub(super) fn flex(
        hidden: FloatTensor<burn::backend::Flex>,
        unembedding: FloatTensor<burn::backend::Flex>,
        targets: IntTensor<burn::backend::Flex>,
        weights: FloatTensor<burn::backend::Flex>,
        how: (Wanted, Accuracy),
    ) -> LossAndGradients<burn::backend::Flex> {
        use burn::backend::{Flex, flex::FlexTensor};

        /// A view of the storage in place; flipped tensors (negative strides) are copied before.
        macro_rules! view {
            ($tensor:ident, $t:ty) => {{
                let layout = $tensor.layout();
                let shape = layout.shape();
                Matrix::strided(
                    &$tensor.storage::<$t>()[layout.start_offset()..],
                    [shape[0], shape[1]],
                    [layout.strides()[0] as usize, layout.strides()[1] as usize],
                )
            }};
        }
        fn without_flips(tensor: FlexTensor) -> FlexTensor {
            if tensor.layout().strides().iter().any(|stride| *stride < 0) {
                tensor.to_contiguous()
            } else {
                tensor
            }
        }

        let device = hidden.device();
        let vocabulary = unembedding.shape()[0];
        let rows = read_rows::<Flex>(targets, weights, vocabulary);
        let (hidden, unembedding) = (without_flips(hidden), without_flips(unembedding));
        if hidden.dtype() == DType::F64 {
            let (hidden, unembedding) = (view!(hidden, f64), view!(unembedding, f64));
            return run::<Flex, f64>(hidden, Table::Same(unembedding), &rows, how, &device);
        }
        let hidden = cast::<Flex>(hidden, DType::F32);
        let hidden = view!(hidden, f32);
        let mut found = if unembedding.dtype() == DType::BF16 {
            let layout = unembedding.layout();
            let (shape, strides) = (layout.shape(), layout.strides());
            let values = FloatSlice::Bf16(&unembedding.storage()[layout.start_offset()..]);
            let strides = [strides[0] as usize, strides[1] as usize];
            let table = Table::Bf16(MatrixView::strided(values, [shape[0], shape[1]], strides));
            run::<Flex, f32>(hidden, table, &rows, how, &device)
        } else {
            let unembedding = cast::<Flex>(unembedding, DType::F32);
            let unembedding = view!(unembedding, f32);
            run::<Flex, f32>(hidden, Table::Same(unembedding), &rows, how, &device)
        };
        if how.1.gradient == Precision::Bf16 {
            found.d_unembedding = found.d_unembedding.map(|gradient| {
                let shape = gradient.shape();
                let values = gradient.into_data().try_into_vec::<f32>();
                // `run` has made it of f32.
                let values = values.unwrap_or_else(|error| unreachable!("a gradient in f32: {error:?}"));
                FlexTensor::from_data(TensorData::new(rounded_away(values), shape))
            });
        }
        found
    }

    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    pub(super) fn ndarray(
        hidden: FloatTensor<burn::backend::NdArray>,
        unembedding: FloatTensor<burn::backend::NdArray>,
        targets: IntTensor<burn::backend::NdArray>,
        weights: FloatTensor<burn::backend::NdArray>,
        how: (Wanted, Accuracy),
    ) -> LossAndGradients<burn::backend::NdArray> {
        use burn::backend::{NdArray, ndarray::NdArrayTensor};

        /// A view of the storage where it is in row-major order, else of a copy that is.
        macro_rules! run {
            ($hidden:ident, $unembedding:ident, $t:ty, $rows:expr, $device:expr) => {{
                let (hidden, unembedding) = ($hidden.view(), $unembedding.view());
                let hidden = hidden.as_standard_layout();
                let unembedding = unembedding.as_standard_layout();
                let (h, u) = (hidden.shape(), unembedding.shape());
                run::<NdArray, $t>(
                    Matrix::row_major(hidden.as_slice().unwrap_or_default(), [h[0], h[1]]),
                    Table::Same(Matrix::row_major(
                        unembedding.as_slice().unwrap_or_default(),
                        [u[0], u[1]],
                    )),
                    $rows,
                    how,
                    $device,
                )
            }};
        }

        let device = hidden.device();
        let vocabulary = unembedding.shape()[0];
        let rows = read_rows::<NdArray>(targets, weights, vocabulary);
        match (hidden, unembedding) {
            (NdArrayTensor::F32(hidden), NdArrayTensor::F32(unembedding)) => {
                run!(hidden, unembedding, f32, &rows, &device)
            }
            (NdArrayTensor::F64(hidden), NdArrayTensor::F64(unembedding)) => {
                run!(hidden, unembedding, f64, &rows, &device)
            }
            (hidden, unembedding) => unreachable!(
                "ndarray floats are f32 or f64 and both of one type, not {:?} and {:?}",
                hidden.dtype(),
                unembedding.dtype()
            ),
        }
    }
}
