//! The models of a run as directories of this machine, and what is read from them.

use super::PipelineError;
use crate::{
    run::{RunRecord, file::RECORD},
    settings::{HeadInit, Recipe},
    storage::Location,
};
use burn::tensor::Device;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use wmtp_model::{LlamaConfig, LoadOptions, ModelError, MtpLlama};

/// Local directories of the models that a recipe names.
#[derive(Clone, Debug, Default)]
pub struct ModelDirs {
    /// `builtin:NAME` or a directory: what is trained on.
    pub data: String,
    /// The model that is trained, or the base of `adapter`.
    pub base: PathBuf,
    /// The LoRA adapter that training starts from, on top of `base`.
    pub adapter: Option<PathBuf>,
    /// rho1's reference, or the base of `reference_adapter`.
    pub reference: Option<PathBuf>,
    /// The LoRA adapter that makes the reference of its base.
    pub reference_adapter: Option<PathBuf>,
    /// The critic's reward model.
    pub reward: Option<PathBuf>,
}

impl ModelDirs {
    /// The directory with the tokenizer of the model that is trained: the adapter's own, where it has one.
    pub fn tokenizer(&self) -> &Path {
        tokenizer(&self.base, self.adapter.as_deref())
    }

    /// The same of the reference.
    pub fn reference_tokenizer(&self) -> Option<&Path> {
        let reference = self.reference.as_deref()?;
        Some(tokenizer(reference, self.reference_adapter.as_deref()))
    }

    /// The configuration of the model that training starts from.
    ///
    /// # Errors
    /// It cannot be read, or the adapter does not fit its base.
    pub fn config(&self) -> Result<LlamaConfig, ModelError> {
        config(&self.base, self.adapter.as_deref())
    }

    /// The same of the reference.
    ///
    /// # Errors
    /// As [`ModelDirs::config`].
    pub fn reference_config(&self) -> Result<Option<LlamaConfig>, ModelError> {
        let of = |reference: &PathBuf| config(reference, self.reference_adapter.as_deref());
        self.reference.as_ref().map(of).transpose()
    }

    /// The identity of the model that training starts from: that of its tensors, and of an adapter's file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn hash(&self) -> Result<String, PipelineError> {
        hash(&self.base, self.adapter.as_deref())
    }

    /// The same of the reference.
    ///
    /// # Errors
    /// As [`ModelDirs::hash`].
    pub fn reference_hash(&self) -> Result<Option<String>, PipelineError> {
        let of = |reference: &PathBuf| hash(reference, self.reference_adapter.as_deref());
        self.reference.as_ref().map(of).transpose()
    }

    /// Where everything was found, as absolute paths, for `run.json`.
    pub fn places(&self) -> BTreeMap<String, Option<String>> {
        let place = |path: Option<&PathBuf>| path.map(|path| absolute(path).display().to_string());
        let model = self.adapter.as_ref().unwrap_or(&self.base);
        let reference = self.reference_adapter.as_ref().or(self.reference.as_ref());
        let places = [
            ("model", place(Some(model))),
            ("reference", place(reference)),
            ("reward", place(self.reward.as_ref())),
        ];
        places.map(|(key, place)| (key.to_owned(), place)).into()
    }

    /// What the adapters of a run name as their base: a path of this machine in full, so that it is
    /// found from any directory; a hub's model and a built-in one by its name. `uri` is the recipe's.
    pub fn base_name(&self, uri: &str) -> String {
        match Location::parse(uri) {
            Ok(Location::Hub(_) | Location::Builtin(_) | Location::S3(_)) if self.adapter.is_none() => uri.to_owned(),
            _ => absolute(&self.base).display().to_string(),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

fn tokenizer<'a>(base: &'a Path, adapter: Option<&'a Path>) -> &'a Path {
    adapter
        .filter(|dir| dir.join("tokenizer.json").is_file())
        .unwrap_or(base)
}

fn config(base: &Path, adapter: Option<&Path>) -> Result<LlamaConfig, ModelError> {
    match adapter {
        Some(adapter) => wmtp_model::adapted_config(base, adapter),
        None => LlamaConfig::read(base),
    }
}

fn hash(base: &Path, adapter: Option<&Path>) -> Result<String, PipelineError> {
    let base = wmtp_model::model_hash(base)?;
    Ok(match adapter {
        Some(adapter) => hex::encode(Sha256::digest(format!("{base}\n{}", weights_hash(adapter)?))),
        None => base,
    })
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
        let bytes = std::fs::read(&path).map_err(|source| PipelineError::Io {
            what: "reading",
            path,
            source,
        })?;
        hash.update(&bytes);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Loads a model, with an adapter merged into it.
pub(super) fn load(
    base: &Path,
    adapter: Option<&Path>,
    options: &LoadOptions,
    device: &Device,
) -> Result<MtpLlama, ModelError> {
    match adapter {
        Some(adapter) => wmtp_model::load_adapted(base, adapter, options, device),
        None => wmtp_model::load(base, options, device),
    }
}

/// The model on the training device, with its adapters if the recipe wants them: new ones, or those
/// of the adapter that training starts from.
pub(super) fn load_trained(
    recipe: &Recipe,
    seed: u64,
    dirs: &ModelDirs,
    device: &Device,
) -> Result<MtpLlama, PipelineError> {
    let mtp = &recipe.model.mtp;
    let options = LoadOptions {
        n_heads: Some(mtp.n_heads),
        head_init: match mtp.init {
            HeadInit::CopyLast => wmtp_model::HeadInit::CopyLast,
            HeadInit::Random => wmtp_model::HeadInit::Random,
        },
        seed,
        dtype: recipe.train.dtype(),
    };
    // burn computes cheap element-wise results again in the backward pass instead of keeping them:
    // at SmolLM2's shape that is both smaller and faster (benches/train_step.rs).
    let device = device.clone().autodiff().gradient_checkpointing();
    let compute = recipe.train.compute();
    let ModelDirs { base, adapter, .. } = dirs;
    let Some(lora) = &recipe.train.lora else {
        return Ok(load(base, adapter.as_deref(), &options, &device)?.with_compute(compute));
    };
    let model = wmtp_model::load(base, &options, &device)?.with_compute(compute);
    let model = wmtp_model::apply_lora(model, lora.rank, lora.alpha, seed);
    Ok(match adapter {
        Some(adapter) => wmtp_model::continue_adapter(model, base, adapter, lora.rank, lora.alpha)?,
        None => model,
    })
}

/// Refuses to resume the run in `dir` from another model than the one with which it was started.
pub(super) fn check_same_model(dir: &Path, hash: &str, dirs: &ModelDirs) -> Result<(), PipelineError> {
    let path = dir.join(RECORD);
    let text = std::fs::read(&path).map_err(|source| PipelineError::Io {
        what: "reading",
        path: path.clone(),
        source,
    })?;
    let record: RunRecord = serde_json::from_slice(&text)
        .map_err(|e| PipelineError::Setting(format!("`{}` is not JSON: {e}", path.display())))?;
    match record.model_sha256.as_deref() {
        Some(then) if then != hash => Err(PipelineError::Setting(format!(
            "the model in `{}` has other weights than the one that `{}` was started from: give that one with --base DIR",
            dirs.adapter.as_ref().unwrap_or(&dirs.base).display(),
            dir.display()
        ))),
        _ => Ok(()),
    }
}
