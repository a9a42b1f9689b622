//! From a recipe's scorer to the object that scores.

use super::{
    PipelineError, offline,
    request::{Prepared, Request},
    scoring_models::{HeadValues, ModelCe, ModelReward},
    sources,
};
use crate::{
    scorer::{
        CriticConfig, CriticScorer, Position, Pseudo, Random, Reward, Rho1, Rho1Config, Scorer, ScorerConfig,
        ScoringTime, SequenceReward, Shuffled, Uniform, Verified,
    },
    train::CurrentHead,
};
use wmtp_model::{LoadOptions, MtpLlama, RewardModel};

/// Builds the recipe's scorer. `value` is what the value stage made, for the critic.
pub fn scorer(
    request: &Request,
    prepared: &Prepared,
    base: &MtpLlama,
    value: Option<&CurrentHead>,
) -> Result<Box<dyn Scorer>, PipelineError> {
    build(&request.recipe.scorer, request, prepared, base, value)
}

fn build(
    config: &ScorerConfig,
    request: &Request,
    prepared: &Prepared,
    base: &MtpLlama,
    value: Option<&CurrentHead>,
) -> Result<Box<dyn Scorer>, PipelineError> {
    Ok(match config {
        ScorerConfig::Uniform(_) => Box::new(Uniform),
        ScorerConfig::Random(_) => Box::new(Random::new(request.seed())),
        ScorerConfig::Position(_) => Box::new(Position),
        ScorerConfig::Shuffled(shuffled) => {
            let of = build(&shuffled.of, request, prepared, base, value)?;
            Box::new(Shuffled::new(of, request.recipe.weights.over, request.seed()))
        }
        ScorerConfig::Rho1(config) => rho1(config, request, prepared, base)?,
        ScorerConfig::Critic(config) => {
            let head = value.ok_or_else(|| PipelineError::Internal("the critic has no value head"))?;
            Box::new(CriticScorer::new(
                config.clone(),
                Box::new(HeadValues(head.clone())),
                reward(config, request)?,
            ))
        }
    })
}

/// Where the sequence rewards of the trained documents come from.
pub fn reward(config: &CriticConfig, request: &Request) -> Result<Box<dyn SequenceReward>, PipelineError> {
    Ok(match config.reward {
        Reward::Verified => Box::new(Verified),
        Reward::Pseudo => Box::new(Pseudo),
        Reward::RewardModel => {
            let dir = request.sources.reward.as_ref().ok_or_else(|| {
                PipelineError::Setting("`scorer.reward` is `reward_model`, which needs `model.reward`: set it to the reward model's directory".into())
            })?;
            Box::new(ModelReward(RewardModel::load(dir, &request.device)?))
        }
    })
}

fn rho1(
    config: &Rho1Config,
    request: &Request,
    prepared: &Prepared,
    base: &MtpLlama,
) -> Result<Box<dyn Scorer>, PipelineError> {
    let dir = request.sources.reference.as_ref().ok_or_else(|| {
        PipelineError::Setting(
            "`scorer.kind: rho1` needs `model.reference`: set it to the reference model's directory or URI (for instance the best checkpoint of a baseline run)".into(),
        )
    })?;
    let load = || {
        let options = LoadOptions {
            n_heads: Some(1),
            ..LoadOptions::default()
        };
        let adapter = request.sources.reference_adapter.as_deref();
        sources::load(dir, adapter, &options, &request.device)
    };
    match config.when {
        ScoringTime::Online => Ok(Box::new(Rho1::new(config, Box::new(ModelCe::new(load()?)))?)),
        ScoringTime::Offline => offline::scores(config, request, prepared, base, load),
    }
}
