//! `kind: rho1` (Lin et al. 2024, arXiv 2404.07965): how far a model's loss is from a reference's.
//!
//! Compares losses only; it loads no model. `CE_base` comes with the input (the model being
//! trained; for `when: offline` the one that training starts from), `CE_ref` from a [`TokenCe`].

use super::{
    CachedScores, Explained, ModelsNeeded, Needs, Offline, Parts, Pipeline, ScoreInput, Scorer, ScorerError,
    ScoringTime, WeightPolicy, config::ScorerKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate, in_half_open};
use wmtp_data::{Batch, Tokenizer};

const NAME: &str = "rho1";

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

impl Rho1Config {
    /// What is compared, and how that becomes weights.
    fn policy(&self) -> (Rho1Score, WeightPolicy) {
        let Self { top_p, emphasis, .. } = *self;
        match self.mode {
            Rho1Mode::Weighted => (
                self.score.unwrap_or(Rho1Score::AbsExcess),
                WeightPolicy::Lift { top_p, emphasis },
            ),
            Rho1Mode::Select => (Rho1Score::Excess, WeightPolicy::Select { top_p }),
        }
    }
}

impl Validate for Rho1Config {
    fn check(&self, check: &mut Check) {
        check.when(!in_half_open(self.top_p), "top_p", "must be above 0 and at most 1");
        check.when(
            !(self.emphasis > 1.0 && self.emphasis.is_finite()),
            "emphasis",
            "must be above 1",
        );
        check.when(
            self.mode == Rho1Mode::Select && self.score == Some(Rho1Score::AbsExcess),
            "score",
            "must be `excess` with mode `select`, or left out",
        );
    }
}

impl ScorerKind for Rho1Config {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::Rho1
    }

    fn models_needed(&self) -> ModelsNeeded<'_> {
        ModelsNeeded {
            reference: Some(self.when),
            ..ModelsNeeded::default()
        }
    }

    /// Looks its scores up where they were made before.
    fn build(&self, parts: Parts) -> Result<Box<dyn Scorer>, ScorerError> {
        if let Some(cached) = parts.cached {
            return Ok(Box::new(Rho1::cached(self, cached)?));
        }
        let reference = parts.reference.ok_or(ScorerError::Missing {
            scorer: NAME.into(),
            what: "a reference model",
        })?;
        Ok(Box::new(Rho1::new(self, reference)?))
    }
}

/// A model that can say how surprising each token is.
pub trait TokenCe: Send {
    /// Cross-entropy in nats of token j given those before it in its document, `[B * S]`; 0 where
    /// valid_1(j - 1) does not hold.
    ///
    /// # Errors
    /// Whatever keeps the model from being run.
    fn token_ce(&self, batch: &Batch) -> Result<Vec<f32>, ScorerError>;
}

/// Scores by excess loss over a reference model.
pub struct Rho1 {
    score: Rho1Score,
    policy: WeightPolicy,
    reference: Box<dyn TokenCe>,
}

impl Rho1 {
    /// With the recipe's settings and a reference model that reads text as the trained one does
    /// (see [`Rho1::check_tokenizers`]).
    ///
    /// # Errors
    /// Settings that break a rule of [`Rho1Config`].
    pub fn new(config: &Rho1Config, reference: Box<dyn TokenCe>) -> Result<Self, ScorerError> {
        config.check_section("scorer").map_err(|e| setup(e.problem))?;
        let (score, policy) = config.policy();
        Ok(Self {
            score,
            policy,
            reference,
        })
    }

    /// The scorer that looks up what this one scored before (`when: offline`): it needs no reference model.
    ///
    /// # Errors
    /// As [`Rho1::new`].
    pub fn cached(config: &Rho1Config, scores: CachedScores) -> Result<Offline, ScorerError> {
        config.check_section("scorer").map_err(|e| setup(e.problem))?;
        Ok(Offline::new(NAME, config.policy().1, scores))
    }

    /// Checks that the reference model reads text as the trained one does.
    ///
    /// # Errors
    /// Tokenizers that differ in content, naming both.
    pub fn check_tokenizers(trained: &Tokenizer, reference: &Tokenizer) -> Result<(), ScorerError> {
        trained.check_same(reference).map_err(|e| setup(e.to_string()))
    }
}

fn setup(problem: String) -> ScorerError {
    ScorerError::Setup {
        scorer: NAME.into(),
        problem,
    }
}

impl Scorer for Rho1 {
    fn name(&self) -> &str {
        NAME
    }

    fn needs(&self) -> Needs {
        Needs {
            hidden: false,
            ce: true,
        }
    }

    fn policy(&self) -> WeightPolicy {
        self.policy
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        Ok(self.explain(input)?.scores)
    }

    /// With the reference model's cross-entropy and the excess loss.
    fn explain(&mut self, input: &ScoreInput<'_>) -> Result<Explained, ScorerError> {
        let base = input.ce.ok_or(ScorerError::Missing {
            scorer: NAME.into(),
            what: "the model's cross-entropy",
        })?;
        let reference = self.reference.token_ce(input.batch)?;
        let tokens = input.batch.tokens.len();
        if base.len() != tokens || reference.len() != tokens {
            return Err(setup(format!(
                "{} losses of the model and {} of the reference for {tokens} tokens",
                base.len(),
                reference.len()
            )));
        }
        let excess: Vec<f32> = base
            .iter()
            .zip(&reference)
            .map(|(base, reference)| base - reference)
            .collect();
        let scores = match self.score {
            Rho1Score::AbsExcess => excess.iter().map(|excess| excess.abs()).collect(),
            Rho1Score::Excess => excess.clone(),
        };
        Ok(Explained {
            scores,
            figures: vec![("reference_ce", reference), ("excess_loss", excess)],
        })
    }
}
