//! Sampling of the next tokens from logits: greedily, or from the nucleus; and draft trees with their
//! verification.
//!
//! Runs on the host in f64, so that the same logits, settings and generator give the same token on
//! every device. Nothing here knows the model.

use rand::{Rng, RngExt};

use crate::error::ModelError;

/// Settings of generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is greedy: the highest logit, the lowest id among equals.
    pub temperature: f64,
    /// Tokens are drawn from the smallest set of most probable tokens whose probabilities (after
    /// the temperature) add up to at least this, above 0 and up to 1 (Holtzman et al. 2020, arXiv
    /// 1904.09751).
    pub top_p: f64,
    /// Most tokens to generate for one prompt.
    pub max_new_tokens: usize,
}

impl Sampling {
    /// Greedy generation of at most `max_new_tokens`.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            max_new_tokens,
        }
    }

    /// # Errors
    /// A setting is out of its range.
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(ModelError::Request(format!(
                "the sampling temperature is {}, it must be 0 (greedy) or above",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(ModelError::Request(format!(
                "the sampling top_p is {}, it must be above 0 and at most 1",
                self.top_p
            )));
        }
        Ok(())
    }

    /// The next token after `logits` (one a token id). Greedy sampling leaves `rng` alone; any other
    /// takes one number from it. None where no choice can be made: a logit is NaN or +infinity,
    /// there is none, or all are -infinity.
    fn pick(&self, logits: &[f32], rng: &mut impl Rng) -> Option<u32> {
        if self.temperature == 0.0 {
            return highest(logits).map(|(id, _)| id);
        }
        drawn(&self.nucleus(logits)?, rng)
    }

    /// What logits are multiplied with before they are probabilities.
    pub(crate) fn sharpness(&self) -> f64 {
        match self.temperature > 0.0 {
            true => 1.0 / self.temperature,
            false => 1.0,
        }
    }

    /// The next tokens, of which drafts may be some: `logits` are the target's (head 1's) before the drafts, then
    /// after each token of the first branch, of the second, and so on; no two branches begin with the same token.
    ///
    /// Every token is [`Sampling::pick`]ed from the target's logits, one after another, as without drafts, and a
    /// draft is accepted where it is that token. So the text is the same with any drafts, and with none: a
    /// sampled token depends on its logits and on `rng`, from which each takes one number (Daliri et al.
    /// 2024, arXiv 2408.07978). None where a choice that is needed cannot be made.
    pub(crate) fn verify(&self, logits: &[&[f32]], branches: &[Vec<u32>], rng: &mut impl Rng) -> Option<Choice> {
        let (before, mut rest) = logits.split_first()?;
        let mut token = self.pick(before, rng)?;
        let mut choice = Choice {
            tokens: vec![token],
            accepted: 0,
            branch: 0,
        };
        for (branch, drafts) in branches.iter().enumerate() {
            let (own, others) = rest.split_at_checked(drafts.len())?;
            rest = others;
            if drafts.first() != Some(&token) {
                continue;
            }
            choice.branch = branch;
            for (draft, logits) in drafts.iter().zip(own) {
                if *draft != token {
                    break;
                }
                choice.accepted += 1;
                token = self.pick(logits, rng)?;
                choice.tokens.push(token);
            }
            break;
        }
        Some(choice)
    }

    /// The tokens of the nucleus with their probabilities among all tokens, most probable first
    /// (lowest id first among equals); all that have any, by id, where top_p is 1.
    fn nucleus(&self, logits: &[f32]) -> Option<Vec<(u32, f64)>> {
        /// Logarithm of weights that vanish in the sum of all, which is 1 at least.
        const LOST: f64 = -60.0;
        let (_, top) = highest(logits)?;
        let top = f64::from(top);
        let exponents = logits.iter().map(|logit| (f64::from(*logit) - top) / self.temperature);
        let weighed = (0u32..).zip(exponents).filter(|(_, x)| *x > LOST);
        let mut nucleus: Vec<(u32, f64)> = weighed.map(|(id, x)| (id, x.exp())).collect();
        let total: f64 = nucleus.iter().map(|(_, weight)| weight).sum();
        nucleus.iter_mut().for_each(|(_, weight)| *weight /= total);
        if self.top_p == 1.0 {
            return Some(nucleus);
        }
        // All tokens below this share add up to less than 1 - top_p, so those before them reach
        // top_p: leaving them out keeps the sort short and changes nothing.
        let least = (1.0 - self.top_p) / logits.len() as f64;
        nucleus.retain(|(_, share)| *share >= least);
        nucleus.sort_unstable_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
        let mut sum = 0.0;
        let reached = nucleus.iter().position(|(_, share)| {
            sum += share;
            sum >= self.top_p
        });
        nucleus.truncate(reached.map_or(nucleus.len(), |index| index + 1));
        Some(nucleus)
    }
}

