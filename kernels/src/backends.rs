//! What the operations' plain forms share, and the lists of backends that they are implemented for.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, FloatDType};

/// The type that statistics and sums are taken in: f64 for f64, else f32.
pub(crate) fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `tensor` as `dtype`; itself where it is that already.
pub(crate) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, FloatDType::from(dtype))
    }
}

/// Implements a trait with one body for ndarray and libtorch, where they are compiled in.
macro_rules! implement_plainly {
    ($operation:ident, $body:tt) => {
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // deprecated upstream, and it still works
        impl $operation for burn::backend::NdArray $body

        #[cfg(feature = "tch")]
        #[allow(deprecated)]
        impl $operation for burn::backend::LibTorch $body
    };
}
pub(crate) use implement_plainly;

/// Implements a trait with one body for the compiled-in backends other than flex.
macro_rules! implement_beside_flex {
    ($operation:ident, $body:tt) => {
        crate::backends::implement_plainly!($operation, $body);

        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        impl $operation for burn::backend::Cube $body
    };
}
pub(crate) use implement_beside_flex;

/// Implements a trait with one body for the compiled-in backends other than CubeCL's.
macro_rules! implement_on_host {
    ($operation:ident, $body:tt) => {
        #[cfg(feature = "flex")]
        impl $operation for burn::backend::Flex $body

        crate::backends::implement_plainly!($operation, $body);
    };
}
pub(crate) use implement_on_host;

/// Implements a trait with one body for every compiled-in backend.
macro_rules! implement_everywhere {
    ($operation:ident, $body:tt) => {
        crate::backends::implement_on_host!($operation, $body);

        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        impl $operation for burn::backend::Cube $body
    };
}
pub(crate) use implement_everywhere;
