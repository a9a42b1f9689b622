//! pass@k: the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, section 2.1), and its 95%
//! interval over problems: a bootstrap, or Wilson's where the bootstrap has no width.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use wmtp_base::statistics::quantile;

/// Samples of one problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Samples drawn, n.
    pub samples: usize,
    /// Samples that passed, c <= n.
    pub passed: usize,
}

/// 1 - C(n-c, k) / C(n, k): the chance that at least one of k samples, drawn without replacement
/// from the n at hand, passed. As the product of 1 - k/i for i in n-c+1..=n, which never leaves
/// [0, 1] and needs no factorial. Callers keep k <= n; a larger k counts as n.
pub fn pass_at_k(tally: Tally, k: usize) -> f64 {
    let Tally { samples: n, passed: c } = tally;
    if c == 0 || k == 0 {
        return 0.0;
    }
    if n.saturating_sub(c) < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// pass@k averaged over problems; 0 for none.
pub fn mean_pass_at_k(tallies: &[Tally], k: usize) -> f64 {
    mean(&estimates(tallies, k))
}

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// The 0.975 quantile of the standard normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Percentiles of resampled means.
    Bootstrap,
    /// Wilson's score interval: all problems have the same estimate.
    Wilson,
}

/// A 95% interval over problems.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its ends, between 0 and 1.
    pub ends: [f64; 2],
    /// How it was made.
    pub method: IntervalMethod,
}

/// The 95% interval of [`mean_pass_at_k`] over problems.
///
/// It is the percentile bootstrap (Efron 1979): problems are drawn with replacement, samples are not, so
/// it says how far the score depends on the choice of problems. The same seed gives the same interval.
/// Where all problems have the same estimate, such as no pass at all, resamples do not differ and the
/// bootstrap would claim certainty: there it is Wilson's score interval over the problems.
pub fn interval95(tallies: &[Tally], k: usize, seed: u64) -> Interval {
    let values = estimates(tallies, k);
    let first = values.first().copied().unwrap_or(0.0);
    if values.iter().all(|value| *value == first) {
        return Interval {
            ends: wilson95(first, values.len()),
            method: IntervalMethod::Wilson,
        };
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut draw = || values.get(rng.random_range(0..values.len())).copied().unwrap_or(0.0);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..values.len()).map(|_| draw()).sum::<f64>() / values.len() as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    Interval {
        ends: [quantile(&means, 0.025), quantile(&means, 0.975)],
        method: IntervalMethod::Bootstrap,
    }
}

/// Wilson's 95% score interval (1927) of a share seen over `n` problems; `[0, 1]` for none.
pub fn wilson95(share: f64, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, z2) = (n as f64, Z_95 * Z_95);
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    // At 0 and 1 one end is the share itself but for rounding.
    let low = if share <= 0.0 { 0.0 } else { middle - half };
    let high = if share >= 1.0 { 1.0 } else { middle + half };
    [low.max(0.0), high.min(1.0)]
}

/// The ends of a stored interval; Wilson's where they are one, as versions before Wilson's wrote them.
pub fn with_width(ends: [f64; 2], share: f64, problems: usize) -> [f64; 2] {
    if ends[0] == ends[1] {
        wilson95(share, problems)
    } else {
        ends
    }
}

