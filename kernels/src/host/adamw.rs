//! [`crate::adamw`] on slices: one pass over each parameter in place.

use super::vectorised;
use crate::adamw::AdamWStep;
use rayon::prelude::*;

/// Values that are updated at a time.
const BLOCK: usize = 1 << 14;

/// Updates `weight`, `first` and `second` moment with `gradient`, all of the same length.
pub fn update(weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], step: &AdamWStep) {
    let (b1, b2) = (step.beta_1 as f32, step.beta_2 as f32);
    let (stay_1, stay_2) = ((1.0 - step.beta_1) as f32, (1.0 - step.beta_2) as f32);
    let (size, correction) = (step.step_size() as f32, step.correction_2() as f32);
    let (keep, eps) = (step.shrink() as f32, step.epsilon as f32);
    weight
        .par_chunks_mut(BLOCK)
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .zip(gradient.par_chunks(BLOCK))
        .for_each(|(((weight, first), second), gradient)| {
            vectorised(
                #[inline(always)]
                || {
                    for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                        *m = b1 * *m + stay_1 * g;
                        *v = b2 * *v + stay_2 * (g * g);
                        *w = *w * keep - size * *m / ((*v * correction).sqrt() + eps);
                    }
                },
            );
        });
}