/// The tokens by which verification continues a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Accepted drafts, then one token of the target's own.
    pub tokens: Vec<u32>,
    /// Number of accepted drafts.
    pub accepted: usize,
    /// The branch that they belong to, if there are any.
    pub branch: usize,
}

/// The `most` tokens of the highest logits with their probabilities, the highest first, the lowest id
/// first among equals, where logits are multiplied with `sharpness`; none where no choice can be made.
pub(crate) fn most_probable(logits: &[f32], most: usize, sharpness: f64) -> Vec<(u32, f64)> {
    let Some((_, top)) = highest(logits) else {
        return Vec::new();
    };
    let before = |(a, x): &(u32, f32), (b, y): &(u32, f32)| y.total_cmp(x).then(a.cmp(b));
    let mut found: Vec<(u32, f32)> = Vec::with_capacity(most + 1);
    for (id, logit) in (0u32..).zip(logits) {
        if found.len() == most && found.last().is_none_or(|(_, least)| logit <= least) {
            continue;
        }
        let at = found
            .binary_search_by(|other| before(other, &(id, *logit)))
            .unwrap_or_else(|at| at);
        found.insert(at, (id, *logit));
        found.truncate(most);
    }
    let sharpness = sharpness.min(1e6) as f32;
    let total: f64 = logits
        .iter()
        .map(|logit| f64::from(((logit - top) * sharpness).exp()))
        .sum();
    let share = |logit: f32| f64::from((logit - top) * sharpness).exp() / total;
    found.into_iter().map(|(id, logit)| (id, share(logit))).collect()
}

/// A token, each as probable as its share of the sum. One number is taken from `rng`.
fn drawn(shares: &[(u32, f64)], rng: &mut impl Rng) -> Option<u32> {
    let total: f64 = shares.iter().map(|(_, share)| share).sum();
    let point = rng.random::<f64>() * total;
    let mut sum = 0.0;
    let drawn = shares.iter().find(|(_, share)| {
        sum += share;
        point < sum
    });
    // Rounding can leave the point at the very end.
    drawn.or(shares.last()).map(|(id, _)| *id)
}

