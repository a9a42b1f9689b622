//! What of a [`WeightedMtp`] goes into a checkpoint, and back.

use super::{Assets, Observed, Trainable, WeightedMtp, assign_stable_ids};
use crate::data::Batch;
use burn::module::Module;
use std::path::Path;
use wmtp_model::{LoadOptions, SaveDtype, ValueHead};

const VALUE_HEAD: &str = "value_head.safetensors";

impl Trainable for WeightedMtp {
    fn write(&self, dir: &Path) -> Result<(), String> {
        let assets = self.assets();
        // Plain tensors: reading parameters with autodiff on can keep graphs alive.
        let plain = self.valid();
        match &assets.lora {
            Some(lora) => {
                wmtp_model::save_adapter(&plain.model, dir, &lora.base, lora.rank, lora.alpha).map_err(text)?;
            }
            // In the type that training keeps, so that nothing is rounded and nothing pretends to be finer.
            None => wmtp_model::save(&plain.model, dir, SaveDtype::of(plain.model.dtype())).map_err(text)?,
        }
        if let Some(value) = &plain.value {
            value.save(&dir.join(VALUE_HEAD), &assets.model_hash).map_err(text)?;
        }
        assets.companions.write(dir).map_err(text)
    }

    fn read(mut self, dir: &Path) -> Result<Self, String> {
        let device = self.model.device();
        let assets = self.assets().clone();
        let compute = self.model.compute();
        self.model = match &assets.lora {
            Some(_) => wmtp_model::load_adapter(self.model, dir).map_err(text)?,
            None => {
                let options = LoadOptions {
                    n_heads: Some(self.model.n_heads()),
                    dtype: self.model.dtype(),
                    ..LoadOptions::default()
                };
                let model = wmtp_model::load(dir, &options, &device).map_err(text)?;
                model.with_compute(compute)
            }
        };
        if self.value.is_some() {
            let head = ValueHead::load(&dir.join(VALUE_HEAD), &assets.model_hash, &device).map_err(text)?;
            self.value = Some(head.trainable(&device));
        }
        Ok(assign_stable_ids(self))
    }

    fn observe(&self, batches: &[Batch]) -> Vec<Observed> {
        self.observed(batches)
    }
}

impl Assets {
    /// True if low-rank adapters are trained instead of the model.
    pub fn is_lora(&self) -> bool {
        self.lora.is_some()
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
