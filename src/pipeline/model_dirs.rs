//! The models of a run as directories of this machine, and what is read from them.

use super::PipelineError;
use crate::{
    data::Sources,
    settings::{HeadInit, Recipe},
    storage::Location,
};
use burn::tensor::Device;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use wmtp_model::{Companions, LlamaConfig, LoadOptions, ModelError, MtpLlama};

/// The directory of a model: a whole one, or a LoRA adapter with the directory of its base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelDir {
    /// The whole model, or the adapter.
    pub dir: PathBuf,
    /// The adapter's base; None for a whole model.
    pub base: Option<PathBuf>,
}

impl ModelDir {
    /// The whole model: the base where this is an adapter.
    pub fn whole(&self) -> &Path {
        self.base.as_deref().unwrap_or(&self.dir)
    }

    /// The directory with the tokenizer: the adapter's own, where it has one.
    pub fn tokenizer(&self) -> &Path {
        let is_own = Companions::TOKENIZERS.iter().any(|name| self.dir.join(name).is_file());
        match &self.base {
            Some(base) if !is_own => base,
            _ => &self.dir,
        }
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// It cannot be read, or the adapter does not fit its base.
    pub fn config(&self) -> Result<LlamaConfig, ModelError> {
        match &self.base {
            Some(base) => wmtp_model::adapted_config(base, &self.dir),
            None => LlamaConfig::read(&self.dir),
        }
    }

    /// The model's identity: that of its tensors, and of an adapter's file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn hash(&self) -> Result<String, PipelineError> {
        let whole = wmtp_model::model_hash(self.whole())?;
        Ok(match self.base {
            Some(_) => hex::encode(Sha256::digest(format!("{whole}\n{}", weights_hash(&self.dir)?))),
            None => whole,
        })
    }

    /// Compares the weights with the configuration, by the files' headers: what [`Self::load`] would refuse.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn check(&self, options: &LoadOptions) -> Result<(), ModelError> {
        let adapter = self.base.as_ref().map(|_| self.dir.as_path());
        wmtp_model::check_weights(self.whole(), adapter, options)
    }

    /// Loads the model, with an adapter merged into it.
    ///
    /// # Errors
    /// A directory that holds no model, or an adapter that does not fit its base.
    pub fn load(&self, options: &LoadOptions, device: &Device) -> Result<MtpLlama, ModelError> {
        match &self.base {
            Some(base) => wmtp_model::load_adapted(base, &self.dir, options, device),
            None => wmtp_model::load(&self.dir, options, device),
        }
    }
}

/// Local directories of the models and data that a recipe names.
#[derive(Clone, Debug, Default)]
pub struct ModelDirs {
    /// What is trained on: `builtin:NAME`, or paths of this machine.
    pub data: Sources,
    /// The model that training starts from.
    pub model: ModelDir,
    /// rho1's reference.
    pub reference: Option<ModelDir>,
    /// The critic's reward model.
    pub reward: Option<PathBuf>,
}

impl ModelDirs {
    /// Where everything was found, as absolute paths, for `run.json`.
    pub fn places(&self) -> BTreeMap<String, Option<String>> {
        let place = |path: Option<&PathBuf>| path.map(|path| absolute(path).display().to_string());
        let places = [
            ("model", place(Some(&self.model.dir))),
            ("reference", place(self.reference.as_ref().map(|model| &model.dir))),
            ("reward", place(self.reward.as_ref())),
        ];
        places.map(|(key, place)| (key.to_owned(), place)).into()
    }

    /// A checkpoint of a run with this recipe: a whole model, or an adapter of the model that it started from.
    pub fn trained(&self, recipe: &Recipe, checkpoint: PathBuf) -> ModelDir {
        ModelDir {
            dir: checkpoint,
            base: recipe.train.lora.as_ref().map(|_| self.model.whole().to_owned()),
        }
    }

