//! Values that wait for the backward pass.

use super::vectorized;
use wmtp_gemm::{FloatSlice, Precision};
use half::bf16;
use rayon::prelude::*;

/// Values that are converted at a time.
const BLOCK: usize = 1 << 14;

/// Values kept for the backward pass, in the type in which its products take them.
#[derive(Debug, Clone)]
pub enum Store {
    /// As they were.
    F32(Vec<f32>),
    /// Rounded to the nearest even bf16.
    Bf16(Vec<bf16>),
}

impl Store {
    /// Keeps `values` for products in `precision`.
    pub fn new(values: Vec<f32>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values),
            Precision::Bf16 => Self::Bf16(rounded(&values)),
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
                to.par_chunks_mut(BLOCK)
                    .zip(values.par_chunks(BLOCK))
                    .for_each(|(to, from)| widen(from, to));
                to
            }
        }
    }
}

/// `values` rounded to the nearest even bf16.
pub fn rounded(values: &[f32]) -> Vec<bf16> {
    let mut to = vec![bf16::ZERO; values.len()];
    to.par_chunks_mut(BLOCK)
        .zip(values.par_chunks(BLOCK))
        .for_each(|(to, from)| narrow(from, to));
    to
}

/// [`rounded`], giving the memory of `values` back while it goes, from the end to the front, so that
/// both are never there whole.
pub fn rounded_away(mut values: Vec<f32>) -> Vec<bf16> {
    const AT_A_TIME: usize = 1 << 21;
    let mut to = vec![bf16::ZERO; values.len()];
    while !values.is_empty() {
        let start = (values.len() - 1) / AT_A_TIME * AT_A_TIME;
        to[start..values.len()]
            .par_chunks_mut(BLOCK)
            .zip(values[start..].par_chunks(BLOCK))
            .for_each(|(to, from)| narrow(from, to));
        values.truncate(start);
        values.shrink_to_fit();
    }
    to
}

/// Rounds to the nearest even bf16; not-a-number stays so.
pub(crate) fn narrow(from: &[f32], to: &mut [bf16]) {
    vectorized(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                let bits = from.to_bits();
                let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                let quiet = (bits >> 16) | 0x40;
                *to = bf16::from_bits(if from.is_nan() { quiet } else { rounded } as u16);
            }
        },
    );
}

/// The same values in f32.
pub(crate) fn widen(from: &[bf16], to: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from_bits(u32::from(from.to_bits()) << 16);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `half`'s own conversion, at every 1201st f32.
    #[test]
    fn rounding_is_to_the_nearest_even() {
        let values: Vec<f32> = (0..u32::MAX).step_by(1201).map(f32::from_bits).collect();
        let rounded = rounded(&values);
        for (value, rounded) in values.iter().zip(&rounded) {
            let expected = bf16::from_f32(*value);
            assert!(
                rounded.to_bits() == expected.to_bits() || (rounded.is_nan() && expected.is_nan()),
                "{value:e}"
            );
        }
        assert!(
            rounded_away(values.clone())
                .iter()
                .map(|x| x.to_bits())
                .eq(rounded.iter().map(|x| x.to_bits()))
        );
        let mut wide = vec![0.0; rounded.len()];
        widen(&rounded, &mut wide);
        assert!(wide.iter().zip(&rounded).all(|(w, r)| w.is_nan() || *w == r.to_f32()));
    }
}
