//! The passes over one row of logits: largest value, and the sum of exponentials relative to it.
//!
//! f32 takes an exponential of its own that the compiler turns into vector instructions; f64 the
//! standard library's.

use std::ops::{Add, Mul, Sub};

/// Independent partial sums, enough for the widest vectors.
const LANES: usize = 16;

/// Values summed in their own type before the partial sums are added up in f64.
const BLOCK: usize = 64 * LANES;

/// f32 or f64.
pub(in super::super) trait Real:
    burn::tensor::Element
    + Copy
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Minus infinity.
    const LOWEST: Self;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The same value.
    fn to_f64(self) -> f64;

    /// e^x for x <= 0; not-a-number stays so.
    fn exp_not_positive(x: Self) -> Self;

    /// The largest value; not-a-number is passed over (the exponentials show it).
    fn largest(values: &[Self]) -> Self {
        let mut lanes = [Self::LOWEST; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        let larger = |a: Self, b: &Self| if *b > a { *b } else { a };
        let largest = lanes.iter().fold(Self::LOWEST, larger);
        rest.iter().fold(largest, larger)
    }

    /// The sum of `exp(value - largest)`.
    fn sum_of_exp(values: &[Self], largest: Self) -> f64 {
        let mut sum = 0.0;
        for block in values.chunks(BLOCK) {
            let mut lanes = [Self::ZERO; LANES];
            let chunks = block.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = *lane + Self::exp_not_positive(*value - largest);
                }
            }
            for (lane, value) in lanes.iter_mut().zip(rest) {
                *lane = *lane + Self::exp_not_positive(*value - largest);
            }
            sum += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
        }
        sum
    }

    /// The same, and each value replaced by its exponential.
    fn replace_by_exp(values: &mut [Self], largest: Self) -> f64 {
        let mut sum = 0.0;
        for block in values.chunks_mut(BLOCK) {
            let mut lanes = [Self::ZERO; LANES];
            let mut chunks = block.chunks_exact_mut(LANES);
            for chunk in &mut chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *value = Self::exp_not_positive(*value - largest);
                    *lane = *lane + *value;
                }
            }
            for (lane, value) in lanes.iter_mut().zip(chunks.into_remainder()) {
                *value = Self::exp_not_positive(*value - largest);
                *lane = *lane + *value;
            }
            sum += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
        }
        sum
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f32::NEG_INFINITY;

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn exp_not_positive(x: Self) -> Self {
        exp_not_positive(x)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f64::NEG_INFINITY;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn exp_not_positive(x: Self) -> Self {
        x.exp()
    }
}

/// e^x for x <= 0 in f32: relative error below 2e-7 down to x = -87, exactly 0 below that (where
/// the true value is under 1.7e-38); not-a-number stays so. Branch-free, so that it vectorises.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n e^r; ln 2 in two parts (Cody and Waite 1980), the
/// polynomial for e^r with the coefficients of the Cephes library's expf (Moshier).
#[inline(always)]
fn exp_not_positive(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e_r = (p * (r * r) + r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = e_r * f32::from_bits(exponent);
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_as_accurate_as_it_says() {
        // Every 97th float from -87 to -1e-9, some 1.2 million of them.
        let (first, last) = (1e-9f32.to_bits(), 87f32.to_bits());
        let worst = (first..=last)
            .step_by(97)
            .map(|bits| {
                let x = -f32::from_bits(bits);
                let exact = f64::from(x).exp();
                ((f64::from(exp_not_positive(x)) - exact) / exact).abs()
            })
            .fold(0.0, f64::max);
        println!("largest relative error {worst:.2e}");
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn the_edges_of_the_exponential() {
        assert_eq!(exp_not_positive(0.0), 1.0);
        assert_eq!(exp_not_positive(-0.0), 1.0);
        assert_eq!(exp_not_positive(-87.1), 0.0);
        assert_eq!(exp_not_positive(-1e30), 0.0);
        assert_eq!(exp_not_positive(f32::NEG_INFINITY), 0.0);
        assert!(exp_not_positive(f32::NAN).is_nan());
    }

    /// At lengths around those of the lanes and the blocks.
    #[test]
    fn sums_take_every_value_once() {
        for length in [1, 2, 15, 16, 17, 1023, 1024, 1025, 2500] {
            // Equal logits: the sum is the length, wherever the row is cut.
            let row = vec![-3.5f32; length];
            assert_eq!(f32::largest(&row), -3.5);
            assert_eq!(f32::sum_of_exp(&row, -3.5), length as f64);
            for at in [0, length / 2, length - 1] {
                // One logit larger by ln 4, so that all others count a quarter of it.
                let mut row = vec![1.0f64; length];
                row[at] = 1.0 + 4f64.ln();
                let largest = f64::largest(&row);
                assert_eq!(largest, row[at]);
                let expected = 1.0 + (length - 1) as f64 / 4.0;
                assert!((f64::sum_of_exp(&row, largest) - expected).abs() < 1e-12 * expected);
                let sum = f64::replace_by_exp(&mut row, largest);
                assert!((sum - expected).abs() < 1e-12 * expected);
                assert_eq!(row[at], 1.0);
            }
        }
    }

    #[test]
    fn not_a_number_reaches_the_sum() {
        for at in [0, 20, 40] {
            let mut row = vec![0.5f32; 41];
            row[at] = f32::NAN;
            assert!(f32::sum_of_exp(&row, f32::largest(&row)).is_nan());
        }
    }
}