fn estimates(tallies: &[Tally], k: usize) -> Vec<f64> {
    tallies.iter().map(|&tally| pass_at_k(tally, k)).collect()
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        0.0
    } else {
        values.iter().sum::<f64>() / values.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn tally(samples: usize, passed: usize) -> Tally {
        Tally { samples, passed }
    }

    #[test]
    fn small_cases_by_hand() {
        assert_eq!(pass_at_k(tally(10, 0), 1), 0.0);
        assert_eq!(pass_at_k(tally(10, 10), 1), 1.0);
        assert!((pass_at_k(tally(10, 3), 1) - 0.3).abs() < 1e-15);
        // 1 - C(2,2)/C(4,2) = 1 - 1/6
        assert!((pass_at_k(tally(4, 2), 2) - 5.0 / 6.0).abs() < 1e-15);
        // 1 - C(3,2)/C(5,2) = 1 - 3/10
        assert!((pass_at_k(tally(5, 2), 2) - 0.7).abs() < 1e-15);
        // Fewer failures than draws: one of them must be a pass.
        assert_eq!(pass_at_k(tally(5, 3), 3), 1.0);
        assert_eq!(pass_at_k(tally(1, 1), 1), 1.0);
        // A larger k counts as n, and without a pass it is 0.
        assert_eq!(pass_at_k(tally(3, 0), 5), 0.0);
        assert_eq!(pass_at_k(tally(3, 1), 5), 1.0);
    }

    #[test]
    fn the_mean_is_over_problems() {
        assert!((mean_pass_at_k(&[tally(4, 2), tally(10, 0), tally(1, 1)], 1) - 0.5).abs() < 1e-15);
        assert_eq!(mean_pass_at_k(&[], 1), 0.0);
    }

    #[derive(Deserialize)]
    struct Fixture {
        pass_at_k: Vec<(usize, usize, usize, f64)>,
        bootstrap: Bootstrap,
        wilson: Vec<(usize, usize, [f64; 2])>,
    }

    #[derive(Deserialize)]
    struct Bootstrap {
        tallies: Vec<(usize, usize)>,
        k: usize,
        mean: f64,
        ci95: [f64; 2],
        tolerance: f64,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../../../tests/fixtures/passk.json")).unwrap()
    }

    #[test]
    fn agrees_with_exact_fractions() {
        let cases = fixture().pass_at_k;
        assert!(cases.len() > 100);
        for (n, c, k, expected) in cases {
            let got = pass_at_k(tally(n, c), k);
            assert!(
                (got - expected).abs() < 1e-12,
                "n {n} c {c} k {k}: {got} for {expected}"
            );
        }
    }

    #[test]
    fn the_interval_agrees_with_numpy_and_repeats() {
        let Bootstrap {
            tallies,
            k,
            mean,
            ci95,
            tolerance,
        } = fixture().bootstrap;
        let tallies: Vec<Tally> = tallies.into_iter().map(|(n, c)| tally(n, c)).collect();
        assert!((mean_pass_at_k(&tallies, k) - mean).abs() < 1e-12);
        let Interval { ends: got, method } = interval95(&tallies, k, 42);
        assert_eq!(method, IntervalMethod::Bootstrap);
        for (got, expected) in got.iter().zip(ci95) {
            assert!((got - expected).abs() < tolerance, "{got} for {expected}");
        }
        assert_eq!(got, interval95(&tallies, k, 42).ends);
        assert_ne!(got, interval95(&tallies, k, 43).ends);
    }

    #[test]
    fn wilson_s_interval_is_scipy_s() {
        let cases = fixture().wilson;
        assert!(cases.len() >= 20);
        for (passed, n, expected) in cases {
            let got = wilson95(passed as f64 / n as f64, n);
            let near = |i: usize| (got[i] - expected[i]).abs() < 1e-12;
            assert!(near(0) && near(1), "{passed} of {n}: {got:?} for {expected:?}");
        }
        assert_eq!(wilson95(0.0, 0), [0.0, 1.0]);
    }

    #[test]
    fn equal_problems_have_an_interval_with_a_width() {
        // scipy.stats.binomtest(0, n).proportion_ci(0.95, "wilson")
        for (n, high) in [(2, 0.657_619_772_493_347), (500, 0.007_624_340_461_552_237)] {
            let none = interval95(&vec![tally(1, 0); n], 1, 0);
            assert_eq!(none.method, IntervalMethod::Wilson);
            assert!(none.ends[0] == 0.0 && (none.ends[1] - high).abs() < 1e-12, "{none:?}");
            let all = interval95(&vec![tally(3, 3); n], 2, 0);
            assert!(
                all.ends[1] == 1.0 && (all.ends[0] - (1.0 - high)).abs() < 1e-12,
                "{all:?}"
            );
        }
        let half = interval95(&[tally(2, 1); 5], 1, 0);
        assert!(half.ends[0] < 0.25 && half.ends[1] > 0.75, "{half:?}");
        assert_eq!(interval95(&[], 1, 0).ends, [0.0, 1.0]);
    }
}
