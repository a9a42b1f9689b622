//! Scorers: what makes one token matter more than another.
//!
//! A [`Scorer`] looks at a batch (and, if it asks for them, at head 1's hidden states and per-token
//! cross-entropy, always without gradient) and gives every response token a finite score. The
//! normaliser ([`weights`]) turns scores into weights with mean 1 and fixed bounds. A scorer knows
//! neither the trainer nor the optimizer.

mod config;
pub mod critic;
mod given;
pub mod offline;
mod position;
mod random;
mod rho1;
mod shuffled;
mod uniform;
pub mod weights;

use burn::tensor::Tensor;
use wmtp_data::Batch;
use wmtp_device::ReadError;

pub use config::{ModelsNeeded, Parts, Pipeline, ScorerConfig, ScoringTime};
pub use critic::{
    CriticConfig, CriticLoss, CriticScorer, InitialValue, Pseudo, Reward, SequenceReward, Spread, ValueUse, Values,
    Verified,
};
pub use given::{Given, GivenConfig};
pub use offline::{CachedScores, Offline};
pub use position::{Position, PositionConfig};
pub use random::{Random, RandomConfig};
pub use rho1::{Rho1, Rho1Config, Rho1Mode, Rho1Score, TokenCe};
pub use shuffled::{Shuffled, ShuffledConfig};
pub use uniform::{Uniform, UniformConfig};
pub use weights::{Fallback, FallbackTally, Normaliser, WeightGroup, WeightStats, WeightsConfig, WeightsReport};

/// What a scorer wants computed for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Head 1's hidden states after the final norm.
    pub hidden: bool,
    /// Head 1's cross-entropy of every token.
    pub ce: bool,
}

/// What a scorer sees of one micro-batch. Nothing in it carries a gradient.
pub struct ScoreInput<'a> {
    /// The packed tokens, masks and documents (with their rewards).
    pub batch: &'a Batch,
    /// Head 1's hidden states after the final norm, `[B, S, D]`; present if asked for.
    pub hidden: Option<Tensor<3>>,
    /// Cross-entropy in nats **of token j** (that is CE_1 at position j - 1), `[B * S]`, 0 where
    /// valid_1(j - 1) does not hold; present if asked for.
    pub ce: Option<&'a [f32]>,
    /// Optimizer step, from 0. Scores that are made once, before training, are made at step 0; documents
    /// for reports are explained at the number of steps done. `random` and `shuffled` draw from
    /// (seed, sample) only, never from it.
    pub step: usize,
}

/// How scores become weights. Section 4, and for the two modes of rho1 section 5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightPolicy {
    /// `clip(exp(z / T + b), eps, w_max)` with mean 1.
    Softmax,
    /// The same with the top share lifted smoothly before b is solved.
    Lift {
        /// Share of tokens p that is lifted.
        top_p: f64,
        /// Factor by which the top is lifted, above 1.
        emphasis: f64,
    },
    /// The scores are the weights.
    Given {
        /// Scaled to mean 1; a group of zeros stays at 0.
        mean_one: bool,
    },
    /// Selective language modelling: the top share keeps weight n/m, the rest exactly 0.
    Select {
        /// Share of tokens p that is kept.
        top_p: f64,
    },
}

/// Scores, and what a reader wants to see behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// What [`Scorer::score`] gives, `[B * S]`.
    pub scores: Vec<f32>,
    /// Figures that the scores are made of, by name: `value`, `reference_ce`. Each is `[B * S]`.
    pub figures: Vec<(&'static str, Vec<f32>)>,
}

/// Gives every response token of a batch a score.
pub trait Scorer: Send {
    /// The name in the recipe, for logs and errors.
    fn name(&self) -> &str;

    /// What has to be computed before [`Scorer::score`] is called.
    fn needs(&self) -> Needs;

    /// Scores `[B * S]`; only response tokens count. A score may be non-finite (the normaliser
    /// falls back to weight 1 for its group and counts it); an `Err` stops the run.
    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError>;

    /// The same scores with what they are made of, for reports. Asked for between training steps, about
    /// a few documents that may be held-out ones (their sample numbers are then beyond any of the
    /// training set), so it must leave no trace in the scores of later steps: a scorer that remembers
    /// what it saw has to write this itself. An `Err` is written into the report and stops nothing.
    fn explain(&mut self, input: &ScoreInput<'_>) -> Result<Explained, ScorerError> {
        Ok(Explained {
            scores: self.score(input)?,
            figures: Vec::new(),
        })
    }

    /// Changes the scores of the micro-batches whose weights are made together, all `[B * S]`: one
    /// micro-batch, or with `weights.over: step` all of an optimizer step. Called after
    /// [`Scorer::score`] or [`Scorer::explain`] of each, for scorers that must see the whole group.
    fn rearrange(&mut self, _batches: &[Batch], _scores: &mut [Vec<f32>]) {}

    /// How these scores become weights.
    fn policy(&self) -> WeightPolicy {
        WeightPolicy::Softmax
    }
}

/// A scorer that can't score.
#[derive(Debug, thiserror::Error)]
pub enum ScorerError {
    /// Something that the scorer asked for was not handed over: a bug of the caller.
    #[error("scorer `{scorer}` was not given {what}")]
    Missing {
        /// The scorer's name.
        scorer: String,
        /// What is missing.
        what: &'static str,
    },
    /// A document lacks what the scorer needs of it.
    #[error("scorer `{scorer}`: document {document} {problem}")]
    Document {
        /// The scorer's name.
        scorer: String,
        /// The document's name.
        document: String,
        /// What is wrong with it, starting with a verb.
        problem: String,
    },
    /// A device failed to hand over what was computed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The scorer's own model or file is not usable.
    #[error("scorer `{scorer}`: {problem}")]
    Setup {
        /// The scorer's name.
        scorer: String,
        /// One sentence: what is wrong and what to do.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
