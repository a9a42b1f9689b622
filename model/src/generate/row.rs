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
    /// What the other heads expect after the next token: ways in which the text may go on.
    ways: Vec<Vec<Draft>>,
    /// Heads 2..H.
    drafting: usize,
    /// Most tokens of drafts at a time.
    most: usize,
    effort: Effort,
}

impl<'a> Row<'a> {
    /// `budget` tokens at most; `drafting` heads draft, `most` tokens at a time.
    pub fn new(request: &'a Request, budget: usize, [drafting, most]: [usize; 2]) -> Self {
        Self {
            sampling: &request.sampling,
            budget,
            rng: random::generator(request.seed, "generate"),
            tokens: Vec::new(),
            ways: Vec::new(),
            drafting,
            most,
            effort: Effort {
                trunk_forwards: 0,
                judged: 0,
                drafted: vec![0; drafting],
                accepted: vec![0; drafting],
            },
        }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What the trunk reads next, after the text's last token: one way or several.
    pub fn ways(&self) -> Vec<Vec<u32>> {
        let tokens = |way: &Vec<Draft>| way.iter().map(|draft| draft.token).collect();
        self.ways.iter().map(tokens).collect()
    }

    /// Judges the drafts and draws the next token, given head 1's logits after the last token and
    /// after each draft, way by way. None if a choice that is needed cannot be made.
    pub fn judge(&mut self, logits: &[f32]) -> Option<Choice> {
        let judged: usize = self.ways.iter().map(Vec::len).sum();
        let longest = self.ways.iter().map(Vec::len).max().unwrap_or(0);
        let effort = &mut self.effort;
        effort.trunk_forwards += 1;
        effort.judged += judged;
        effort.drafted.iter_mut().take(longest).for_each(|count| *count += 1);
        let vocabulary = logits.len() / (judged + 1);
        let logits: Vec<&[f32]> = logits.chunks(vocabulary.max(1)).collect();
        self.sampling
            .judge(&logits, &std::mem::take(&mut self.ways), &mut self.rng)
    }

    /// Takes the tokens that were chosen. Says why, if the text has ended.
    pub fn take(&mut self, choice: &Choice, eos: &[u32], stop: &mut dyn FnMut(&[u32]) -> bool) -> Option<Finish> {
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
        let logits: Vec<&[f32]> = logits.chunks(vocabulary).take(room).collect();
        // No more tokens than heads: one way, and so it stays where fewer heads have room.
        let most = if self.most > self.drafting {
            self.most
        } else {
            self.most.min(room)
        };
        self.ways = self.sampling.drafts(&logits, most, &mut self.rng);
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
