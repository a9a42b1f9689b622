//! The recipe's section `scorer`: the list of built-in scorers, and the only place that tells them apart.

use super::{
    CachedScores, CriticConfig, GivenConfig, PositionConfig, RandomConfig, Rho1Config, Scorer, ScorerError,
    SequenceReward, ShuffledConfig, TokenCe, UniformConfig, Values, WeightGroup,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};

/// Which scorer, and its settings. Recipe section `scorer`: `{kind: rho1, top_p: 0.2}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ScorerConfig {
    /// Every token weighs 1.
    Uniform(UniformConfig),
    /// Scores drawn once per token from a seeded normal.
    Random(RandomConfig),
    /// Another scorer's weights, permuted inside each group.
    Shuffled(ShuffledConfig),
    /// The token's index in its response.
    Position(PositionConfig),
    /// The weights that come with the data.
    Given(GivenConfig),
    /// How far the model's loss is from a reference model's.
    Rho1(Rho1Config),
    /// What a token adds to a learned value.
    Critic(CriticConfig),
}

impl Default for ScorerConfig {
    fn default() -> Self {
        Self::Uniform(UniformConfig {})
    }
}

impl ScorerConfig {
    /// The only match on scorers: a new one adds a variant above and a line here.
    fn kind(&self) -> &dyn ScorerKind {
        match self {
            Self::Uniform(config) => config,
            Self::Random(config) => config,
            Self::Shuffled(config) => config,
            Self::Position(config) => config,
            Self::Given(config) => config,
            Self::Rho1(config) => config,
            Self::Critic(config) => config,
        }
    }

    /// `scorer.kind`.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The pipeline that trains with it.
    pub fn pipeline(&self) -> Pipeline {
        self.kind().pipeline()
    }

    /// The models that it needs in addition to the trained one.
    pub fn models_needed(&self) -> ModelsNeeded<'_> {
        self.kind().models_needed()
    }

    /// The scorer under `shuffled`, else itself.
    pub fn innermost(&self) -> &Self {
        self.kind().inner().map_or(self, Self::innermost)
    }

    /// The object that scores.
    ///
    /// # Errors
    /// Settings that can't be used, or a part that [`ScorerConfig::models_needed`] names and `parts` lacks.
    pub fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        self.kind().build(parts)
    }
}

impl Validate for ScorerConfig {
    fn check(&self, check: &mut Check) {
        self.kind().check(check);
    }
}

/// What the program asks of a built-in scorer, answered by its settings.
pub(super) trait ScorerKind: Validate {
    /// `scorer.kind`.
    fn name(&self) -> &'static str;

    /// The pipeline that trains with it.
    fn pipeline(&self) -> Pipeline {
        Pipeline::Baseline
    }

    /// The models that it needs in addition to the trained one.
    fn models_needed(&self) -> ModelsNeeded<'_> {
        ModelsNeeded::default()
    }

    /// The scorer that it wraps.
    fn inner(&self) -> Option<&ScorerConfig> {
        None
    }

    /// The object that scores.
    fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError>;
}

/// Models that a scorer needs in addition to the trained one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelsNeeded<'a> {
    /// A reference model (`model.reference`), and when it scores.
    pub reference: Option<ScoringTime>,
    /// A reward model (`model.reward`).
    pub reward: bool,
    /// A value head, learned as these settings say before training starts.
    pub value: Option<&'a CriticConfig>,
}

/// What scorers are built from: those parts are set that [`ModelsNeeded`] asks for.
#[derive(Default)]
pub struct Parts {
    /// The run's seed.
    pub seed: u64,
    /// The group over which weights are normalised.
    pub over: WeightGroup,
    /// The reference model.
    pub reference: Option<Box<dyn TokenCe>>,
    /// The scores that were made with it before training, in its place (`when: offline`).
    pub cached: Option<CachedScores>,
    /// The value head.
    pub values: Option<Box<dyn Values>>,
    /// Where the rewards of the trained documents come from.
    pub rewards: Option<Box<dyn SequenceReward>>,
}

/// The pipelines with a recipe compiled into the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pipeline {
    /// Weights from a learned value: a value stage, then a weighted stage.
    Critic,
    /// Weights from the excess loss over a reference model.
    Rho1,
    /// Uniform weights, or a control scorer.
    #[default]
    Baseline,
}

impl Pipeline {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critic => "critic",
            Self::Rho1 => "rho1",
            Self::Baseline => "baseline",
        }
    }

    /// `wmtp train rho1` trains with rho1; baseline takes the controls.
    ///
    /// # Errors
    /// A sentence for a scorer that is another pipeline's.
    pub fn check_scorer(self, scorer: &ScorerConfig) -> Result<(), String> {
        let is = scorer.pipeline();
        if is == self {
            return Ok(());
        }
        Err(format!(
            "`scorer.kind` is {}, which `wmtp train {}` does not use: run `wmtp train {}`, or leave scorer.kind to the pipeline",
            scorer.name(),
            self.name(),
            is.name()
        ))
    }
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