/// Id and value of the highest logit, the lowest id among equals; none if that is not a finite
/// number or any logit is NaN.
fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    /// Maxima that are kept at a time: the lanes of the widest vectors.
    const LANES: usize = 16;
    // The highest of each lane first: that vectorises, and so does the search for NaN.
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut numbers = [true; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
            numbers[l] &= !chunk[l].is_nan();
        }
    }
    if numbers.contains(&false) || rest.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let top = lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    let id = (0u32..).zip(logits).find(|(_, logit)| **logit == top)?.0;
    top.is_finite().then_some((id, top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    fn sampling(temperature: f64, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_p,
            max_new_tokens: 1,
        }
    }

    /// Probabilities 0.1, 0.5, 0.15, 0.25.
    fn logits() -> Vec<f32> {
        [0.1f32, 0.5, 0.15, 0.25].map(f32::ln).to_vec()
    }

    fn support(temperature: f64, top_p: f64, logits: &[f32]) -> Vec<u32> {
        let nucleus = sampling(temperature, top_p).nucleus(logits).unwrap();
        nucleus.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        assert_eq!(support(1.0, 0.01, &logits()), [1]);
        assert_eq!(support(1.0, 0.49, &logits()), [1]);
        assert_eq!(support(1.0, 0.51, &logits()), [1, 3]);
        assert_eq!(support(1.0, 0.74, &logits()), [1, 3]);
        assert_eq!(support(1.0, 0.76, &logits()), [1, 3, 2]);
        assert_eq!(support(1.0, 0.91, &logits()), [1, 3, 2, 0]);
        assert_eq!(support(1.0, 1.0, &logits()), [0, 1, 2, 3]);
        // Exactly reached: two halves.
        assert_eq!(support(1.0, 0.5, &[0.0, 0.0]), [0]);
    }

    #[test]
    fn the_temperature_acts_before_the_nucleus() {
        // Temperature 1/2 squares the probabilities: 1, 25, 2.25, 6.25 of 34.5, so 0.725 and 0.181.
        assert_eq!(support(0.5, 0.72, &logits()), [1]);
        assert_eq!(support(0.5, 0.73, &logits()), [1, 3]);
        assert_eq!(support(0.5, 0.91, &logits()), [1, 3, 2]);
    }

    #[test]
    fn equal_logits_are_taken_by_id() {
        // Shares 0.297, 0.109, 0.297, 0.297.
        assert_eq!(support(1.0, 0.59, &[2.0, 1.0, 2.0, 2.0]), [0, 2]);
        let mut rng = generator(1, "test");
        assert_eq!(sampling(0.0, 1.0).pick(&[0.0, 3.0, 3.0], &mut rng), Some(1));
    }

    #[test]
    fn leaving_out_improbable_tokens_does_not_change_the_nucleus() {
        let mut rng = generator(3, "test");
        for top_p in [0.1, 0.5, 0.9, 0.95, 0.999] {
            let logits: Vec<f32> = (0..500).map(|_| rng.random::<f32>() * 12.0).collect();
            // The definition, with all tokens sorted.
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let mut ids: Vec<u32> = (0..500).collect();
            ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            let mut sum = 0.0;
            let mut expected = Vec::new();
            for id in ids {
                expected.push(id);
                sum += f64::from(logits[id as usize]).exp() / total;
                if sum >= top_p {
                    break;
                }
            }
            assert_eq!(support(1.0, top_p, &logits), expected, "top_p {top_p}");
        }
    }

    #[test]
    fn drawn_shares_are_the_probabilities_within_the_nucleus() {
        let (sampling, mut rng) = (sampling(1.0, 0.8), generator(5, "test"));
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[sampling.pick(&logits(), &mut rng).unwrap() as usize] += 1;
        }
        // 0.5, 0.25 and 0.15 of 0.9; token 0 is outside. Standard deviation 100 at most.
        assert_eq!(counts[0], 0);
        for (count, share) in [(counts[1], 0.5), (counts[3], 0.25), (counts[2], 0.15)] {
            let expected = 40_000.0 * share / 0.9;
            assert!((f64::from(count) - expected).abs() < 400.0, "{counts:?}");
        }
    }

    #[test]
    fn extreme_settings_and_logits_still_give_a_token() {
        let mut rng = generator(7, "test");
        assert_eq!(sampling(1e-300, 1.0).pick(&logits(), &mut rng), Some(1));
        assert_eq!(sampling(1.0, 1e-300).pick(&logits(), &mut rng), Some(1));
        assert!(sampling(1e300, 1.0).pick(&logits(), &mut rng).is_some());
        let masked = [f32::NEG_INFINITY, f32::MIN, f32::NEG_INFINITY];
        assert_eq!(sampling(1.0, 1.0).pick(&masked, &mut rng), Some(1));
    }

    #[test]
    fn no_token_is_made_up_where_logits_are_not_numbers() {
        let mut rng = generator(7, "test");
        for temperature in [0.0, 1.0] {
            let sampling = sampling(temperature, 1.0);
            for bad in [
                &[0.0, f32::NAN][..],
                &[f32::NAN, 0.0],
                &[0.0, f32::INFINITY],
                &[f32::NEG_INFINITY],
                &[],
            ] {
                assert_eq!(sampling.pick(bad, &mut rng), None, "{bad:?}");
            }
        }
    }
}