    /// What the adapters of a run name as their base: a path of this machine in full, so that it is
    /// found from any directory; a hub's model and a built-in one by its name. `uri` is the recipe's.
    pub fn base_name(&self, uri: &str) -> String {
        match Location::parse(uri) {
            Ok(Location::Hub(_) | Location::Builtin(_) | Location::S3(_)) if self.model.base.is_none() => {
                uri.to_owned()
            }
            _ => absolute(self.model.whole()).display().to_string(),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// What a model's weights are: the hash that runs and value heads name, or for an adapter the hash
/// of its file, continued over `mtp_adapter.safetensors` where there is one.
///
/// # Errors
/// The directory holds no model.
pub fn weights_hash(dir: &Path) -> Result<String, PipelineError> {
    let adapter = dir.join("adapter_model.safetensors");
    if !dir.join("adapter_config.json").is_file() || !adapter.is_file() {
        return Ok(wmtp_model::model_hash(dir)?);
    }
    let heads = dir.join("mtp_adapter.safetensors");
    let mut hash = Sha256::new();
    for path in [adapter, heads].into_iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(&path).map_err(PipelineError::io("reading", &path))?;
        hash.update(&bytes);
    }
    Ok(hex::encode(hash.finalize()))
}

/// How the model that is trained is loaded.
pub(super) fn load_options(recipe: &Recipe, seed: u64) -> LoadOptions {
    let mtp = &recipe.model.mtp;
    LoadOptions {
        n_heads: Some(mtp.n_heads),
        head_init: match mtp.init {
            HeadInit::CopyLast => wmtp_model::HeadInit::CopyLast,
            HeadInit::Random => wmtp_model::HeadInit::Random,
        },
        seed,
        dtype: recipe.train.dtype(),
    }
}

/// Refuses adapters of a rank that no matrix of the model has.
pub(super) fn check_rank(recipe: &Recipe, config: &LlamaConfig) -> Result<(), PipelineError> {
    let largest = config.largest_rank();
    match &recipe.train.lora {
        Some(lora) if lora.rank > largest => Err(PipelineError::Setting(format!(
            "`train.lora.rank` is {}, and no matrix of this model has a rank above {largest}; lower it, 16 is usual",
            lora.rank
        ))),
        _ => Ok(()),
    }
}

/// The model on the training device, with its adapters if the recipe wants them: new ones, or those
/// of the adapter that training starts from.
pub(super) fn load_trained(
    recipe: &Recipe,
    seed: u64,
    dir: &ModelDir,
    device: &Device,
) -> Result<MtpLlama, PipelineError> {
    let options = load_options(recipe, seed);
    check_rank(recipe, &LlamaConfig::read(dir.whole())?)?;
    // burn computes cheap element-wise results again in the backward pass instead of keeping them:
    // at SmolLM2's shape that is both smaller and faster (benches/train_step.rs).
    let device = device.clone().autodiff().gradient_checkpointing();
    let compute = recipe.train.compute();
    let Some(lora) = &recipe.train.lora else {
        return Ok(dir.load(&options, &device)?.with_compute(compute));
    };
    let model = wmtp_model::load(dir.whole(), &options, &device)?.with_compute(compute);
    let model = wmtp_model::apply_lora(model, lora.rank, lora.alpha, seed);
    Ok(match &dir.base {
        Some(base) => wmtp_model::continue_adapter(model, base, &dir.dir, lora.rank, lora.alpha)?,
        None => model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapters_own_tokenizer_is_used_in_either_format() {
        let (own, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = ModelDir {
            dir: own.path().into(),
            base: Some(base.path().into()),
        };
        std::fs::write(own.path().join("tokenizer_config.json"), "{}").unwrap();
        assert_eq!(dir.tokenizer(), base.path(), "a configuration is no tokenizer");
        for name in ["tokenizer.model", "tokenizer.json"] {
            std::fs::write(own.path().join(name), "").unwrap();
            assert_eq!(dir.tokenizer(), own.path(), "{name}");
            std::fs::remove_file(own.path().join(name)).unwrap();
        }
    }
}
