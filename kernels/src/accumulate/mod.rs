//! Gradients added up over micro-batches: `total + new`, in f32 (f64 for f64) whatever the two hold.
//!
//! On flex the buffer of a total in f32 is overwritten in one pass where nothing else refers to it;
//! elsewhere the backend's own operations.

use crate::backends::{cast, implement_beside_flex, wide};
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

/// The sum of two tensors of one shape, outside of autodiff. The total is consumed so that its memory
/// can be used again; a clone that is kept keeps the old values.
///
/// # Panics
/// If the shapes differ.
pub fn accumulate<const D: usize>(total: Tensor<D>, new: Tensor<D>) -> Tensor<D> {
    let (old, fresh) = (total.dims(), new.dims());
    assert!(
        old == fresh,
        "accumulate: the total is {old:?} and what is added {fresh:?}"
    );
    Tensor::from_dispatch(Dispatch::accumulate(total.into_dispatch(), new.into_dispatch()))
}

/// The operation as burn's dispatch sees it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait AccumulateOps: Backend {
    /// See [`accumulate`].
    fn accumulate(total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self>;
}

implement_beside_flex!(AccumulateOps, {
    fn accumulate(total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::<Self>(total, new)
    }
});

fn plain<B: Backend>(total: FloatTensor<B>, new: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = wide(total.dtype());
    B::float_add(cast::<B>(total, dtype), cast::<B>(new, dtype))
}

#[cfg(feature = "flex")]
impl AccumulateOps for burn::backend::Flex {
    fn accumulate(mut total: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self> {
        use wmtp_gemm::FloatSlice;
        use burn::tensor::DType;

        let is_slice = |dtype: DType| matches!(dtype, DType::F32 | DType::BF16);
        if !is_slice(total.dtype()) || !is_slice(new.dtype()) {
            return plain::<Self>(total, new);
        }
        total = cast::<Self>(total, DType::F32);
        let whole = total.shape().num_elements() * total.dtype().size();
        if !(total.is_contiguous() && total.bytes().len() == whole) {
            total = total.to_contiguous();
        }
        let new = new.to_contiguous();
        let start = new.layout().start_offset();
        let range = start..start + new.shape().num_elements();
        let values = match new.dtype() {
            DType::BF16 => FloatSlice::Bf16(&new.storage()[range]),
            _ => FloatSlice::F32(&new.storage()[range]),
        };
        crate::host::accumulate::add(total.storage_mut(), values);
        total
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    #[test]
    fn every_pair_of_types_adds_up_in_f32_and_leaves_a_kept_clone_alone() {
        let device = Device::flex();
        let tensor = |values: Vec<f64>, dtype: DType| {
            let data = TensorData::new(values, [2, 20_000]).convert_dtype(dtype);
            Tensor::<2>::from_data(data, (&device, dtype))
        };
        let read = |tensor: Tensor<2>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
        let old: Vec<f64> = (0..40_000).map(|i| f64::from(i % 97)).collect();
        let new: Vec<f64> = (0..40_000).map(|i| f64::from(i % 89) / 64.0).collect();
        let expected: Vec<f64> = old.iter().zip(&new).map(|(a, b)| a + b).collect();
        for total in [DType::F32, DType::BF16, DType::F64] {
            for fresh in [DType::F32, DType::BF16] {
                let total = tensor(old.clone(), total);
                let kept = total.clone();
                let sum = accumulate(total, tensor(new.clone(), fresh));
                assert_ne!(sum.dtype(), DType::BF16);
                assert_eq!(read(sum), expected);
                assert_eq!(read(kept), old);
            }
        }
    }
}
