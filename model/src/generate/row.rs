//! The state of one text in the batch: its tokens, the drafts to verify next, and when it ends.

use rand::rngs::Xoshiro256PlusPlus;

use super::candidates::{Candidates, Copied, Draft};
use super::copies::{Copy, CopyRates};
use super::request::{Effort, Finish, Generation, Request};
use crate::random;
use crate::sampling::{Choice, Sampling};

/// A text in the batch.
pub struct Row<'a> {
    prompt: &'a [u32],
    sampling: &'a Sampling,
    /// Maximum number of new tokens.
    budget: usize,
    rng: Xoshiro256PlusPlus,
    tokens: Vec<u32>,
    /// What may follow the next token.
    candidates: Candidates,
    /// Branches of those that the next step verifies.
    branches: Vec<Vec<Draft>>,
    /// What followed the text's end where it occurred before.
    copy: Option<Copy>,
    /// Number of heads that draft, 2..H.
    drafting: usize,
    /// Maximum number of draft tokens in a step.
    most: usize,
    effort: Effort,
}

impl<'a> Row<'a> {
    /// At most `budget` new tokens; `drafting` heads draft, at most `most` tokens in a step.
    pub fn new(request: &'a Request, budget: usize, [drafting, most]: [usize; 2]) -> Self {
        Self {
            prompt: &request.tokens,
            sampling: &request.sampling,
            budget,
            rng: random::generator(request.seed, "generate"),
            tokens: Vec::new(),
            candidates: Candidates::default(),
            branches: Vec::new(),
            copy: None,
            drafting,
            most,
            effort: Effort {
                trunk_forwards: 0,
                verified: 0,
                drafted: vec![0; drafting],
                accepted: vec![0; drafting],
                copied: 0,
            },
        }
    }

    /// The new tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What may follow the next token.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Takes the `count` most probable candidates as drafts, and returns their branches.
    pub fn take(&mut self, count: usize) -> Vec<Vec<u32>> {
        self.branches = std::mem::take(&mut self.candidates).branches(count);
        self.branches.iter().map(|branch| tokens(branch)).collect()
    }

    /// What followed the text's end where it occurred before, if that was looked up.
    pub fn copy(&self) -> Option<&Copy> {
        self.copy.as_ref()
    }

    /// Verifies the drafts and draws the next token, given head 1's logits after the last token and after
    /// each draft, branch by branch. None if a choice that is needed cannot be made.
    pub fn verify(&mut self, logits: &[f32]) -> Option<Choice> {
        let drafts: usize = self.branches.iter().map(Vec::len).sum();
        let effort = &mut self.effort;
        effort.trunk_forwards += 1;
        effort.verified += drafts;
        for (i, count) in effort.drafted.iter_mut().enumerate() {
            let of_head = |branch: &Vec<Draft>| branch.get(i).is_some_and(|draft| draft.of_head);
            *count += usize::from(self.branches.iter().any(of_head));
        }
        let vocabulary = logits.len() / (drafts + 1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary.max(1)).collect();
        let branches: Vec<Vec<u32>> = self.branches.iter().map(|branch| tokens(branch)).collect();
        self.sampling.verify(&logits, &branches, &mut self.rng)
    }

    /// Of the accepted drafts of a choice, those that a head gave, by depth.
    pub fn of_heads(&self, choice: &Choice) -> Vec<bool> {
        let branch = self.branches.get(choice.branch).map_or(&[][..], Vec::as_slice);
        branch.iter().take(choice.accepted).map(|draft| draft.of_head).collect()
    }

