//! Means over seeds with Student's t intervals, paired differences, and quantiles.
//!
//! An interval says how the mean varies with the seed, under the assumption that figures of different
//! seeds are normally distributed. With few seeds it is wide, and with one there is none. Nothing
//! corrects for looking at many settings.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

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

/// The 0.975 quantile of Student's t with this many degrees of freedom (at least 1).
pub fn t_quantile_975(degrees: usize) -> f64 {
    // `new` refuses no positive number of degrees; an infinite interval would claim nothing.
    StudentsT::new(0.0, 1.0, degrees.max(1) as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

/// Quantile of sorted values with linear interpolation, NumPy's default; 0 of none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let (low, high) = (at(place.floor() as usize), at(place.ceil() as usize));
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1.0)
    }

    /// `fixtures/statistics.json` is NumPy's and SciPy's, by the script in the same folder.
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
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.5), 3.0);
        assert!((quantile(&[0.0, 10.0], 0.25) - 2.5).abs() < 1e-15);
        assert_eq!(quantile(&[7.0], 0.975), 7.0);
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
