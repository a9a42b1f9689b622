//! Activations that are saved for the backward pass.

use crate::simd::ELEMENTS_PER_BLOCK;
use half::bf16;
use rayon::prelude::*;
use wmtp_gemm::simd::{narrow, widen};
use wmtp_gemm::{FloatSlice, Precision};

/// Values saved for the backward pass, in the type in which its products read them.
#[derive(Debug, Clone)]
pub enum SavedActivations {
    /// Unchanged.
    F32(Vec<f32>),
    /// Rounded to the nearest even bf16.
    Bf16(Vec<bf16>),
}

impl SavedActivations {
    /// Saves `values` for products in `precision`.
    pub fn new(values: Vec<f32>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values),
            Precision::Bf16 => Self::of(&values, precision),
        }
    }

    /// Saves a copy of `values` for products in `precision`.
    pub fn of(values: &[f32], precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values.to_vec()),
            Precision::Bf16 => {
                let mut to = vec![bf16::ZERO; values.len()];
                par_narrow(values, &mut to);
                Self::Bf16(to)
            }
        }
    }

    /// The values, for a product.
    pub fn floats(&self) -> FloatSlice<'_> {
        match self {
            Self::F32(values) => FloatSlice::F32(values),
            Self::Bf16(values) => FloatSlice::Bf16(values),
        }
    }

    /// The values in f32.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => {
                let mut to = vec![0.0; values.len()];
                to.par_chunks_mut(ELEMENTS_PER_BLOCK)
                    .zip(values.par_chunks(ELEMENTS_PER_BLOCK))
                    .for_each(|(to, from)| widen(from, to));
                to
            }
        }
    }
}

/// `values` rounded to the nearest even bf16. The memory of `values` is released piecewise, from the end to
/// the front, so that peak memory is not that of both.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) fn narrow_releasing(mut values: Vec<f32>) -> Vec<bf16> {
    /// 8 MiB of f32, the most that exists in both types at a time.
    const AT_A_TIME: usize = 1 << 21;
    let mut to = vec![bf16::ZERO; values.len()];
    while !values.is_empty() {
        let start = (values.len() - 1) / AT_A_TIME * AT_A_TIME;
        par_narrow(&values[start..], &mut to[start..values.len()]);
        values.truncate(start);
        values.shrink_to_fit();
    }
    to
}

fn par_narrow(from: &[f32], to: &mut [bf16]) {
    to.par_chunks_mut(ELEMENTS_PER_BLOCK)
        .zip(from.par_chunks(ELEMENTS_PER_BLOCK))
        .for_each(|(to, from)| narrow(from, to));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At every 1201st f32, across several pieces.
    #[test]
    fn releasing_the_memory_changes_no_value() {
        let values: Vec<f32> = (0..u32::MAX).step_by(1201).map(f32::from_bits).collect();
        let mut expected = vec![bf16::ZERO; values.len()];
        narrow(&values, &mut expected);
        assert!(
            narrow_releasing(values)
                .iter()
                .map(|x| x.to_bits())
                .eq(expected.iter().map(|x| x.to_bits()))
        );
    }
}