    /// Appends the chosen tokens. Returns the reason if the text has ended.
    pub fn append(&mut self, choice: &Choice, eos: &[u32], stop: &mut dyn FnMut(&[u32]) -> bool) -> Option<Finish> {
        let of_heads = self.of_heads(choice);
        self.branches.clear();
        for (i, token) in choice.tokens.iter().enumerate() {
            match (of_heads.get(i), self.effort.accepted.get_mut(i)) {
                (Some(true), Some(count)) => *count += 1,
                (Some(_), _) => self.effort.copied += 1,
                (None, _) => {}
            }
            if eos.contains(token) {
                return Some(Finish::Eos);
            }
            self.tokens.push(*token);
            if stop(&self.tokens) {
                return Some(Finish::Stop);
            }
            if self.tokens.len() >= self.budget {
                return Some(Finish::Length);
            }
        }
        None
    }

    /// Finds the next candidates in the logits `[heads, V]` of heads that draft and, with `rates`, in the text; no more
    /// than the budget leaves in addition to the next token.
    pub fn draft(&mut self, logits: &[f32], heads: usize, rates: Option<&CopyRates>) {
        let left = self.budget.saturating_sub(self.tokens.len() + 1);
        let room = left.min(heads);
        let vocabulary = (logits.len() / heads.max(1)).max(1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary).take(room).collect();
        self.copy = rates.and_then(|_| Copy::of(self.prompt, &self.tokens));
        let copied = rates.zip(self.copy.as_ref()).map(|(rates, copy)| Copied {
            tokens: &copy.tokens()[..copy.tokens().len().min(left)],
            probabilities: rates.of(copy),
        });
        // No more tokens than heads: one branch.
        let width = if self.most > self.drafting { self.most } else { 1 };
        self.candidates = Candidates::new(self.sampling, &logits, copied, [width, self.most]);
    }

    /// The generation, which has ended for this reason.
    pub fn finished(self, finish: Finish) -> Generation {
        Generation {
            tokens: self.tokens,
            finish,
            effort: self.effort,
        }
    }
}

fn tokens(branch: &[Draft]) -> Vec<u32> {
    branch.iter().map(|draft| draft.token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of which each row's highest is that of one token.
    fn logits(tokens: &[usize]) -> Vec<f32> {
        let row = |token: &usize| {
            (0..5)
                .map(|i| if i == *token { 1.0 } else { 0.0 })
                .collect::<Vec<f32>>()
        };
        tokens.iter().flat_map(row).collect()
    }

    #[test]
    fn a_copy_is_drafted_verified_and_counted_apart_from_heads() {
        let request = Request {
            tokens: vec![1, 2, 3, 1, 2],
            seed: 0,
            sampling: Sampling::greedy(4),
        };
        let rates = CopyRates::new();
        let mut row = Row::new(&request, 4, [1, 7]);
        row.draft(&[], 0, Some(&rates));
        let of_copies: Vec<f64> = row.candidates().probabilities().collect();
        assert_eq!(
            of_copies.len(),
            3,
            "no more than the budget leaves in addition to the next token"
        );
        for (found, expected) in of_copies.iter().zip([0.25, 0.175, 0.1225]) {
            assert!((found - expected).abs() < 1e-12, "{of_copies:?}");
        }
        assert_eq!(row.take(2), [[3, 1]]);
        let choice = row.verify(&logits(&[3, 1, 4])).expect("logits are finite");
        assert_eq!((&choice.tokens[..], choice.accepted), (&[3, 1, 4][..], 2));
        assert_eq!(row.of_heads(&choice), [false, false]);
        assert_eq!(row.append(&choice, &[], &mut |_| false), None);
        // The head says 0 with 0.4, and the text has not had 1 4 before.
        row.draft(&logits(&[0]), 1, Some(&rates));
        assert_eq!(row.copy(), None);
        assert_eq!(
            row.take(1),
            Vec::<Vec<u32>>::new(),
            "the budget leaves the next token alone"
        );
        let choice = row.verify(&logits(&[0])).expect("logits are finite");
        assert_eq!(row.append(&choice, &[], &mut |_| false), Some(Finish::Length));
        let effort = row.finished(Finish::Length).effort;
        assert_eq!((effort.trunk_forwards, effort.verified, effort.copied), (2, 2, 2));
        assert_eq!((effort.drafted, effort.accepted), (vec![0], vec![0]));
    }
}
