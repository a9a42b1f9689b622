//! The passes over one row of logits: largest value, and the sum of exponentials relative to it.
//!
//! f32 takes an exponential of its own that the compiler turns into vector instructions; f64 the
//! standard library's.

use super::super::extension::Wanted;
use super::super::rows::KeptRow;
use super::matrix::{self, Matrix, Table};
use super::{Found, blocks};
use crate::Accuracy;
use crate::host::exp::exp_not_positive;
use wmtp_gemm::{Precision, MatrixView, matmul};
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

    /// [`super::matrix::multiply`] with the factors rounded to `precision`; f64 is never rounded.
    fn multiply(
        to: &mut [Self],
        to_stride: usize,
        accumulate: bool,
        left: Matrix<'_, Self>,
        right: Matrix<'_, Self>,
        precision: Precision,
    );

    /// `to = left * right` with the right factor in bf16, for f32.
    fn multiply_bf16(to: &mut [Self], to_stride: usize, left: Matrix<'_, Self>, right: MatrixView<'_>, precision: Precision);

    /// [`super::blocks::loss_and_gradients`], for f32; f64 has none.
    fn in_blocks(
        hidden: Matrix<'_, Self>,
        unembedding: Table<'_, Self>,
        rows: &[KeptRow],
        wanted: Wanted,
        accuracy: Accuracy,
    ) -> Option<Found<Self>>;

    /// e^x for x <= 0; not-a-number stays so.
    fn exp_not_positive(x: Self) -> Self;

    /// The largest value; not-a-number is passed over (the exponentials show it).
    #[inline(always)]
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
    #[inline(always)]
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
    #[inline(always)]
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

    fn multiply(
        to: &mut [Self],
        to_stride: usize,
        accumulate: bool,
        left: Matrix<'_, Self>,
        right: Matrix<'_, Self>,
        precision: Precision,
    ) {
        matmul(to, to_stride, accumulate, left.view(), right.view(), precision);
    }

    fn multiply_bf16(to: &mut [Self], to_stride: usize, left: Matrix<'_, Self>, right: MatrixView<'_>, precision: Precision) {
        matmul(to, to_stride, false, left.view(), right, precision);
    }

    fn in_blocks(
        hidden: Matrix<'_, Self>,
        unembedding: Table<'_, Self>,
        rows: &[KeptRow],
        wanted: Wanted,
        accuracy: Accuracy,
    ) -> Option<Found<Self>> {
        let of = match accuracy.factors {
            Precision::F32 => blocks::loss_and_gradients::<f32>,
            Precision::Bf16 => blocks::loss_and_gradients::<half::bf16>,
        };
        Some(of(hidden, unembedding.view(), rows, wanted, accuracy.filter))
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

    fn multiply(
        to: &mut [Self],
        to_stride: usize,
        accumulate: bool,
        left: Matrix<'_, Self>,
        right: Matrix<'_, Self>,
        _precision: Precision,
    ) {
        matrix::multiply(to, to_stride, accumulate, left, right);
    }

    fn multiply_bf16(_: &mut [Self], _: usize, _: Matrix<'_, Self>, _: MatrixView<'_>, _: Precision) {
        unreachable!("hidden states in f64 have an unembedding in f64")
    }

    fn in_blocks(
        _: Matrix<'_, Self>,
        _: Table<'_, Self>,
        _: &[KeptRow],
        _: Wanted,
        _: Accuracy,
    ) -> Option<Found<Self>> {
        None
    }

    #[inline(always)]
    fn exp_not_positive(x: Self) -> Self {
        x.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
