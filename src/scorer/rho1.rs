//! `kind: rho1` (Lin et al. 2024, arXiv 2404.07965): how far a model's loss is from a reference's.
//!
//! Compares losses only; it loads no model. `CE_base` comes with the input (the model being
//! trained; for `when: offline` the one that training starts from), `CE_ref` from a [`TokenCe`].

use super::{
    CachedScores, Explained, Needs, Offline, Policy, Rho1Config, Rho1Mode, Rho1Score, ScoreInput, Scorer, ScorerError,
};
use crate::data::{Batch, Tokenizer};

const NAME: &str = "rho1";

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
    policy: Policy,
    reference: Box<dyn TokenCe>,
}

impl Rho1 {
    /// With the recipe's settings and a reference model that reads text as the trained one does
    /// (see [`Rho1::check_tokenizers`]).
    ///
    /// # Errors
    /// `score: abs_excess` with `mode: select`, `top_p` outside (0, 1], `emphasis` below 1.
    pub fn new(config: &Rho1Config, reference: Box<dyn TokenCe>) -> Result<Self, ScorerError> {
        let (score, policy) = resolve(config)?;
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
        Ok(Offline::new(NAME, resolve(config)?.1, scores))
    }

    /// Checks that the reference model reads text as the trained one does.
    ///
    /// # Errors
    /// Tokenizers that differ in content, naming both.
    pub fn check_tokenizers(trained: &Tokenizer, reference: &Tokenizer) -> Result<(), ScorerError> {
        trained.check_same(reference).map_err(|e| setup(e.to_string()))
    }
}

/// What is compared, and how scores become weights.
fn resolve(config: &Rho1Config) -> Result<(Rho1Score, Policy), ScorerError> {
    let Rho1Config { top_p, emphasis, .. } = *config;
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(setup(format!(
            "`scorer.top_p` is {top_p}; it is a share above 0 and at most 1"
        )));
    }
    if !(emphasis >= 1.0 && emphasis.is_finite()) {
        return Err(setup(format!("`scorer.emphasis` is {emphasis}; it is at least 1")));
    }
    match (config.mode, config.score) {
        (Rho1Mode::Weighted, score) => Ok((score.unwrap_or(Rho1Score::AbsExcess), Policy::Lift { top_p, emphasis })),
        (Rho1Mode::Select, None | Some(Rho1Score::Excess)) => Ok((Rho1Score::Excess, Policy::Select { top_p })),
        (Rho1Mode::Select, Some(Rho1Score::AbsExcess)) => Err(setup(
            "`scorer.mode: select` selects by `excess`; leave `scorer.score` out".into(),
        )),
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

    fn policy(&self) -> Policy {
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
