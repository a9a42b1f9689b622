//! What a caller of generation passes in and gets back.

use super::prepared::PreparedWeights;
use crate::sampling::Sampling;

/// What to continue, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids, at least one.
    pub tokens: Vec<u32>,
    /// Seed of this request's own generator; the other requests of a call do not touch it.
    pub seed: u64,
    /// Temperature, top-p and length.
    pub sampling: Sampling,
}

/// How the requests of a call are processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoding {
    /// Maximum number of texts in the batch. The KV caches hold at most about this number times
    /// `max_position_embeddings` tokens, and no more than the texts are long.
    pub rows: usize,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Common prefixes of prompts are computed once.
    pub share_prefixes: bool,
    /// Heads 2..H draft the tokens after the next one, and head 1 verifies them.
    pub speculative: bool,
    /// Maximum number of draft tokens of a text that one step verifies, at least one. On flex more than H - 1 make
    /// a draft tree of several branches; other devices take one branch.
    pub drafts: usize,
    /// On flex: as many of them as make the text come fastest, by what steps take and how often drafts are
    /// accepted, and none where that is best. Otherwise always all.
    pub adaptive: bool,
    /// In place of the model's own.
    pub prepared: Option<PreparedWeights>,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            rows: 16,
            eos: Vec::new(),
            share_prefixes: true,
            speculative: false,
            drafts: 7,
            adaptive: true,
            prepared: None,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave an end token.
    Eos,
    /// The caller's `stop` said so.
    Stop,
    /// `max_new_tokens` were generated, or prompt and new tokens fill `max_position_embeddings`.
    Length,
}

/// The continuation of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, without the prompt and without the end token. The token at which `stop`
    /// said so is included.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// What it cost.
    pub effort: Effort,
}

/// The cost of a generation in addition to reading its prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effort {
    /// Passes through the trunk that this text took part in. Without speculation one for each token,
    /// an end token included.
    pub trunk_forwards: usize,
    /// Draft tokens that head 1 verified.
    pub verified: usize,
    /// Passes in which a draft token of head 2, 3, ... was verified. Empty without speculation.
    pub drafted: Vec<usize>,
    /// Of these, the passes in which one was accepted (end tokens included).
    pub accepted: Vec<usize>,
    /// Accepted draft tokens that were copied from the text, and that no head gave.
    pub copied: usize,
}

impl Effort {
    /// Adds another text's cost.
    pub fn add(&mut self, other: &Self) {
        self.trunk_forwards += other.trunk_forwards;
        self.verified += other.verified;
        self.copied += other.copied;
        for (all, more) in [
            (&mut self.drafted, &other.drafted),
            (&mut self.accepted, &other.accepted),
        ] {
            all.resize(all.len().max(more.len()), 0);
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
    }
}

/// The cost of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passes of the batch through the trunk, without those that read prompts.
    pub trunk_forwards: usize,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Of these, the computed ones; the others were shared.
    pub prompt_tokens_read: usize,
    /// Tokens generated, without end tokens.
    pub tokens: usize,
}
