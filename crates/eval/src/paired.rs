//! Two evaluations of the same problems: the difference of their pass@k, problem by problem.
//!
//! | figure | for | how |
//! |---|---|---|
//! | difference | any samples | mean over problems of pass@k of B minus pass@k of A |
//! | interval, 95% | any samples | percentile bootstrap over problems (Efron 1979), 10,000 resamples, seed 42, drawn as NumPy draws |
//! | interval, 95% | all differences equal | the score interval (Tango 1998, Statistics in Medicine 17): the bootstrap has no width there |
//! | p-value | one sample of each problem on both sides | McNemar's exact test: a binomial test over the problems that one side alone passes |
//! | p-value | more samples | the bootstrap's: twice the smaller share of resampled means on one side of 0 |
//!
//! `tests/fixtures/paired.py` repeats all of it with SciPy.

use super::{
    passk::{Tally, Z_95, pass_at_k},
    pcg64::Pcg64,
};
use serde::Serialize;
use wmtp_base::statistics::quantile;

/// Resamples of the bootstrap.
pub const RESAMPLES: usize = 10_000;

/// Its seed: the same data give the same interval.
pub const SEED: u64 = 42;

/// Sums that differ from 0 by rounding only.
const ROUNDING: f64 = 1e-12;

/// How an interval of a difference was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Percentiles of resampled means.
    Bootstrap,
    /// Tango's score interval.
    Score,
}

/// How a p-value was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// McNemar's exact test.
    McnemarExact,
    /// The share of resampled means beyond 0.
    Bootstrap,
    /// A sign test over the problems, where all differences are equal and not 0.
    Sign,
}

/// The difference of one pass@k.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The k of pass@k.
    pub k: usize,
    /// Problems that both answered.
    pub problems: usize,
    /// pass@k of A over them.
    pub a: f64,
    /// pass@k of B over them.
    pub b: f64,
    /// B minus A.
    pub difference: f64,
    /// 95% interval of the difference, over problems.
    pub ci95: [f64; 2],
    /// How the interval was made.
    pub ci95_method: Method,
    /// Two-sided p-value of "there is no difference".
    pub p_value: f64,
    /// Which test gives it.
    pub test: Test,
    /// Problems that A alone passes, where one sample of each was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_a: Option<usize>,
    /// Problems that B alone passes, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_b: Option<usize>,
}

/// The difference of pass@k over `pairs`: A's and B's samples of the same problem, in an order that does
/// not depend on the outcomes. None without a problem, or where a problem has fewer than k samples.
pub fn difference(pairs: &[(Tally, Tally)], k: usize) -> Option<Difference> {
    if pairs.is_empty() || pairs.iter().any(|(a, b)| a.samples.min(b.samples) < k) {
        return None;
    }
    let n = pairs.len() as f64;
    let values: Vec<f64> = pairs.iter().map(|(a, b)| pass_at_k(*b, k) - pass_at_k(*a, k)).collect();
    let mean = |side: fn(&(Tally, Tally)) -> Tally| pairs.iter().map(|pair| pass_at_k(side(pair), k)).sum::<f64>() / n;
    let single = pairs.iter().all(|(a, b)| (a.samples, b.samples) == (1, 1));
    let count = |passed: fn(&(Tally, Tally)) -> bool| single.then(|| pairs.iter().filter(|pair| passed(pair)).count());
    let only_a = count(|(a, b)| a.passed > b.passed);
    let only_b = count(|(a, b)| b.passed > a.passed);

    let equal = values.windows(2).all(|pair| (pair[0] - pair[1]).abs() <= ROUNDING);
    let (ci95, ci95_method, p, test) = if equal {
        let value = values.first().copied().unwrap_or_default();
        let p = if value.abs() <= ROUNDING {
            1.0
        } else {
            (2.0 * 0.5f64.powf(n)).min(1.0)
        };
        (score_interval(value, n), Method::Score, p, Test::Sign)
    } else {
        let means = resampled_means(&values);
        let ends = [quantile(&means, 0.025), quantile(&means, 0.975)];
        (ends, Method::Bootstrap, beyond_zero(&means), Test::Bootstrap)
    };
    let (p_value, test) = match (only_a, only_b) {
        (Some(a), Some(b)) => (mcnemar_exact(a, b), Test::McnemarExact),
        _ => (p, test),
    };
    Some(Difference {
        k,
        problems: pairs.len(),
        a: mean(|pair| pair.0),
        b: mean(|pair| pair.1),
        difference: values.iter().sum::<f64>() / n,
        ci95,
        ci95_method,
        p_value,
        test,
        only_a,
        only_b,
    })
}

