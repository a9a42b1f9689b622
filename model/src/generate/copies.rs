//! Drafts from the text itself: what followed the last few tokens where they occurred before, in the prompt or in what
//! was generated (prompt lookup; Saxena 2023, Yang et al. 2023). They cost no pass through any head; code repeats
//! its names and calls.

/// Tokens that have to be the same before a copy, at least.
const SHORTEST: usize = 2;
/// Tokens that are compared, at most.
const LONGEST: usize = 4;
/// Tokens that are copied, at most.
const COPIED: usize = 8;
/// How often the first token is taken to be right before that is known, by the number of tokens that are the same;
/// and each later one after a right one.
const FIRST: [f64; LONGEST - SHORTEST + 1] = [0.25, 0.4, 0.6];
const LATER: f64 = 0.7;
/// How many tokens that is worth.
const WEIGHT: f64 = 4.0;
/// What is kept of older counts with each new one.
const KEPT: f64 = 0.98;

/// A copy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copy {
    /// One at least.
    tokens: Vec<u32>,
    /// Tokens before it that are the same, from [`SHORTEST`] on.
    same: usize,
}

impl Copy {
    /// What followed the end of `prompt` and `tokens` before: after the longest end that occurred, the last time that
    /// it did; none if there is no such place.
    pub fn of(prompt: &[u32], tokens: &[u32]) -> Option<Self> {
        let length = prompt.len() + tokens.len();
        let at = |i: usize| match i < prompt.len() {
            true => prompt[i],
            false => tokens[i - prompt.len()],
        };
        let mut best: Option<(usize, usize)> = None;
        for end in (SHORTEST..length).rev() {
            let most = LONGEST.min(end);
            let same = (1..=most).take_while(|i| at(end - i) == at(length - i)).count();
            if same >= SHORTEST && best.is_none_or(|(_, longest)| same > longest) {
                best = Some((end, same));
                if same == LONGEST {
                    break;
                }
            }
        }
        let (end, same) = best?;
        let tokens = (end..length.min(end + COPIED)).map(at).collect();
        Some(Self { tokens, same })
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// How often tokens were right, with older ones fading.
#[derive(Debug, Clone, Copy)]
struct Rate {
    right: f64,
    all: f64,
}

impl Rate {
    fn new(expected: f64) -> Self {
        Self {
            right: WEIGHT * expected,
            all: WEIGHT,
        }
    }

    fn add(&mut self, is_right: bool) {
        self.right = KEPT * self.right + f64::from(u8::from(is_right));
        self.all = KEPT * self.all + 1.0;
    }

    fn value(self) -> f64 {
        self.right / self.all
    }
}

/// How often copies were right in all texts, whether they were verified or not.
#[derive(Debug)]
pub struct CopyRates {
    first: [Rate; FIRST.len()],
    later: Rate,
}

impl CopyRates {
    /// Before anything is known.
    pub fn new() -> Self {
        Self {
            first: FIRST.map(Rate::new),
            later: Rate::new(LATER),
        }
    }

    /// The probability of the copy's first token, and of each later one after those before it.
    pub fn of(&self, copy: &Copy) -> [f64; 2] {
        let first = self.first[(copy.same - SHORTEST).min(FIRST.len() - 1)];
        [first.value(), self.later.value()]
    }

    /// Learns from the tokens that came in place of the copy's.
    pub fn learn(&mut self, copy: &Copy, tokens: &[u32]) {
        for (i, (copied, token)) in copy.tokens.iter().zip(tokens).enumerate() {
            let is_right = copied == token;
            match i {
                0 => self.first[(copy.same - SHORTEST).min(FIRST.len() - 1)].add(is_right),
                _ => self.later.add(is_right),
            }
            if !is_right {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(prompt: &[u32], tokens: &[u32]) -> Option<(Vec<u32>, usize)> {
        Copy::of(prompt, tokens).map(|copy| (copy.tokens, copy.same))
    }

    #[test]
    fn the_longest_end_that_occurred_is_continued() {
        // 7 8 occurs twice, 6 7 8 once.
        let text = [6, 7, 8, 1, 2, 7, 8, 3, 6, 7, 8];
        for cut in [0, 4, 11] {
            let (prompt, tokens) = text.split_at(cut);
            assert_eq!(copy(prompt, tokens), Some((vec![1, 2, 7, 8, 3, 6, 7, 8], 3)));
        }
        // The last place among equals, and no more tokens than there are.
        assert_eq!(copy(&[1, 2, 3, 1, 2, 4], &[1, 2]), Some((vec![4, 1, 2], 2)));
        // Four are compared at most.
        let long = [1, 2, 3, 4, 5, 6, 9, 2, 3, 4, 5, 7, 1, 2, 3, 4, 5];
        assert_eq!(copy(&long, &[]), Some((vec![7, 1, 2, 3, 4, 5], 4)));
        // A text that repeats itself overlaps its copy.
        assert_eq!(copy(&[5, 5], &[5, 5]), Some((vec![5], 3)));
    }

    #[test]
    fn there_is_no_copy_of_what_is_new_or_short() {
        assert_eq!(copy(&[1, 2, 3], &[4, 3]), None, "one token alone is not enough");
        assert_eq!(copy(&[1], &[2]), None);
        assert_eq!(copy(&[], &[]), None);
    }

    #[test]
    fn rates_follow_what_came() {
        let mut rates = CopyRates::new();
        let copy = Copy {
            tokens: vec![1, 2, 3],
            same: 2,
        };
        assert_eq!(rates.of(&copy), [0.25, 0.7]);
        // Right, right, wrong: one first token, two later ones.
        rates.learn(&copy, &[1, 2, 9]);
        let [first, later] = rates.of(&copy);
        assert!((first - 1.98 / 4.92).abs() < 1e-12, "{first}");
        assert!(
            (later - (2.8 * 0.98 + 1.0) * 0.98 / ((4.0 * 0.98 + 1.0) * 0.98 + 1.0)).abs() < 1e-12,
            "{later}"
        );
        // What comes behind a wrong token says nothing.
        rates.learn(&copy, &[7, 2, 3]);
        assert_eq!(rates.of(&copy)[1], later);
        assert!(rates.of(&copy)[0] < first);
        // Others are not touched.
        let longer = Copy { same: 4, ..copy };
        assert_eq!(rates.of(&longer), [0.6, later]);
    }
}
