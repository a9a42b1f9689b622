//! AdamW as the recipe wants it, over a whole module.

use super::OptimConfig;
use burn::{
    module::ParamGroup,
    optim::{
        AdamWConfig, ModuleOptimizer,
        lr_scheduler::{
            constant::ConstantLr,
            module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
        },
    },
};

/// AdamW with decoupled weight decay, none on norms and embeddings (section 6). Clipping is by the
/// global norm and therefore not the optimizer's business.
pub fn adamw(config: &OptimConfig) -> Result<ModuleOptimizer, String> {
    let with_decay = |decay: f64| {
        AdamWConfig::new()
            .with_beta_1(config.beta1 as f32)
            .with_beta_2(config.beta2 as f32)
            .with_epsilon(config.eps as f32)
            .with_weight_decay(decay as f32)
            .build()
    };
    let undecayed = ParamGroup::from_regex("norm|embed").map_err(|e| format!("{e:?}"))?;
    Ok(ModuleOptimizer::from(with_decay(config.weight_decay)).with_group(undecayed, with_decay(0.0), None))
}

/// One learning rate for the model, another for the value head where there is one.
pub fn rates(model: f64, value: Option<f64>) -> Result<ModuleLearningRate, String> {
    let Some(value) = value else { return Ok(model.into()) };
    let head = ParamGroup::from_regex("^value\\.").map_err(|e| format!("{e:?}"))?;
    Ok(ModuleLrScheduler::new(ConstantLr::from(model))
        .with_group(head, ConstantLr::from(value))
        .step())
}
