//! Values drawn at random, as pure functions of seed, number of the draw and key.

use super::config::{ChoiceConfig, Distribution, IntegersConfig, RangeConfig};
use crate::data::seeded::generator;
use rand::RngExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

impl Distribution {
    /// Draw number `index` of `key`.
    pub fn draw(&self, seed: u64, index: u64, key: &str) -> Value {
        let digest = Sha256::digest(key.as_bytes());
        let key = digest
            .iter()
            .take(8)
            .fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        let u: f64 = generator(seed, &[index, key]).random();
        match self {
            Self::Choice(ChoiceConfig { values }) => {
                let at = (u * values.len() as f64) as usize;
                values.get(at).cloned().unwrap_or(Value::Null)
            }
            Self::Uniform(RangeConfig { low, high }) => four_digits(low + u * (high - low)).into(),
            Self::LogUniform(RangeConfig { low, high }) => four_digits(low * (high / low).powf(u)).into(),
            Self::Integers(IntegersConfig { low, high }) => {
                let count = (high - low) as f64 + 1.0;
                (low + (u * count) as i64).min(*high).into()
            }
        }
    }

    /// What is wrong with it, as the rest of a sentence.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Choice(c) if c.values.is_empty() => Some("must have values to choose from"),
            Self::Uniform(r) if !(r.low < r.high && r.low.is_finite() && r.high.is_finite()) => {
                Some("must have `low` below `high`")
            }
            Self::LogUniform(r) if !(r.low > 0.0 && r.low < r.high && r.high.is_finite()) => {
                Some("must have `low` above 0 and below `high`")
            }
            Self::Integers(i) if i.low > i.high || i.high.checked_sub(i.low).is_none_or(|n| n >= 1 << 52) => {
                Some("must have `low` at or below `high`, and not more than 2^52 numbers between them")
            }
            _ => None,
        }
    }
}

/// Short enough for a name, and independent of the machine's last bits of `powf`.
fn four_digits(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(low: f64, high: f64) -> RangeConfig {
        RangeConfig { low, high }
    }

    fn draws(distribution: &Distribution, n: u64) -> Vec<f64> {
        (0..n)
            .map(|i| distribution.draw(7, i, "optim.lr").as_f64().unwrap())
            .collect()
    }

    #[test]
    fn a_draw_depends_on_seed_number_and_key_and_on_nothing_else() {
        let d = Distribution::Uniform(range(0.0, 1.0));
        assert_eq!(d.draw(1, 2, "a.b"), d.draw(1, 2, "a.b"));
        assert_ne!(d.draw(1, 2, "a.b"), d.draw(2, 2, "a.b"));
        assert_ne!(d.draw(1, 2, "a.b"), d.draw(1, 3, "a.b"));
        assert_ne!(d.draw(1, 2, "a.b"), d.draw(1, 2, "a.c"));
    }

    #[test]
    fn draws_fill_their_range_as_the_distribution_says() {
        let uniform = draws(&Distribution::Uniform(range(2.0, 4.0)), 2000);
        assert!(uniform.iter().all(|x| (2.0..=4.0).contains(x)));
        let mean = uniform.iter().sum::<f64>() / 2000.0;
        // The mean of 2000 has a standard deviation of 2 / sqrt(12 * 2000) = 0.013.
        assert!((mean - 3.0).abs() < 0.06, "{mean}");

        let log = draws(&Distribution::LogUniform(range(1e-5, 1e-1)), 2000);
        assert!(log.iter().all(|x| (1e-5..=1e-1).contains(x)));
        // Half of them below the geometric mean, 1e-3; the share's deviation is 0.011.
        let below = log.iter().filter(|x| **x < 1e-3).count() as f64 / 2000.0;
        assert!((below - 0.5).abs() < 0.05, "{below}");

        let whole = draws(&Distribution::Integers(IntegersConfig { low: -1, high: 2 }), 2000);
        for value in [-1.0, 0.0, 1.0, 2.0] {
            let share = whole.iter().filter(|x| **x == value).count() as f64 / 2000.0;
            assert!((share - 0.25).abs() < 0.05, "{value}: {share}");
        }
        let values = vec!["a".into(), Value::Null];
        let choice = Distribution::Choice(ChoiceConfig { values });
        let nulls = (0..2000).filter(|i| choice.draw(3, *i, "k").is_null()).count();
        assert!((900..1100).contains(&nulls), "{nulls}");
    }

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!(four_digits(0.000_123_456), 1.235e-4);
        assert_eq!(four_digits(123_456.0), 123_500.0);
        assert_eq!(four_digits(0.0), 0.0);
    }

    #[test]
    fn ranges_without_numbers_are_named() {
        let bad = [
            Distribution::Choice(ChoiceConfig { values: vec![] }),
            Distribution::Uniform(range(1.0, 1.0)),
            Distribution::LogUniform(range(0.0, 1.0)),
            Distribution::Integers(IntegersConfig { low: 2, high: 1 }),
            Distribution::Integers(IntegersConfig {
                low: i64::MIN,
                high: i64::MAX,
            }),
        ];
        assert!(bad.iter().all(|d| d.problem().is_some()));
        assert_eq!(Distribution::LogUniform(range(1e-5, 1e-3)).problem(), None);
    }
}
