//! The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

use super::OptimConfig;

/// Learning rate of optimizer step `step` (from 0) of `total`: linear warm-up over the first
/// `warmup` share of the steps, then half a cosine down to `min_lr_ratio * lr`.
pub fn learning_rate(config: &OptimConfig, step: usize, total: usize) -> f64 {
    let total = total.max(1);
    let warmup = rising_steps(config, total);
    if step < warmup {
        return config.lr * rise(config, step, total);
    }
    let floor = config.lr * config.min_lr_ratio;
    // The last step still moves: the cosine would reach its floor one step after the end.
    let done = (step - warmup) as f64 / (total - warmup).max(1) as f64;
    floor + (config.lr - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

/// The linear warm-up's factor, 1 once it is over.
pub fn rise(config: &OptimConfig, step: usize, total: usize) -> f64 {
    (step + 1).min(rising_steps(config, total)).max(1) as f64 / rising_steps(config, total).max(1) as f64
}

fn rising_steps(config: &OptimConfig, total: usize) -> usize {
    (config.warmup * total as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_along_half_a_cosine() {
        let config = OptimConfig {
            lr: 1.0,
            warmup: 0.1,
            min_lr_ratio: 0.0,
            ..Default::default()
        };
        let lr = |step| learning_rate(&config, step, 100);
        assert_eq!(lr(0), 0.1);
        assert_eq!(lr(9), 1.0);
        assert_eq!(lr(10), 1.0);
        assert!(
            (lr(55) - 0.5).abs() < 1e-12,
            "half-way down at the middle of the cosine"
        );
        assert!(lr(99) > 0.0 && lr(99) < 1e-3);
        assert!(lr(100) < 1e-12);
    }

    #[test]
    fn ends_at_the_floor_and_survives_tiny_runs() {
        let config = OptimConfig {
            lr: 2.0,
            warmup: 0.03,
            min_lr_ratio: 0.5,
            ..Default::default()
        };
        assert_eq!(learning_rate(&config, 0, 1), 2.0);
        assert!((learning_rate(&config, 1000, 1000) - 1.0).abs() < 1e-12);
        assert!(learning_rate(&config, 0, 0).is_finite());
    }
}
