//! The step on flex: one pass over each parameter in place.
//!
//! Values stored in bf16 are rounded *stochastically*: up with the probability that makes the stored value
//! right on average. Rounding to the nearest would lose every update below 2^-9 of a value, and with it most
//! of training. The choice is a hash of the step and the element's index, so a repeated step repeats bit for
//! bit. Source: Zamirai et al. 2021, Revisiting BFloat16 Training, arXiv 2010.06192; the hash is the
//! finalizer of Appleby's MurmurHash3.

use super::{AdamWOps, AdamWStep, plain};
use crate::backends::flex_memory::{dense, floats, floats_mut, is_supported};
use crate::simd::ELEMENTS_PER_BLOCK;
use burn::backend::{Flex, tensor::FloatTensor};
use half::bf16;
use rayon::prelude::*;
use wmtp_gemm::simd::{to_f32, vectorized};
use wmtp_gemm::{FloatSlice, FloatSliceMut};

impl AdamWOps for Flex {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let dtypes = [&parameter, &moment_1, &moment_2, &gradient].map(|tensor| tensor.dtype());
        if !dtypes.into_iter().all(is_supported) || dtypes[1] != dtypes[2] {
            return plain::step::<Self>(parameter, moment_1, moment_2, gradient, step);
        }
        let [mut parameter, mut moment_1, mut moment_2, gradient] =
            [parameter, moment_1, moment_2, gradient].map(dense);
        update(
            floats_mut(&mut parameter),
            [floats_mut(&mut moment_1), floats_mut(&mut moment_2)],
            floats(&gradient),
            &step,
        );
        (parameter, moment_1, moment_2)
    }
}

/// A storage type of parameters, moments and gradients.
trait Stored: Copy + Send + Sync {
    fn wide(self) -> f32;
    /// Stores `value`; `random` decides the rounding between the two nearest values of the type.
    fn put(&mut self, value: f32, random: u16);
}

impl Stored for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(&mut self, value: f32, _random: u16) {
        *self = value;
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        to_f32(self)
    }

    #[inline(always)]
    fn put(&mut self, value: f32, random: u16) {
        // The random low bits carry into the last stored place with the right probability. Infinities and
        // NaNs are truncated.
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(u32::from(random));
        let bits = if value.is_finite() { rounded } else { bits };
        *self = bf16::from_bits((bits >> 16) as u16);
    }
}

