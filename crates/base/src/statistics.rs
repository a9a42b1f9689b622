//! Means over seeds with Student's t intervals, paired differences, quantiles, and the area under the ROC curve.
//!
//! An interval says how the mean varies with the seed, under the assumption that figures of different
//! seeds are normally distributed. With few seeds it is wide, and with one there is none. Nothing
//! corrects for looking at many settings.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeMap;

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

/// The area under the ROC curve: the probability that a positive scores above a negative, ties counting one
/// half, as the Mann-Whitney statistic from average ranks. None without both labels, or with a score that is NaN.
pub fn auroc(scores: &[(f64, bool)]) -> Option<f64> {
    let (ordered, pairs) = ordered_pairs(scores)?;
    (pairs > 0.0).then(|| ordered / pairs)
}

/// The same over the pairs of a positive and a negative of one group. Groups count by their number of pairs;
/// what has no group is left out. None without a pair, or with a score that is NaN.
pub fn auroc_within<G: Ord>(scores: impl IntoIterator<Item = (Option<G>, (f64, bool))>) -> Option<f64> {
    let mut groups: BTreeMap<G, Vec<(f64, bool)>> = BTreeMap::new();
    for (group, score) in scores {
        if let Some(group) = group {
            groups.entry(group).or_default().push(score);
        }
    }
    let (mut ordered, mut pairs) = (0.0, 0.0);
    for scores in groups.values() {
        let (o, p) = ordered_pairs(scores)?;
        ordered += o;
        pairs += p;
    }
    (pairs > 0.0).then(|| ordered / pairs)
}

/// How many pairs of a positive and a negative have the positive above, ties counting one half; and how many
/// there are. None with a score that is NaN.
fn ordered_pairs(scores: &[(f64, bool)]) -> Option<(f64, f64)> {
    if scores.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut rank_sum, mut positives) = (0usize, 0.0, 0usize);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let here = tied.iter().filter(|(_, positive)| *positive).count();
        // Ranks below + 1 ..= below + tied.len(), all replaced by their average.
        rank_sum += here as f64 * (below as f64 + (tied.len() + 1) as f64 / 2.0);
        positives += here;
        below += tied.len();
    }
    let (positive, negative) = (positives as f64, (sorted.len() - positives) as f64);
    Some((rank_sum - positive * (positive + 1.0) / 2.0, positive * negative))
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

    #[test]
    fn the_area_counts_ordered_pairs() {
        // Positives at 3 and 1, negatives at 2 and 1: 3 > 2, 3 > 1, 1 < 2, 1 = 1: 2.5 of 4.
        let scores = [(3.0, true), (2.0, false), (1.0, true), (1.0, false)];
        assert_eq!(auroc(&scores), Some(0.625));
        assert_eq!(auroc(&[(1.0, true)]), None);
        assert_eq!(auroc(&[(f64::NAN, true), (1.0, false)]), None);
    }

    #[test]
    fn within_groups_only_pairs_of_a_group_count() {
        // Group a: 1 of 1. Group b: 2 > 1 no, both positives below one negative: 0 of 2. c has no pair.
        let scores = [
            (Some('a'), (9.0, true)),
            (Some('a'), (8.0, false)),
            (Some('b'), (1.0, true)),
            (Some('b'), (0.0, true)),
            (Some('b'), (2.0, false)),
            (Some('c'), (7.0, false)),
            (None, (0.0, false)),
        ];
        assert_eq!(auroc_within(scores), Some(1.0 / 3.0));
        assert_eq!(auroc_within([(Some(1), (0.0, true)), (Some(2), (0.0, false))]), None);
    }
}
