use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which scorer, and its settings. Recipe section `scorer`: `{kind: rho1, top_p: 0.2}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ScorerConfig {
    /// Every token weighs 1.
    Uniform(Empty),
    /// Scores drawn once per token from a seeded normal.
    Random(Empty),
    /// Another scorer's weights, permuted inside each group.
    Shuffled(ShuffledConfig),
    /// The token's index in its response.
    Position(Empty),
    /// How far the model's loss is from a reference model's.
    Rho1(Rho1Config),
    /// What a token adds to a learned value.
    Critic(CriticConfig),
}

/// No settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Empty {}

impl Default for ScorerConfig {
    fn default() -> Self {
        Self::Uniform(Empty {})
    }
}

/// Settings of `kind: shuffled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShuffledConfig {
    /// The scorer whose weights are permuted.
    pub of: Box<ScorerConfig>,
}

/// When scores are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoringTime {
    /// Each step, with the current model.
    #[default]
    Online,
    /// Once before training, with the model that training starts from; cached on disk.
    Offline,
}

/// Settings of `kind: rho1` (Lin et al. 2024, arXiv 2404.07965).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rho1Config {
    /// `abs_excess` (default in mode `weighted`) or `excess` (the only one in mode `select`).
    pub score: Option<Rho1Score>,
    /// Weigh all tokens, or keep the top share only.
    pub mode: Rho1Mode,
    /// The top share p.
    pub top_p: f64,
    /// Factor by which mode `weighted` lifts the top share.
    pub emphasis: f64,
    /// When the losses are compared.
    pub when: ScoringTime,
}

impl Default for Rho1Config {
    fn default() -> Self {
        Self {
            score: None,
            mode: Rho1Mode::Weighted,
            top_p: 0.2,
            emphasis: 2.0,
            when: ScoringTime::Online,
        }
    }
}

/// What rho1 compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rho1Score {
    /// abs(CE_ref - CE_base)
    AbsExcess,
    /// CE_base - CE_ref, the paper's.
    Excess,
}

/// What rho1 does with its scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rho1Mode {
    /// Weights with the top share lifted; no token is dropped.
    #[default]
    Weighted,
    /// The paper's selective language modelling.
    Select,
}

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
    /// Stage 1: at most so many optimizer steps (0: no limit).
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
    /// 1 if the program passed its tests, else 0.
    Verified,
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

/// From scores to weights, recipe section `weights` (algorithms, section 4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// Over which tokens the mean is 1.
    pub over: WeightGroup,
    /// Standardise scores within the group first.
    pub zscore: bool,
    /// Temperature T.
    pub temperature: f64,
    /// Smallest weight, below 1.
    pub eps: f64,
    /// Largest weight, above 1.
    pub w_max: f64,
    /// Above this share of groups with a non-finite score, the run stops.
    pub max_fallback_share: f64,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Self {
            over: WeightGroup::Document,
            zscore: true,
            temperature: 0.7,
            eps: 0.05,
            w_max: 3.0,
            max_fallback_share: 0.1,
        }
    }
}

/// The group over which weights have mean 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightGroup {
    /// The response tokens of one document.
    #[default]
    Document,
    /// Those of the whole optimizer step.
    Step,
}
