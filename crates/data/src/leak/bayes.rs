//! Naive Bayes with two classes: multinomial over counted features, Gaussian over one number.

use std::collections::HashMap;

/// Added to every count (Laplace).
const SMOOTHING: f64 = 1.0;

/// A program's features with their counts, by number.
pub type Document = Vec<(u32, f64)>;

/// Multinomial naive Bayes: log P(right) - log P(wrong) + the sum over features of
/// count * (log P(feature | right) - log P(feature | wrong)), with
/// P(feature | class) = (count in class + 1) / (all counts in class + size of the vocabulary).
/// Features that the training programs do not have count for nothing.
#[derive(Debug)]
pub struct Multinomial {
    prior: f64,
    odds: HashMap<u32, f64>,
}

impl Multinomial {
    /// From programs and their labels; None without programs of both labels.
    pub fn fit<'a>(programs: impl Iterator<Item = (&'a [(u32, f64)], bool)>) -> Option<Self> {
        let mut counts: HashMap<u32, [f64; 2]> = HashMap::new();
        let (mut totals, mut classes) = ([0.0f64; 2], [0.0f64; 2]);
        for (document, right) in programs {
            let class = usize::from(right);
            classes[class] += 1.0;
            for &(feature, count) in document {
                counts.entry(feature).or_default()[class] += count;
                totals[class] += count;
            }
        }
        let [wrong, right] = totals.map(|total| (total + SMOOTHING * counts.len() as f64).ln());
        let log_odds = |[w, r]: [f64; 2]| ((r + SMOOTHING).ln() - right) - ((w + SMOOTHING).ln() - wrong);
        (classes[0] > 0.0 && classes[1] > 0.0).then(|| Self {
            prior: classes[1].ln() - classes[0].ln(),
            odds: counts
                .into_iter()
                .map(|(feature, count)| (feature, log_odds(count)))
                .collect(),
        })
    }

    /// The log odds of a program to be right.
    pub fn log_odds(&self, document: &[(u32, f64)]) -> f64 {
        let known = document
            .iter()
            .filter_map(|(feature, count)| Some(count * self.odds.get(feature)?));
        self.prior + known.sum::<f64>()
    }
}

/// Naive Bayes with a normal distribution for each class, each with its own mean and variance.
#[derive(Debug)]
pub struct Gaussian {
    /// Share, mean and variance of wrong and right ones.
    classes: [(f64, f64, f64); 2],
}

impl Gaussian {
    /// From numbers and their labels; None without both labels.
    pub fn fit(values: impl Iterator<Item = (f64, bool)>) -> Option<Self> {
        let mut of: [Vec<f64>; 2] = Default::default();
        for (value, right) in values {
            of[usize::from(right)].push(value);
        }
        let moments = |values: &Vec<f64>| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
            // Equal numbers are a normal distribution of almost no width.
            (n, mean, variance.max(1e-9))
        };
        of.iter().all(|values| !values.is_empty()).then(|| Self {
            classes: [moments(&of[0]), moments(&of[1])],
        })
    }

    /// The log odds of a program with this number to be right.
    pub fn log_odds(&self, value: f64) -> f64 {
        let [wrong, right] = self
            .classes
            .map(|(n, mean, variance)| n.ln() - 0.5 * (variance.ln() + (value - mean).powi(2) / variance));
        right - wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multinomial_odds_are_those_computed_by_hand() {
        // Right: a a b; wrong: b, c. V = 3, P(a|right) = 3/6, P(a|wrong) = 1/5, P(b|right) = 2/6, P(b|wrong) = 2/5.
        let programs: [(Document, bool); 3] = [
            (vec![(0, 2.0), (1, 1.0)], true),
            (vec![(1, 1.0)], false),
            (vec![(2, 1.0)], false),
        ];
        let model = Multinomial::fit(programs.iter().map(|(d, right)| (d.as_slice(), *right))).unwrap();
        let expected = (0.5f64).ln() + (2.5f64).ln() + 2.0 * (5.0f64 / 6.0).ln();
        // Feature 9 is unknown.
        assert!((model.log_odds(&[(0, 1.0), (1, 2.0), (9, 5.0)]) - expected).abs() < 1e-12);
        assert!(Multinomial::fit(programs.iter().take(1).map(|(d, right)| (d.as_slice(), *right))).is_none());
    }

    #[test]
    fn gaussian_odds_are_those_computed_by_hand() {
        // Right: 1, 3 (mean 2, variance 1); wrong: 2, 6, 7 (mean 5, variance 14/3).
        let values = [(1.0, true), (3.0, true), (2.0, false), (6.0, false), (7.0, false)];
        let model = Gaussian::fit(values.into_iter()).unwrap();
        let variance = 14.0f64 / 3.0;
        let expected = (2.0f64 / 3.0).ln() - 0.5 * 4.0 + 0.5 * (variance.ln() + 1.0 / variance);
        assert!((model.log_odds(4.0) - expected).abs() < 1e-12);
        assert!(Gaussian::fit([(1.0, true)].into_iter()).is_none());
    }
}
