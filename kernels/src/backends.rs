//! What the operations share: the lists of backends that they are implemented for, the types that they
//! compute in, the end of a backward pass, and the memory of flex tensors.

use burn::backend::{
    Backend, TensorMetadata,
    autodiff::{grads::Gradients, ops::Ops},
    tensor::FloatTensor,
};
use burn::tensor::{DType, FloatDType};

/// The type of statistics and sums: f64 for f64, else f32.
pub fn accumulator_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `tensor` as `dtype`; itself where it has that type already.
pub fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, FloatDType::from(dtype))
    }
}

/// The end of a backward pass: consumes the node's upstream gradient, computes the parents' gradients with
/// `rule` and registers them. `rule` gets the operation's state, the upstream gradient and, for each parent,
/// whether its gradient is needed; what it returns for a parent that is not tracked is dropped.
pub fn register_gradients<B: Backend, S, const N: usize>(
    ops: Ops<S, N>,
    grads: &mut Gradients,
    rule: impl FnOnce(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N],
) {
    let upstream = grads.consume::<B>(&ops.node);
    let needed = std::array::from_fn(|i| ops.parents[i].is_some());
    let gradients = rule(ops.state, upstream, needed);
    for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            grads.register::<B>(parent.id, gradient);
        }
    }
}

/// Access to the memory of flex tensors of f32 or bf16.
#[cfg(feature = "flex")]
pub(crate) mod flex_memory {
    use burn::backend::{TensorMetadata, flex::FlexTensor};
    use burn::tensor::DType;
    use wmtp_gemm::{FloatSlice, FloatSliceMut};

    /// Whether the slices of this module exist for the type.
    pub fn is_supported(dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::BF16)
    }

    /// `tensor` where it fills its memory row-major, else such a copy. Its memory may be overwritten
    /// afterwards without a copy where nothing else refers to it; `to_contiguous` alone would share it.
    pub fn dense(tensor: FlexTensor) -> FlexTensor {
        let size = tensor.shape().num_elements() * tensor.dtype().size();
        if tensor.is_contiguous() && tensor.bytes().len() == size {
            tensor
        } else {
            tensor.to_contiguous()
        }
    }

    /// The values of a contiguous tensor.
    pub fn floats(tensor: &FlexTensor) -> FloatSlice<'_> {
        let start = tensor.layout().start_offset();
        let range = start..start + tensor.shape().num_elements();
        match tensor.dtype() {
            DType::BF16 => FloatSlice::Bf16(&tensor.storage()[range]),
            _ => FloatSlice::F32(&tensor.storage()[range]),
        }
    }

    /// The values of a [`dense`] tensor, to be overwritten.
    pub fn floats_mut(tensor: &mut FlexTensor) -> FloatSliceMut<'_> {
        match tensor.dtype() {
            DType::BF16 => FloatSliceMut::Bf16(tensor.storage_mut()),
            _ => FloatSliceMut::F32(tensor.storage_mut()),
        }
    }
}

/// A trait of operations with burn's dispatch over every compiled-in backend and, after `Autodiff:`, over
/// these with autodiff. The only list of backends next to the macros below.
#[macro_export]
macro_rules! dispatched {
    (Autodiff: $($item:tt)*) => { $crate::dispatched! { @ [Autodiff,] $($item)* } };
    (@ [$($autodiff:tt)*] $($item:tt)*) => {
        // Burn deprecates `NdArray` and `LibTorch`; both still work.
        #[allow(deprecated)]
        #[burn::backend::backend_extension(
            $($autodiff)*
            Flex: cfg(feature = "flex"),
            NdArray: cfg(feature = "ndarray"),
            LibTorch: cfg(feature = "tch"),
            Cube: cfg(any(feature = "wgpu", feature = "cuda"))
        )]
        $($item)*
    };
    ($($item:tt)*) => { $crate::dispatched! { @ [] $($item)* } };
}

/// Implements a trait with one body for ndarray and libtorch, where they are compiled in.
#[macro_export]
macro_rules! implement_except_flex_and_cube {
    ($operation:ident, $body:tt) => {
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // deprecated upstream, and it still works
        impl $operation for burn::backend::NdArray $body

        #[cfg(feature = "tch")]
        #[allow(deprecated)]
        impl $operation for burn::backend::LibTorch $body
    };
}

/// Implements a trait with one body for the compiled-in backends other than flex.
#[macro_export]
macro_rules! implement_except_flex {
    ($operation:ident, $body:tt) => {
        $crate::implement_except_flex_and_cube!($operation, $body);

        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        impl $operation for burn::backend::Cube $body
    };
}

/// Implements a trait with one body for the compiled-in backends other than CubeCL's.
#[macro_export]
macro_rules! implement_except_cube {
    ($operation:ident, $body:tt) => {
        #[cfg(feature = "flex")]
        impl $operation for burn::backend::Flex $body

        $crate::implement_except_flex_and_cube!($operation, $body);
    };
}

/// Implements a trait with one body for every compiled-in backend.
#[macro_export]
macro_rules! implement_everywhere {
    ($operation:ident, $body:tt) => {
        $crate::implement_except_cube!($operation, $body);

        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        impl $operation for burn::backend::Cube $body
    };
}
