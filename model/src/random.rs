//! All randomness of this crate: generators made from a seed and a label, never a global one.
//!
//! The label keeps streams apart, so that a tensor's random values do not depend on the order in
//! which tensors are made.

use burn::module::ParamId;
use burn::tensor::TensorData;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// The generator (xoshiro256++, Blackman and Vigna 2019) for `label` under `seed`.
pub(crate) fn generator(seed: u64, label: &str) -> Xoshiro256PlusPlus {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(label)
        .finalize();
    Xoshiro256PlusPlus::from_seed(digest.into())
}

/// `count` independent normal values of mean 0 (Box and Muller 1958, computed in f64).
pub(crate) fn normal(seed: u64, label: &str, count: usize, std: f64) -> Vec<f32> {
    let mut rng = generator(seed, label);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u is in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * std;
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    values
}

/// Random values for the weight called `name`: normal for matrices, 0 for biases, 1 for norms.
pub(crate) fn weight(seed: u64, name: &str, shape: &[usize], std: f64) -> TensorData {
    let count = shape.iter().product();
    let values = match shape.len() {
        1 if name.ends_with(".bias") => vec![0.0; count],
        1 => vec![1.0; count],
        _ => normal(seed, name, count, std),
    };
    TensorData::new(values, shape.to_vec())
}

/// The identity of the parameter with this name: the same in every process, so that an optimizer's
/// saved state finds its parameters again after a reload.
pub(crate) fn param_id(name: &str) -> ParamId {
    let digest = Sha256::digest(name.as_bytes());
    ParamId::from(digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_mean_zero_and_the_asked_deviation() {
        let values = normal(7, "a", 100_001, 0.5);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert_eq!(values.len(), 100_001);
        assert!(mean.abs() < 0.006, "{mean}");
        assert!((var.sqrt() - 0.5).abs() < 0.005, "{var}");
    }

    #[test]
    fn streams_depend_on_seed_and_label_only() {
        assert_eq!(normal(1, "a", 4, 1.0), normal(1, "a", 4, 1.0));
        assert_ne!(normal(1, "a", 4, 1.0), normal(1, "b", 4, 1.0));
        assert_ne!(normal(1, "a", 4, 1.0), normal(2, "a", 4, 1.0));
    }
}
