//! One text on its way: what it feeds, what is made of the logits that come back, when it ends.

use rand::rngs::Xoshiro256PlusPlus;

use super::{Effort, Finish, Generation, Request};
use crate::random;
use crate::sampling::{Choice, Draft, Sampling};

/// A text in the batch.
pub struct Row<'a> {
    sampling: &'a Sampling,
    /// Most tokens that it may get.
    budget: usize,
    rng: Xoshiro256PlusPlus,
    tokens: Vec<u32>,
    /// What the other heads expect after the next token.
    drafts: Vec<Draft>,
    /// Heads 2..H.
    drafting: usize,
    effort: Effort,
}

impl<'a> Row<'a> {
    /// `budget` tokens at most; `drafting` heads draft.
    pub fn new(request: &'a Request, budget: usize, drafting: usize) -> Self {
        Self {
            sampling: &request.sampling,
            budget,
            rng: random::generator(request.seed, "generate"),
            tokens: Vec::new(),
            drafts: Vec::new(),
            drafting,
            effort: Effort {
                trunk_forwards: 0,
                drafted: vec![0; drafting],
                accepted: vec![0; drafting],
            },
        }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What the trunk reads next, after the text's last token.
    pub fn drafts(&self) -> impl Iterator<Item = u32> {
        self.drafts.iter().map(|draft| draft.token)
    }

    /// Judges the drafts and draws the next token, given head 1's logits after the last token and
    /// after each draft. None if a choice that is needed cannot be made.
    pub fn judge(&mut self, logits: &[f32]) -> Option<Choice> {
        let vocabulary = logits.len() / (self.drafts.len() + 1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary.max(1)).collect();
        let drafts = std::mem::take(&mut self.drafts);
        self.sampling.judge(&logits, &drafts, &mut self.rng)
    }

    /// Takes the tokens that were chosen, `drafted` of them put to the judge. Says why, if the text
    /// has ended.
    pub fn take(
        &mut self,
        choice: &Choice,
        drafted: usize,
        eos: &[u32],
        stop: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Option<Finish> {
        self.effort.trunk_forwards += 1;
        self.effort
            .drafted
            .iter_mut()
            .take(drafted)
            .for_each(|count| *count += 1);
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

    /// Draws the next drafts from the logits `[H - 1, V]` of the heads that draft; no more than there
    /// is room for beside the token that comes anyway.
    pub fn draft(&mut self, logits: &[f32]) {
        let room = self.budget.saturating_sub(self.tokens.len() + 1).min(self.drafting);
        let vocabulary = (logits.len() / self.drafting.max(1)).max(1);
        self.drafts = logits
            .chunks(vocabulary)
            .take(room)
            .map_while(|logits| self.sampling.draft(logits, &mut self.rng))
            .collect();
    }

    /// What came of it.
    pub fn finished(self, finish: Finish) -> Generation {
        Generation {
            tokens: self.tokens,
            finish,
            effort: self.effort,
        }
    }
}
