//! Settings of `kind: critic`.

use super::{CriticScorer, NAME};
use crate::{ModelsNeeded, Parts, Pipeline, Scorer, ScorerError, config::ScorerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate, blank, in_unit, non_negative, positive};

/// Settings of `kind: critic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CriticConfig {
    /// Where a sequence's reward R comes from.
    pub reward: Reward,
    /// How R is spread over the response's tokens.
    pub spread: Spread,
    /// Discount gamma.
    pub gamma: f64,
    /// GAE's lambda.
    pub lambda_gae: f64,
    /// Stage 1's loss.
    pub loss: CriticLoss,
    /// The value before the first response token.
    pub initial_value: InitialValue,
    /// What happens to the value head in stage 2.
    pub value: ValueUse,
    /// Stage 1: passes over the labelled solutions.
    pub epochs: usize,
    /// Labelled solutions to learn from at most, whole problems drawn from the seed (0: all).
    pub max_solutions: usize,
    /// About this many of the held-out labelled solutions are ordered in an evaluation of the value head, where there
    /// are more: whole problems, spread evenly over them; all if 0.
    pub validate_solutions: usize,
    /// Stage 1: maximum number of optimizer steps (0: no limit).
    pub max_steps: usize,
    /// Stage 1: held-out evaluations (two an epoch) without a better order of right and wrong solutions
    /// before it stops and keeps the best head; 0 never stops, and keeps the last one.
    pub patience: usize,
    /// Labelled solutions in one optimizer step: of stage 1, and of a `joint` value head in stage 2.
    pub batch: usize,
    /// Stage 1's learning rate, and stage 2's for a `joint` value head.
    pub lr: f64,
    /// What the value loss is multiplied by before the token loss is added, with `value: joint`.
    pub value_weight: f64,
    /// A finished value head's file, or the directory that holds it: stage 1 is skipped.
    pub value_head: Option<String>,
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self {
            reward: Reward::Verified,
            spread: Spread::Terminal,
            gamma: 1.0,
            lambda_gae: 1.0,
            loss: CriticLoss::Mse,
            initial_value: InitialValue::Prompt,
            value: ValueUse::Frozen,
            epochs: 1,
            max_solutions: 0,
            validate_solutions: 2000,
            max_steps: 0,
            patience: 0,
            batch: 16,
            lr: 1e-3,
            value_weight: 0.1,
            value_head: None,
        }
    }
}

/// Sequence reward R.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// 1 if the program passed its tests, else 0: the label in the data.
    Verified,
    /// The same, found by running every program on the tests of its row in the sandbox before training.
    Tests,
    /// A Llama with a scalar score head (`model.reward`), read at the last token.
    RewardModel,
    /// Minus the mean CE of the response.
    Pseudo,
}

/// How R becomes token rewards r_t that sum to R.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// All at the last token.
    Terminal,
    /// Equal parts.
    Uniform,
    /// Proportional to N - t.
    Length,
    /// Proportional to gamma^(N-1-t).
    Gae,
}

/// Stage 1's loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CriticLoss {
    /// Mean squared error over response tokens.
    Mse,
    /// Huber loss with delta 1 over response tokens.
    Huber,
    /// -log sigmoid(mean V(correct) - mean V(incorrect)) over pairs of one problem.
    Pairwise,
}

/// The value that the first response token is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InitialValue {
    /// V at the prompt's last token.
    Prompt,
    /// 0.
    Zero,
}

/// The value head in stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ValueUse {
    /// As stage 1 left it.
    Frozen,
    /// Part of the trained module: it keeps learning, from labelled solutions of its own, and scores are
    /// made with it as it is at each step.
    Joint,
}

/// Passes over the labelled solutions.
const MOST_EPOCHS: usize = 10_000;

impl Validate for CriticConfig {
    fn check(&self, check: &mut Check) {
        check.when(!in_unit(self.gamma), "gamma", "must be from 0 to 1");
        check.when(!in_unit(self.lambda_gae), "lambda_gae", "must be from 0 to 1");
        check.when(
            self.loss == CriticLoss::Pairwise && !matches!(self.reward, Reward::Verified | Reward::Tests),
            "loss",
            "is `pairwise`, which compares right with wrong solutions: take `reward: verified` or `tests`, or another loss",
        );
        check.when(
            self.epochs == 0 && self.max_steps == 0 && blank(self.value_head.as_deref()),
            "epochs",
            "must be 1 or more, or name a finished value head with value_head",
        );
        check.when(
            self.epochs > MOST_EPOCHS,
            "epochs",
            "must be 10,000 or less: the order of every epoch's problems is drawn to count the steps",
        );
        check.when(self.batch == 0, "batch", "must be 1 or more");
        check.when(!positive(self.lr), "lr", "must be above 0");
        check.when(!non_negative(self.value_weight), "value_weight", "must be 0 or more");
    }
}

impl ScorerKind for CriticConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::Critic
    }

    fn models_needed(&self) -> ModelsNeeded<'_> {
        ModelsNeeded {
            reward: self.reward == Reward::RewardModel,
            value: Some(self),
            ..ModelsNeeded::default()
        }
    }

    fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        let missing = |what| ScorerError::Missing {
            scorer: NAME.into(),
            what,
        };
        let values = parts.values.ok_or_else(|| missing("a value head"))?;
        let rewards = parts.rewards.ok_or_else(|| missing("rewards"))?;
        Ok(Box::new(CriticScorer::new(self.clone(), values, rewards)))
    }
}
