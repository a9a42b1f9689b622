//! From a recipe's scorer to the object that scores: loads the models that it needs.

use super::{
    PipelineError, offline,
    request::{Prepared, Request},
    scoring_models::{HeadValues, ModelReward, reference},
};
use crate::{
    scorer::{CriticConfig, Parts, Pseudo, Reward, Scorer, ScoringTime, SequenceReward, Verified},
    train::CurrentHead,
};
use wmtp_model::{MtpLlama, RewardModel};

/// Builds the recipe's scorer. `value` is what the value stage made, for the critic.
pub fn scorer(
    request: &Request,
    prepared: &Prepared,
    base: &MtpLlama,
    value: Option<&CurrentHead>,
) -> Result<Box<dyn Scorer>, PipelineError> {
    let config = &request.recipe.scorer;
    let needs = config.models_needed();
    let mut parts = Parts {
        seed: request.seed(),
        over: request.recipe.weights.over,
        ..Parts::default()
    };
    match needs.reference {
        None => {}
        Some(ScoringTime::Online) => parts.reference = Some(Box::new(reference(request)?)),
        Some(ScoringTime::Offline) => {
            parts.cached = Some(offline::scores(config.innermost(), request, prepared, base)?);
        }
    }
    if let Some(critic) = needs.value {
        let head = value.ok_or_else(|| PipelineError::Internal("the critic has no value head"))?;
        parts.values = Some(Box::new(HeadValues(head.clone())));
        parts.rewards = Some(reward(critic, request)?);
    }
    Ok(config.build(parts)?)
}

/// Where the sequence rewards of the trained documents come from.
pub fn reward(config: &CriticConfig, request: &Request) -> Result<Box<dyn SequenceReward>, PipelineError> {
    Ok(match config.reward {
        // Of `tests`, the data have the labels by now.
        Reward::Verified | Reward::Tests => Box::new(Verified),
        Reward::Pseudo => Box::new(Pseudo),
        Reward::RewardModel => {
            let dir = request.model_dirs.reward.as_ref().ok_or_else(|| {
                PipelineError::Setting("`scorer.reward` is `reward_model`, which needs `model.reward`: set it to the reward model's directory".into())
            })?;
            Box::new(ModelReward(RewardModel::load(dir, &request.device)?))
        }
    })
}