/// Updates `weight`, `first` and `second` moment with `gradient`, all of the same length. Both
/// moments are of one type.
///
/// # Panics
/// If the moments differ in type.
pub(super) fn update(
    weight: FloatSliceMut<'_>,
    moments: [FloatSliceMut<'_>; 2],
    gradient: FloatSlice<'_>,
    step: &AdamWStep,
) {
    fn with_moments<W: Stored, G: Stored>(w: &mut [W], moments: [FloatSliceMut<'_>; 2], g: &[G], step: &AdamWStep) {
        match moments {
            [FloatSliceMut::F32(m), FloatSliceMut::F32(v)] => run(w, m, v, g, step),
            [FloatSliceMut::Bf16(m), FloatSliceMut::Bf16(v)] => run(w, m, v, g, step),
            _ => panic!("adamw_step: the moments differ in type"),
        }
    }
    match (weight, gradient) {
        (FloatSliceMut::F32(w), FloatSlice::F32(g)) => with_moments(w, moments, g, step),
        (FloatSliceMut::F32(w), FloatSlice::Bf16(g)) => with_moments(w, moments, g, step),
        (FloatSliceMut::Bf16(w), FloatSlice::F32(g)) => with_moments(w, moments, g, step),
        (FloatSliceMut::Bf16(w), FloatSlice::Bf16(g)) => with_moments(w, moments, g, step),
    }
}

fn run<W: Stored, M: Stored, G: Stored>(
    weight: &mut [W],
    first: &mut [M],
    second: &mut [M],
    gradient: &[G],
    step: &AdamWStep,
) {
    let (b1, b2) = (step.beta_1 as f32, step.beta_2 as f32);
    let (one_minus_b1, one_minus_b2) = ((1.0 - step.beta_1) as f32, (1.0 - step.beta_2) as f32);
    let (size, correction) = (step.step_size() as f32, step.correction_2() as f32);
    let (keep, eps, scale) = (step.shrink() as f32, step.epsilon as f32, step.gradient_scale as f32);
    let seed = hash(step.step);
    weight
        .par_chunks_mut(ELEMENTS_PER_BLOCK)
        .zip(first.par_chunks_mut(ELEMENTS_PER_BLOCK))
        .zip(second.par_chunks_mut(ELEMENTS_PER_BLOCK))
        .zip(gradient.par_chunks(ELEMENTS_PER_BLOCK))
        .enumerate()
        .for_each(|(block, (((weight, first), second), gradient))| {
            let start = (block * ELEMENTS_PER_BLOCK) as u32;
            vectorized(
                #[inline(always)]
                || {
                    let elements = weight.iter_mut().zip(first).zip(second).zip(gradient);
                    for (i, (((w, m), v), g)) in elements.enumerate() {
                        let random = hash(start.wrapping_add(i as u32) ^ seed);
                        let again = random.wrapping_mul(0x9e37_79b9);
                        let g = g.wide() * scale;
                        let first = b1 * m.wide() + one_minus_b1 * g;
                        let second = b2 * v.wide() + one_minus_b2 * (g * g);
                        let moved = w.wide() * keep - size * first / ((second * correction).sqrt() + eps);
                        w.put(moved, random as u16);
                        m.put(first, (random >> 16) as u16);
                        v.put(second, (again >> 16) as u16);
                    }
                },
            );
        });
}

/// Every bit of the result depends on every bit of `x`.
#[inline(always)]
fn hash(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 + 2^-9 lies a quarter of the way between two bf16 values: it must come out as the upper one
    /// in a quarter of the cases, here over all random numbers, so exactly.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        for value in [1.0f32 + 2f32.powi(-9), -1.0 - 2f32.powi(-9), 3.0e-39, 0.1] {
            let mean = (0..=u16::MAX).map(|random| {
                let mut stored = bf16::ZERO;
                stored.put(value, random);
                f64::from(stored.wide())
            });
            let mean = mean.sum::<f64>() / 65536.0;
            assert!(
                (mean - f64::from(value)).abs() <= 1e-12 * f64::from(value).abs(),
                "{value} {mean}"
            );
        }
    }

    #[test]
    fn values_that_fit_and_values_that_are_none_stay() {
        for value in [0.0f32, -2.5, f32::INFINITY, f32::NEG_INFINITY] {
            for random in [0, 1, u16::MAX] {
                let mut stored = bf16::ZERO;
                stored.put(value, random);
                assert_eq!(stored.wide(), value);
            }
        }
        let mut stored = bf16::ZERO;
        stored.put(f32::NAN, u16::MAX);
        assert!(stored.wide().is_nan());
    }

    /// 64 steps of a thousandth of the weight each: rounded to the nearest, not one would move it.
    #[test]
    fn small_updates_are_not_lost_in_bf16() {
        const N: usize = 4096;
        let step = |step| AdamWStep {
            learning_rate: 1e-3,
            beta_1: 0.0,
            beta_2: 0.0,
            epsilon: 0.0,
            weight_decay: 0.0,
            step,
            gradient_scale: 0.5,
        };
        let mut weight = vec![bf16::ONE; N];
        let (mut first, mut second) = (vec![bf16::ZERO; N], vec![bf16::ZERO; N]);
        let gradient = vec![bf16::from_f32(4.0); N];
        for i in 1..=64 {
            let moments = [FloatSliceMut::Bf16(&mut first), FloatSliceMut::Bf16(&mut second)];
            update(
                FloatSliceMut::Bf16(&mut weight),
                moments,
                FloatSlice::Bf16(&gradient),
                &step(i),
            );
        }
        let mean = weight.iter().map(|w| f64::from(w.wide())).sum::<f64>() / N as f64;
        // The standard deviation of one element's walk is below 64^0.5 * 2^-9; of the mean of 4096, 2.5e-4.
        assert!((mean - 0.936).abs() < 1e-3, "{mean}");
        assert!(first.iter().all(|m| m.wide() == 2.0) && second.iter().all(|v| v.wide() == 4.0));
    }
}
