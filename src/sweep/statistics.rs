//! Means over seeds with Student's t intervals, and paired differences.
//!
//! An interval says how the mean varies with the seed, under the assumption that figures of different
//! seeds are normally distributed. With few seeds it is wide, and with one there is none. Nothing
//! corrects for looking at many settings.

use serde::Serialize;
use std::f64::consts::PI;

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with n - 1; None for one value.
    pub sd: Option<f64>,
    /// 95% interval of the mean by Student's t with n - 1 degrees of freedom; None for one value, and
    /// where all values are equal: an interval without a width would claim certainty.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// Over values; None if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Some(Self {
                n,
                mean,
                sd: None,
                ci95: None,
            });
        }
        let sum: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let sd = (sum / (n - 1) as f64).sqrt();
        let half = t_quantile_975(n - 1) * sd / (n as f64).sqrt();
        let equal = sd <= 1e-12 * mean.abs().max(1.0);
        Some(Self {
            n,
            mean,
            sd: Some(sd),
            ci95: (!equal).then_some([mean - half, mean + half]),
        })
    }

    /// Over the differences `a - b` of pairs.
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Option<Self> {
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
        Self::of(&differences)
    }
}

/// The value below which Student's t with so many degrees of freedom lies with probability 0.975.
pub fn t_quantile_975(degrees: usize) -> f64 {
    // For one degree the distribution is Cauchy's; its quantile bounds all others.
    let (mut low, mut high) = (0.0, (0.475 * PI).tan());
    if degrees <= 1 {
        return high;
    }
    // 60 halvings reach the last bit.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if upper_tail(middle, degrees as f64) > 0.025 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// P(T > t) for t >= 0: half of I_x(n/2, 1/2) at x = n / (n + t^2) (Abramowitz and Stegun, 26.7.1).
fn upper_tail(t: f64, degrees: f64) -> f64 {
    0.5 * incomplete_beta(degrees / (degrees + t * t), 0.5 * degrees, 0.5)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (NIST's Digital
/// Library of Mathematical Functions, 8.17.22), on the side where that converges fast.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (a * x.ln() + b * (1.0 - x).ln() - ln_beta(a, b)).exp() / a;
    // From its far end backwards: 200 terms are many more than it needs here.
    let mut fraction = 1.0;
    for term in (1..=200).rev() {
        let m = f64::from(term / 2);
        let d = if term % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        fraction = 1.0 + d / fraction;
    }
    front / fraction
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// ln Gamma(x) for x > 0: Stirling's series (DLMF 5.11.1) after the recurrence has made x large.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 15.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse / 12.0 * (1.0 - square / 30.0 * (1.0 - square * 2.0 / 7.0 * (1.0 - square * 0.75)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1.0)
    }

    /// `fixtures/statistics.json` is NumPy's and SciPy's, by the script beside it.
    fn fixture() -> Value {
        serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap()
    }

    #[test]
    fn quantiles_of_t_are_the_tables() {
        // As printed in tables, three decimals.
        for (degrees, expected) in [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045)] {
            assert!((t_quantile_975(degrees) - expected).abs() < 5e-4, "{degrees}");
        }
        for (degrees, expected) in fixture()["t_975"].as_object().unwrap() {
            let ours = t_quantile_975(degrees.parse().unwrap());
            let theirs = expected.as_f64().unwrap();
            assert!(near(ours, theirs), "{degrees} degrees: {ours} and {theirs}");
        }
    }

    #[test]
    fn three_values_have_the_interval_that_one_computes_by_hand() {
        let e = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((e.n, e.mean, e.sd), (3, 2.0, Some(1.0)));
        // 4.302653 / sqrt 3 = 2.484138.
        let [low, high] = e.ci95.unwrap();
        assert!(
            (low + 0.484_138).abs() < 1e-6 && (high - 4.484_138).abs() < 1e-6,
            "{low} {high}"
        );
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_mean() {
        let one = Estimate::of(&[2.5]).unwrap();
        assert_eq!((one.mean, one.sd, one.ci95), (2.5, None, None));
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn equal_values_have_no_interval() {
        assert_eq!(Estimate::of(&[0.5; 4]).unwrap().ci95, None);
        // Equal but for rounding.
        assert_eq!(Estimate::of_pairs(&[(0.3, 0.2), (0.4, 0.3)]).unwrap().ci95, None);
    }

    #[test]
    fn estimates_are_those_of_numpy_and_scipy() {
        let numbers =
            |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
        for case in fixture()["samples"].as_array().unwrap() {
            let ours = Estimate::of(&numbers(&case["values"])).unwrap();
            let theirs = numbers(&case["ci95"]);
            assert!(near(ours.mean, case["mean"].as_f64().unwrap()), "{case}");
            assert!(near(ours.sd.unwrap(), case["sd"].as_f64().unwrap()), "{case}");
            let [low, high] = ours.ci95.unwrap();
            assert!(near(low, theirs[0]) && near(high, theirs[1]), "{case}: {low} {high}");
        }
        for case in fixture()["pairs"].as_array().unwrap() {
            let pairs: Vec<_> = numbers(&case["a"]).into_iter().zip(numbers(&case["b"])).collect();
            let ours = Estimate::of_pairs(&pairs).unwrap();
            let theirs = numbers(&case["ci95"]);
            let [low, high] = ours.ci95.unwrap();
            assert!(near(ours.mean, case["mean"].as_f64().unwrap()), "{case}");
            assert!(near(low, theirs[0]) && near(high, theirs[1]), "{case}: {low} {high}");
        }
    }
}
