//! Where dW is summed over chunks of rows: in f32, or where its result is bf16 in 24 bits, of which the upper 16 are
//! the result's memory. Rounding a sum of some chunks to 24 bits costs 2^-17 of its power of two at most, rounding the
//! result to bf16 2^-9.

use super::UnembeddingGradient;
use crate::memory::advise_huge_pages;
use crate::simd::ELEMENTS_PER_BLOCK;
use half::bf16;
use rayon::prelude::*;
use wmtp_gemm::simd::vectorized;

/// dW `[V, D]` as it is summed.
pub(super) enum Sums {
    F32(Vec<f32>),
    /// The sign, the exponent and the first bits of the fraction; and eight more bits of it.
    Split(Vec<bf16>, Vec<u8>),
}

/// Some rows of it.
pub(super) enum Part<'a> {
    F32(&'a mut [f32]),
    Split(&'a mut [bf16], &'a mut [u8]),
}

impl Sums {
    pub fn f32(length: usize) -> Self {
        let sums = vec![0.0; length];
        advise_huge_pages(&sums);
        Self::F32(sums)
    }

    pub fn split(length: usize) -> Self {
        let (high, low) = (vec![bf16::ZERO; length], vec![0; length]);
        advise_huge_pages(&high);
        advise_huge_pages(&low);
        Self::Split(high, low)
    }

    /// Parts of `length` values.
    pub fn parts(&mut self, length: usize) -> Vec<Part<'_>> {
        match self {
            Self::F32(sums) => Part::F32(sums).parts(length),
            Self::Split(high, low) => Part::Split(high, low).parts(length),
        }
    }

    /// The sums.
    pub fn finish(self) -> UnembeddingGradient {
        match self {
            Self::F32(sums) => UnembeddingGradient::F32(sums),
            Self::Split(mut high, low) => {
                high.par_chunks_mut(ELEMENTS_PER_BLOCK)
                    .zip(low.par_chunks(ELEMENTS_PER_BLOCK))
                    .for_each(|(high, low)| round(high, low));
                UnembeddingGradient::Bf16(high)
            }
        }
    }
}

impl<'a> Part<'a> {
    /// The part's own parts of `length` values.
    pub fn parts(self, length: usize) -> Vec<Part<'a>> {
        match self {
            Self::F32(sums) => sums.chunks_mut(length).map(Self::F32).collect(),
            Self::Split(high, low) => {
                let parts = high.chunks_mut(length).zip(low.chunks_mut(length));
                parts.map(|(high, low)| Self::Split(high, low)).collect()
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::F32(sums) => sums.len(),
            Self::Split(high, _) => high.len(),
        }
    }

    /// Adds the product that `product(to, accumulate)` writes. Sums that are zeros still may be set instead, with
    /// `accumulate` false, which is faster in f32. `room` is reused.
    pub fn add(self, accumulate: bool, room: &mut Vec<f32>, product: impl FnOnce(&mut [f32], bool)) {
        match self {
            Self::F32(sums) => product(sums, accumulate),
            Self::Split(high, low) => {
                room.resize(high.len(), 0.0);
                product(room, false);
                add_split(high, low, room);
            }
        }
    }
}

/// Adds `values`, rounded to 24 bits.
fn add_split(high: &mut [bf16], low: &mut [u8], values: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for ((high, low), value) in high.iter_mut().zip(low).zip(values) {
                let before = f32::from_bits(u32::from(high.to_bits()) << 16 | u32::from(*low) << 8);
                let bits = (before + value).to_bits();
                // To the nearest, ties to even; the NaN that arithmetic produces stays one.
                let bits = bits.wrapping_add(0x7f + (bits >> 8 & 1));
                *high = bf16::from_bits((bits >> 16) as u16);
                *low = (bits >> 8) as u8;
            }
        },
    );
}

/// Rounds to the upper 16 bits, to the nearest, ties to even.
fn round(high: &mut [bf16], low: &[u8]) {
    vectorized(
        #[inline(always)]
        || {
            for (high, low) in high.iter_mut().zip(low) {
                let bits = high.to_bits();
                let carry = (u16::from(*low) + 0x7f + (bits & 1)) >> 8;
                *high = bf16::from_bits(bits.wrapping_add(carry));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_values::values;

    /// 1 + 2^-8 (half of bf16's step, exactly in 24 bits) added to 0: a tie, to even; with 2^-15 more it goes up.
    #[test]
    fn rounding_by_hand() {
        let added = |terms: &[f32]| {
            let (mut high, mut low) = ([bf16::ZERO], [0]);
            terms.iter().for_each(|term| add_split(&mut high, &mut low, &[*term]));
            round(&mut high, &low);
            high[0].to_f32()
        };
        let step = 2_f32.powi(-7);
        assert_eq!(added(&[1.0, step / 2.0]), 1.0);
        assert_eq!(added(&[1.0 + step, step / 2.0]), 1.0 + 2.0 * step);
        assert_eq!(added(&[1.0, step / 2.0, 2_f32.powi(-15)]), 1.0 + step);
        assert_eq!(added(&[3.0, -3.0]), 0.0);
        assert!(added(&[f32::INFINITY, f32::NEG_INFINITY]).is_nan());
        assert_eq!(added(&[f32::INFINITY, 1.0]), f32::INFINITY);
    }

    /// Sums of eight terms, against those of f64 rounded once: the same but where they are near a tie.
    #[test]
    fn sums_are_those_of_f64_rounded_once() {
        let count = 20_000;
        let (mut high, mut low, mut exact) = (vec![bf16::ZERO; count], vec![0; count], vec![0.0_f64; count]);
        for term in 0..8 {
            let terms = values(count, 50 + term);
            add_split(&mut high, &mut low, &terms);
            exact
                .iter_mut()
                .zip(&terms)
                .for_each(|(sum, term)| *sum += f64::from(*term));
        }
        round(&mut high, &low);
        let (mut others, mut worst) = (0, 0.0_f64);
        for (found, exact) in high.iter().zip(exact) {
            others += usize::from(*found != bf16::from_f64(exact));
            worst = worst.max((found.to_f64() - exact).abs() / exact.abs().max(0.1));
        }
        assert!(others < count / 50, "{others} of {count}");
        assert!(worst < 2_f64.powi(-8) * 1.01, "{worst:e}");
    }
}
