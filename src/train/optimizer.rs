//! AdamW as the recipe wants it, over a whole module.

use super::OptimConfig;
use burn::{
    module::ParamGroup,
    optim::{
        AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer,
        lr_scheduler::{
            constant::ConstantLr,
            module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
        },
    },
    tensor::{Device, Tensor},
};
use wmtp_kernels::adamw::{AdamWState as Step, AdamWStep, adamw_step};

/// AdamW with decoupled weight decay, none on norms and embeddings (section 6). Clipping is by the
/// global norm and therefore not the optimizer's business.
pub fn adamw(config: &OptimConfig) -> Result<ModuleOptimizer, String> {
    let with_decay = |weight_decay: f64| FusedAdamW {
        config: config.clone(),
        weight_decay,
    };
    let undecayed = ParamGroup::from_regex("norm|embed").map_err(|e| format!("{e:?}"))?;
    Ok(ModuleOptimizer::from(with_decay(config.weight_decay)).with_group(undecayed, with_decay(0.0), None))
}

/// burn's AdamW, with the same state, as one pass over each parameter in place.
#[derive(Clone)]
struct FusedAdamW {
    config: OptimConfig,
    weight_decay: f64,
}

impl Optimizer for FusedAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let momentum = state.map(|state| state.momentum);
        let AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            ..
        } = momentum.unwrap_or_else(|| AdaptiveMomentumState::new(0, gradient.zeros_like(), gradient.zeros_like()));
        let time = time + 1;
        let step = AdamWStep {
            learning_rate: lr,
            beta_1: self.config.beta1,
            beta_2: self.config.beta2,
            epsilon: self.config.eps,
            weight_decay: self.weight_decay,
            step: u32::try_from(time).unwrap_or(u32::MAX),
            gradient_scale: 1.0,
        };
        let before = Step {
            parameter,
            moment_1,
            moment_2,
        };
        let Step {
            parameter,
            moment_1,
            moment_2,
        } = adamw_step(before, gradient, step);
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        (parameter, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(mut state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}

/// One learning rate for the model, another for the value head where there is one.
pub fn rates(model: f64, value: Option<f64>) -> Result<ModuleLearningRate, String> {
    let Some(value) = value else { return Ok(model.into()) };
    let head = ParamGroup::from_regex("^value\\.").map_err(|e| format!("{e:?}"))?;
    Ok(ModuleLrScheduler::new(ConstantLr::from(model))
        .with_group(head, ConstantLr::from(value))
        .step())
}
