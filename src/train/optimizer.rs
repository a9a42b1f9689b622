//! AdamW as the recipe wants it, over a whole module.

use super::{OptimConfig, StatePrecision};
use burn::{
    module::ParamGroup,
    optim::{
        AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer,
        lr_scheduler::{
            constant::ConstantLr,
            module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
        },
    },
    tensor::{DType, Device, Tensor},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use wmtp_kernels::adamw::{AdamWState as Step, AdamWStep, adamw_step};

/// AdamW with decoupled weight decay, none on norms, embeddings and a value head that is trained along
/// (section 6; stage 1 decays nothing of a value head either). Gradients are
/// multiplied by what `scale` says at the step: clipping by the global norm costs no pass of its own.
pub fn adamw(config: &OptimConfig, scale: &GradientScale) -> Result<ModuleOptimizer, String> {
    let with_decay = |weight_decay: f64| FusedAdamW {
        config: config.clone(),
        weight_decay,
        scale: scale.clone(),
    };
    let undecayed = ParamGroup::from_regex("norm|embed|^value\\.").map_err(|e| format!("{e:?}"))?;
    Ok(ModuleOptimizer::from(with_decay(config.weight_decay)).with_group(undecayed, with_decay(0.0), None))
}

/// What the optimizer multiplies all gradients by; 1 at first. Clones share it.
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

/// burn's AdamW, with the same state, as one pass over each parameter in place.
#[derive(Clone)]
struct FusedAdamW {
    config: OptimConfig,
    weight_decay: f64,
    scale: GradientScale,
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
        let dtype = match (self.config.state, parameter.dtype()) {
            (_, DType::F64) => DType::F64,
            (StatePrecision::F32, _) => DType::F32,
            (StatePrecision::Bf16, _) => DType::BF16,
        };
        let momentum = state.map(|state| state.momentum);
        let AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            ..
        } = momentum.unwrap_or_else(|| {
            let zeros = || Tensor::zeros(parameter.shape(), (&parameter.device(), dtype));
            AdaptiveMomentumState::new(0, zeros(), zeros())
        });
        // A checkpoint's moments are read as f32; those that were stored in bf16 lose nothing here.
        let stored = |moment: Tensor<D>| {
            if moment.dtype() == dtype {
                moment
            } else {
                moment.cast(dtype)
            }
        };
        let time = time + 1;
        let step = AdamWStep {
            learning_rate: lr,
            beta_1: self.config.beta1,
            beta_2: self.config.beta2,
            epsilon: self.config.eps,
            weight_decay: self.weight_decay,
            step: u32::try_from(time).unwrap_or(u32::MAX),
            gradient_scale: self.scale.get(),
        };
        let before = Step {
            parameter,
            moment_1: stored(moment_1),
            moment_2: stored(moment_2),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_above_the_norm_are_brought_down_to_it() {
        assert_eq!(clip_factor(4.0, 1.0), 0.25);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }

    /// With b2 = 0 and a large epsilon a step is lr times the gradient over epsilon: scaled, and
    /// scaled anew at the next step.
    #[test]
    fn the_scale_of_the_step_reaches_the_update() {
        let scale = GradientScale::default();
        let optimizer = FusedAdamW {
            config: OptimConfig {
                beta1: 0.0,
                beta2: 0.0,
                eps: 1e6,
                ..OptimConfig::default()
            },
            weight_decay: 0.0,
            scale: scale.clone(),
        };
        let device = (&Device::flex(), DType::F32);
        let gradient = || Tensor::<1>::from_data([8.0f32], device);
        let mut parameter = Tensor::<1>::from_data([0.0f32], device);
        let mut state = None;
        for (factor, expected) in [(0.5, -4.0f32), (0.25, -6.0)] {
            scale.set(factor);
            (parameter, state) = optimizer.step(1e6, parameter, gradient(), state);
            let found = parameter.to_data().iter::<f32>().next();
            assert!(found.is_some_and(|found| (found - expected).abs() < 1e-4), "{found:?}");
        }
        assert!(state.is_some());
    }
}
