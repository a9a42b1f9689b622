//! Optimizers: one file and one entry in [`UpdateRule`] each.

mod adamw;
mod config;

pub use adamw::AdamW;
pub use config::{OptimConfig, StatePrecision};

use burn::{
    module::ParamGroup,
    optim::{
        ModuleOptimizer,
        lr_scheduler::{
            constant::ConstantLr,
            module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
        },
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use wmtp_base::validate::{Check, Validate};

/// Which optimizer, and the settings that it alone has. Recipe section `optim.rule`: `{kind: adamw}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum UpdateRule {
    /// AdamW for all parameters (Loshchilov and Hutter 2019, arXiv 1711.05101).
    AdamW(AdamW),
}

impl Default for UpdateRule {
    fn default() -> Self {
        Self::AdamW(AdamW {})
    }
}

impl UpdateRule {
    /// The only match on optimizers: a new one adds a variant above and a line here.
    fn kind(&self) -> &dyn OptimizerKind {
        match self {
            Self::AdamW(rule) => rule,
        }
    }
}

impl Validate for UpdateRule {
    fn check(&self, check: &mut Check) {
        self.kind().check(check);
    }
}

/// What the program asks of an optimizer, answered by its settings.
trait OptimizerKind: Validate {
    /// Over a whole module, with the groups of parameters that it treats differently. It multiplies
    /// gradients by what `scale` says at each step.
    fn build(&self, config: &OptimConfig, scale: &GradientScale) -> Result<ModuleOptimizer, PatternError>;

    /// Bytes of its state for this number of trained parameters.
    fn state_bytes(&self, config: &OptimConfig, parameters: usize) -> usize;
}

/// The recipe's optimizer. It multiplies gradients by what `scale` says at each step.
///
/// # Errors
/// A pattern of parameter names that burn refuses.
pub fn optimizer(config: &OptimConfig, scale: &GradientScale) -> Result<ModuleOptimizer, PatternError> {
    config.rule.kind().build(config, scale)
}

/// Bytes of its state for this number of trained parameters.
pub fn state_bytes(config: &OptimConfig, parameters: usize) -> usize {
    config.rule.kind().state_bytes(config, parameters)
}

/// burn refused a pattern of parameter names.
#[derive(Debug, thiserror::Error)]
#[error("a pattern of parameter names is wrong: {0}")]
pub struct PatternError(String);

fn pattern(text: &str) -> Result<ParamGroup, PatternError> {
    // burn's error implements Debug only.
    ParamGroup::from_regex(text).map_err(|error| PatternError(format!("{error:?}")))
}

/// What the optimizer multiplies all gradients by; 1 at first. Clones share it.
///
/// burn builds an optimizer from a value that it clones for every group of parameters, and hands it a
/// learning rate and a gradient at each step, nothing else. A factor that changes from step to step
/// therefore reaches it through shared memory, or through a pass of its own over all gradients.
#[derive(Clone, Debug)]
pub struct GradientScale(Arc<AtomicU64>);

impl Default for GradientScale {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1f64.to_bits())))
    }
}

impl GradientScale {
    /// Sets the factor for the steps that follow.
    pub fn set(&self, factor: f64) {
        self.0.store(factor.to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// The factor that brings gradients of global norm `norm` down to `clip_norm`; 1 where they are below
/// it, or where it is 0, which means no clipping.
pub fn clip_factor(norm: f64, clip_norm: f64) -> f64 {
    if clip_norm > 0.0 && norm > clip_norm {
        clip_norm / norm
    } else {
        1.0
    }
}

/// One learning rate for the model, another for the value head where there is one.
///
/// # Errors
/// A pattern that burn refuses.
pub fn rates(model: f64, value: Option<f64>) -> Result<ModuleLearningRate, PatternError> {
    let Some(value) = value else { return Ok(model.into()) };
    let head = pattern("^value\\.")?;
    Ok(ModuleLrScheduler::new(ConstantLr::from(model))
        .with_group(head, ConstantLr::from(value))
        .step())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_above_the_norm_are_brought_down_to_it() {
        assert_eq!(clip_factor(4.0, 1.0), 0.25);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }
}
