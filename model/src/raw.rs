//! Bytes of stored tensors to and from f32.

use burn::tensor::{DType, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

/// The float type in which weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveDtype {
    /// 4 bytes; a model computing in f32 comes back bit for bit.
    #[default]
    F32,
    /// 2 bytes, IEEE half precision.
    F16,
    /// 2 bytes, the upper half of an f32.
    Bf16,
}

impl SaveDtype {
    /// The type that keeps every bit of weights held in `dtype`; f32 for f64 and what is not a float.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::F16 => Self::F16,
            DType::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub(crate) fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The same type among safetensors' own, where weights can have it.
    pub(crate) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Little-endian bytes as f32 values; exact. Bytes that do not fill a value are left out.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f16::from_le_bytes(*b).to_f32())
                .collect(),
            Self::Bf16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| bf16::from_le_bytes(*b).to_f32())
                .collect(),
        }
    }

    /// Whether a finite value would be rounded to infinity.
    pub(crate) fn overflows(self, values: &[f32]) -> bool {
        let infinite = |value: f32| match self {
            Self::F32 => false,
            Self::F16 => f16::from_f32(value).is_infinite(),
            Self::Bf16 => bf16::from_f32(value).is_infinite(),
        };
        values.iter().any(|value| value.is_finite() && infinite(*value))
    }

    /// Values as little-endian bytes, rounded to nearest even.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}

/// The values of float tensor data as f32.
pub(crate) fn to_f32(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_round_to_nearest_even() {
        // 1 + 2^-8 lies between two bf16 values, the even one is 1; 1 + 3 * 2^-8 goes up to 1 + 2^-6.
        let bytes = SaveDtype::Bf16.encode(&[1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8)]);
        assert_eq!(bytes, [0x80, 0x3f, 0x82, 0x3f]);
        assert_eq!(SaveDtype::Bf16.decode(&bytes), [1.0, 1.0 + 2f32.powi(-6)]);
        assert_eq!(SaveDtype::F16.encode(&[65504.0]), [0xff, 0x7b]);
        assert_eq!(SaveDtype::F16.decode(&[0x00, 0x3c]), [1.0]);
    }

    #[test]
    fn values_that_would_become_infinite_are_found() {
        // 65504 is f16's largest value; 65520 lies between it and the next power of two, which it lacks.
        assert!(!SaveDtype::F16.overflows(&[65504.0, -65519.0, f32::INFINITY, f32::NAN]));
        assert!(SaveDtype::F16.overflows(&[0.0, -65520.0]));
        assert!(!SaveDtype::Bf16.overflows(&[3.38e38]));
        assert!(SaveDtype::Bf16.overflows(&[f32::MAX]));
        assert!(!SaveDtype::F32.overflows(&[f32::MAX]));
    }
}
