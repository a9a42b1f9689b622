//! AdamW as the recipe wants it, over a whole module.

use super::{GradientScale, OptimConfig, OptimizerKind, PatternError, StatePrecision, pattern};
use burn::{
    optim::{AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, Tensor},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate};
use wmtp_kernels::adamw::{AdamWState as Step, AdamWStep, adamw_step};

/// AdamW for all parameters, with decoupled weight decay: none on norms, biases, embeddings and a value head
/// that is trained along (algorithms, section 6; the value stage decays nothing of a value head either). Its
/// settings are those of `optim`.
///
/// The factor that clips gradients by their global norm is applied inside the update: it costs no pass of its
/// own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamW {}

impl Validate for AdamW {
    /// Its settings are `optim`'s own.
    fn check(&self, _check: &mut Check) {}
}

impl OptimizerKind for AdamW {
    fn build(&self, config: &OptimConfig, scale: &GradientScale) -> Result<ModuleOptimizer, PatternError> {
        let with_decay = |weight_decay| FusedAdamW::new(config, weight_decay, scale);
        let undecayed = pattern("norm|embed|\\.bias$|^value\\.")?;
        Ok(ModuleOptimizer::from(with_decay(config.weight_decay)).with_group(undecayed, with_decay(0.0), None))
    }

    /// Two moments of each parameter.
    fn state_bytes(&self, config: &OptimConfig, parameters: usize) -> usize {
        2 * parameters
            * match config.state {
                StatePrecision::F32 => 4,
                StatePrecision::Bf16 => 2,
            }
    }
}

/// burn's AdamW, with the same state, as one pass over each parameter in place. Other rules take it for the
/// parameters that they are not made for.
#[derive(Clone)]
pub(super) struct FusedAdamW {
    config: OptimConfig,
    weight_decay: f64,
    scale: GradientScale,
}

impl FusedAdamW {
    pub fn new(config: &OptimConfig, weight_decay: f64, scale: &GradientScale) -> Self {
        Self {
            config: config.clone(),
            weight_decay,
            scale: scale.clone(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use wmtp_model::{CausalLm, LlamaConfig, Packed};

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

    /// Sets every parameter to one.
    struct Ones;

    impl ModuleMapper for Ones {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| Tensor::ones(tensor.shape(), &tensor.device()).require_grad())
        }
    }

    /// The first value of each parameter, by path.
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        found: Vec<(String, f32)>,
    }

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let first = param.val().into_data().iter::<f32>().next();
            self.found.push((self.path.join("."), first.unwrap()));
        }
    }

    /// A step with gradients of zero only decays: 1 becomes 1 - 0.5 * 0.1.
    #[test]
    fn norms_biases_and_the_embedding_do_not_decay() {
        let mut config = LlamaConfig::new(11, 8, 2, 2);
        config.other.insert("attention_bias".to_owned(), true.into());
        let model = config.init(1, &Device::flex().autodiff()).map(&mut Ones);
        let input = Packed::from_documents(&[vec![3, 1, 4]], &model.device());
        let context = model.context(&input);
        let hidden = model.head(1, model.trunk(&input, &context), &context);
        let gradients = GradientsParams::from_grads((hidden * 0.0).sum().backward(), &model);
        let optim = OptimConfig::default();
        assert_eq!(optim.weight_decay, 0.1);
        let mut optimizer = AdamW {}.build(&optim, &GradientScale::default()).unwrap();
        let model = optimizer.step(0.5, model, gradients);
        let mut values = Values::default();
        model.visit(&mut values);
        let kept: Vec<_> = values.found.iter().filter(|(_, value)| *value == 1.0).collect();
        // Two layers with two norms and four biases each, the final norm, the embedding.
        assert_eq!(kept.len(), 2 * (2 + 4) + 2, "{kept:?}");
        for (path, value) in &values.found {
            let expected = if path.contains("proj.weight") { 0.95 } else { 1.0 };
            assert!((value - expected).abs() < 1e-6, "{path}: {value}");
        }
    }
}
