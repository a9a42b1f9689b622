//! The state of one text in the batch: its tokens, the drafts to verify next, and when it ends.

use rand::rngs::Xoshiro256PlusPlus;

use super::request::{Effort, Finish, Generation, Request};
use crate::random;
use crate::sampling::{Candidates, Choice, Sampling};

/// A text in the batch.
pub struct Row<'a> {
    sampling: &'a Sampling,
    /// Maximum number of new tokens.
    budget: usize,
    rng: Xoshiro256PlusPlus,
    tokens: Vec<u32>,
    /// What may follow the next token.
    candidates: Candidates,
    /// Branches of those that the next step verifies.
    branches: Vec<Vec<u32>>,
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
            sampling: &request.sampling,
            budget,
            rng: random::generator(request.seed, "generate"),
            tokens: Vec::new(),
            candidates: Candidates::default(),
            branches: Vec::new(),
            drafting,
            most,
            effort: Effort {
                trunk_forwards: 0,
                verified: 0,
                drafted: vec![0; drafting],
                accepted: vec![0; drafting],
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
        self.branches.clone()
    }

    /// Verifies the drafts and draws the next token, given head 1's logits after the last token and after
    /// each draft, branch by branch. None if a choice that is needed cannot be made.
    pub fn verify(&mut self, logits: &[f32]) -> Option<Choice> {
        let drafts: usize = self.branches.iter().map(Vec::len).sum();
        let longest = self.branches.iter().map(Vec::len).max().unwrap_or(0);
        let effort = &mut self.effort;
        effort.trunk_forwards += 1;
        effort.verified += drafts;
        effort.drafted.iter_mut().take(longest).for_each(|count| *count += 1);
        let vocabulary = logits.len() / (drafts + 1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary.max(1)).collect();
        self.sampling
            .verify(&logits, &std::mem::take(&mut self.branches), &mut self.rng)
    }

    /// Appends the chosen tokens. Returns the reason if the text has ended.
    pub fn append(&mut self, choice: &Choice, eos: &[u32], stop: &mut dyn FnMut(&[u32]) -> bool) -> Option<Finish> {
        for (i, token) in choice.tokens.iter().enumerate() {
            if let Some(count) = self.effort.accepted.get_mut(i).filter(|_| i < choice.accepted) {
                *count += 1;
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

    /// Finds the next candidates in the logits `[heads, V]` of heads that draft; no more than the budget leaves in
    /// addition to the next token.
    pub fn draft(&mut self, logits: &[f32], heads: usize) {
        let room = self.budget.saturating_sub(self.tokens.len() + 1).min(heads);
        let vocabulary = (logits.len() / heads.max(1)).max(1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary).take(room).collect();
        // No more tokens than heads: one branch, also where the budget leaves room for fewer.
        let most = if self.most > self.drafting {
            self.most
        } else {
            self.most.min(room)
        };
        self.candidates = self.sampling.candidates(&logits, most);
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