/// Means of resamples with replacement, ascending: `n` draws a resample, one resample after the other.
fn resampled_means(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let mut rng = Pcg64::new(SEED);
    let mut draw = || values.get(rng.below(n as u32) as usize).copied().unwrap_or_default();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| draw()).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    means
}

/// Twice the smaller share of means at 0 or beyond it, with one added above and below so that it is never
/// 0 (Davison and Hinkley 1997, section 4.2.5).
fn beyond_zero(means: &[f64]) -> f64 {
    let below = means.iter().filter(|mean| **mean <= ROUNDING).count();
    let above = means.iter().filter(|mean| **mean >= -ROUNDING).count();
    (2.0 * (below.min(above) + 1) as f64 / (means.len() + 1) as f64).min(1.0)
}

/// Where all of n differences equal `value`: q = z^2 / (n + z^2) is Wilson's upper limit for what none of
/// n problems showed; the limits are those where that share of the problems would differ by -1 or by +1.
/// At -1, 0 and 1 it is Tango's score interval.
fn score_interval(value: f64, n: f64) -> [f64; 2] {
    let q = Z_95 * Z_95 / (n + Z_95 * Z_95);
    [value - q * (1.0 + value), value + q * (1.0 - value)]
}

/// The two-sided exact p-value of b and c discordant problems: a binomial test with probability 1/2.
fn mcnemar_exact(b: usize, c: usize) -> f64 {
    let (n, few) = (b + c, b.min(c));
    // ln C(n, i) - n ln 2, from i to i + 1 by the recurrence of binomial coefficients.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log.exp();
    for i in 0..few {
        log += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
        tail += log.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        k: usize,
        pairs: Vec<[usize; 4]>,
        difference: f64,
        ci95: [f64; 2],
        p_value: f64,
        test: String,
    }

    /// SciPy's figures, by `tests/fixtures/paired.py`.
    #[derive(Deserialize)]
    struct Fixture {
        cases: Vec<Case>,
        mcnemar: Vec<(usize, usize, f64)>,
        score: Vec<(f64, usize, [f64; 2])>,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../../../tests/fixtures/paired.json")).unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-10 * b.abs().max(1e-2)
    }

    #[test]
    fn differences_intervals_and_p_values_are_scipy_s() {
        let cases = fixture().cases;
        assert!(cases.len() >= 8);
        for case in cases {
            let tally = |samples, passed| Tally { samples, passed };
            let pairs: Vec<_> = case
                .pairs
                .iter()
                .map(|&[n_a, c_a, n_b, c_b]| (tally(n_a, c_a), tally(n_b, c_b)))
                .collect();
            let ours = difference(&pairs, case.k).unwrap();
            let name = &case.name;
            assert!(near(ours.difference, case.difference), "{name}: {ours:?}");
            assert!(near(ours.b - ours.a, case.difference), "{name}: {ours:?}");
            assert!(
                near(ours.ci95[0], case.ci95[0]) && near(ours.ci95[1], case.ci95[1]),
                "{name}: {ours:?}, {:?}",
                case.ci95
            );
            assert!(near(ours.p_value, case.p_value), "{name}: {ours:?}, {}", case.p_value);
            assert_eq!(serde_json::to_value(ours.test).unwrap(), case.test, "{name}");
        }
    }

    #[test]
    fn mcnemar_is_scipy_s_binomial_test() {
        for (b, c, p) in fixture().mcnemar {
            let ours = mcnemar_exact(b, c);
            assert!((ours - p).abs() <= 1e-9 * p, "{b} and {c}: {ours}, {p}");
        }
    }

    #[test]
    fn equal_differences_have_the_score_interval() {
        for (value, n, expected) in fixture().score {
            let ours = score_interval(value, n as f64);
            assert!(
                near(ours[0], expected[0]) && near(ours[1], expected[1]),
                "{value}, {n}: {ours:?}, {expected:?}"
            );
        }
    }

    #[test]
    fn too_few_samples_for_k_have_no_difference() {
        let one = Tally { samples: 1, passed: 1 };
        assert!(difference(&[(one, one)], 2).is_none());
        assert!(difference(&[], 1).is_none());
    }
}
