//! Loops compiled for the widest vectors of the machine, and conversions between f32 and bf16.

use half::bf16;

/// Runs `loops`, compiled for the widest SIMD vectors that the machine has (chosen at run time), or for AVX2 if
/// [`crate::VARIABLE`] says so.
#[inline(always)]
pub fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if crate::Isa::chosen() == Ok(crate::Isa::Avx2)
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return pulp::Arch::V3(avx2).dispatch(loops);
    }
    pulp::Arch::new().dispatch(loops)
}

/// `value` in f32, exactly. Compiles to vector instructions inside of [`vectorized`] loops.
#[inline(always)]
pub fn to_f32(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Bits of which the high half is `value` rounded to the nearest bf16, ties to even. Infinities and the NaN that
/// arithmetic produces stay what they are.
#[inline(always)]
pub fn rounded_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1))
}

/// `value` rounded to the nearest bf16, ties to even. Infinities and the NaN that arithmetic produces stay
/// what they are; other NaNs need [`to_bf16`].
#[inline(always)]
pub fn to_bf16_fast(value: f32) -> bf16 {
    bf16::from_bits((rounded_bits(value) >> 16) as u16)
}

/// `value` rounded to the nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
pub fn to_bf16(value: f32) -> bf16 {
    let quiet = bf16::from_bits((value.to_bits() >> 16) as u16 | 0x40);
    if value.is_nan() { quiet } else { to_bf16_fast(value) }
}

/// Writes `from` to `to` with [`to_bf16`].
pub fn narrow(from: &[f32], to: &mut [bf16]) {
    vectorized(
        #[inline(always)]
        || from.iter().zip(to).for_each(|(from, to)| *to = to_bf16(*from)),
    );
}

/// Writes `from` to `to` with [`to_f32`].
pub fn widen(from: &[bf16], to: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || from.iter().zip(to).for_each(|(from, to)| *to = to_f32(*from)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `half`'s own conversion, at every 1201st f32.
    #[test]
    fn rounding_is_to_the_nearest_even() {
        let values: Vec<f32> = (0..u32::MAX).step_by(1201).map(f32::from_bits).collect();
        let mut rounded = vec![bf16::ZERO; values.len()];
        narrow(&values, &mut rounded);
        for (value, rounded) in values.iter().zip(&rounded) {
            let expected = bf16::from_f32(*value);
            assert!(
                rounded.to_bits() == expected.to_bits() || (rounded.is_nan() && expected.is_nan()),
                "{value:e}"
            );
            assert!(
                value.is_nan() || to_bf16_fast(*value).to_bits() == expected.to_bits(),
                "{value:e}"
            );
        }
        assert!(to_bf16_fast(f32::NAN).is_nan());
        let mut wide = vec![0.0; rounded.len()];
        widen(&rounded, &mut wide);
        assert!(wide.iter().zip(&rounded).all(|(w, r)| w.is_nan() || *w == r.to_f32()));
    }
}
