//! What of a [`WeightedMtp`] goes into a checkpoint, and back.
//!
//! Parameter ids must survive a restart: burn draws them at random, and the optimizer's record is keyed by
//! them. [`assign_stable_ids`] makes each parameter's id from its path instead.

use super::{StepOutput, Trainable, Validation, WeightedMtp};
use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::Tensor,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use wmtp_data::Batch;
use wmtp_device::ReadError;
use wmtp_model::{CausalLm, LoadOptions, ModelError, SaveDtype, ValueHead};
use wmtp_run::{Observed, file::VALUE_HEAD};

impl Trainable for WeightedMtp {
    fn write(&self, dir: &Path) -> Result<(), ModelError> {
        let assets = self.assets();
        // Plain tensors: reading parameters with autodiff on can keep graphs alive.
        let plain = self.valid();
        match &assets.lora {
            Some(lora) => {
                wmtp_model::save_adapter(&plain.model, dir, &lora.base, lora.rank, lora.alpha)?;
            }
            // In the type that training keeps, so that nothing is rounded and nothing pretends to be finer.
            None => wmtp_model::save(&plain.model, dir, SaveDtype::of(plain.model.dtype()))?,
        }
        if let Some(value) = &plain.value {
            value.save(&dir.join(VALUE_HEAD), &assets.model_hash)?;
        }
        assets.companions.write(dir)
    }

    fn read(mut self, dir: &Path) -> Result<Self, ModelError> {
        let device = self.model.device();
        let assets = self.assets().clone();
        let compute = self.model.compute();
        self.model = match &assets.lora {
            Some(_) => wmtp_model::load_adapter(self.model, dir)?,
            None => {
                let options = LoadOptions {
                    n_heads: Some(self.model.n_heads()),
                    dtype: self.model.dtype(),
                    ..LoadOptions::default()
                };
                let model = wmtp_model::load(dir, &options, &device)?;
                model.with_compute(compute)
            }
        };
        if self.value.is_some() {
            let head = ValueHead::load(&dir.join(VALUE_HEAD), &assets.model_hash, &device)?;
            self.value = Some(head.trainable(&device));
        }
        Ok(assign_stable_ids(self))
    }

    fn validation(&self, outputs: &[StepOutput]) -> Option<Validation> {
        (!outputs.is_empty()).then(|| Validation::mean_loss(outputs))
    }

    fn observe(&self, batches: &[Batch], step: usize) -> Result<Vec<Observed>, ReadError> {
        self.observed(batches, step)
    }
}

/// Gives every float parameter the id that its path determines (the first 8 bytes of its SHA-256).
pub fn assign_stable_ids<M: Module>(module: M) -> M {
    module.map(&mut Assign { path: Vec::new() })
}

struct Assign {
    path: Vec<String>,
}

impl ModuleMapper for Assign {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let digest = Sha256::digest(self.path.join("."));
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&digest[..8]);
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(ParamId::from(u64::from_le_bytes(bytes)), tensor, mapper)
    }
}
