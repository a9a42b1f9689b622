//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), one pass over each parameter in place.
//!
//! ```text
//! m = b1 m + (1 - b1) g            v = b2 v + (1 - b2) g^2
//! w = w (1 - lr * decay) - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```

use super::vectorised;
use rayon::prelude::*;

/// Values that are updated at a time.
const BLOCK: usize = 1 << 14;

/// The numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first and of the second moment.
    pub betas: [f32; 2],
    /// Added to the root.
    pub eps: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// Which update this is, from 1.
    pub time: usize,
}

/// Updates `weight`, `first` and `second` moment with `gradient`, all of the same length.
pub fn update(weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], update: &Update) {
    let Update {
        lr,
        betas: [b1, b2],
        eps,
        decay,
        time,
    } = *update;
    let correction = |beta: f32| 1.0 - (f64::from(beta).powf(time as f64) as f32);
    let (of_first, of_second) = (1.0 / correction(b1), 1.0 / correction(b2));
    let keep = 1.0 - f64::from(lr) as f32 * decay;
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
                        *m = b1 * *m + (1.0 - b1) * g;
                        *v = b2 * *v + (1.0 - b2) * g * g;
                        let step = *m * of_first / ((*v * of_second).sqrt() + eps);
                        *w = *w * keep - lr * step;
                    }
                },
            );
        });
}
