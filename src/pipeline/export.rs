//! A model directory of any kind that training leaves: loaded for inference, or an adapter merged into its
//! base and written as a model directory of its own. And the models that are built in.

use super::{ModelDir, PipelineError};
use crate::data::{MICRO_CONFIG, Tokenizer};
use burn::tensor::{DType, Device};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wmtp_model::{Companions, ExportOptions, Exported, Heads, LlamaConfig, LoadOptions, MtpLlama, SaveDtype};

/// Loads the model in `dir`; with `base` the LoRA adapter in `dir` on top of it, merged in f32. `heads`:
/// as stored, or this number of them. Weights are kept in `dtype`.
///
/// # Errors
/// A directory that holds no model, or an adapter that does not fit its base.
pub fn load_model(
    dir: &Path,
    base: Option<&Path>,
    heads: Option<usize>,
    dtype: DType,
    device: &Device,
) -> Result<MtpLlama, PipelineError> {
    let options = LoadOptions {
        n_heads: heads,
        dtype,
        ..LoadOptions::default()
    };
    let dir = ModelDir {
        dir: dir.to_owned(),
        base: base.map(Path::to_owned),
    };
    Ok(dir.load(&options, device)?)
}

/// Writes the adapter in `dir` merged into the model in `base` to `target`, which must not exist or be
/// empty. The sum W + alpha / r * B A is computed in f32 and then rounded to the type asked for, else to
/// that of the base. Tokenizer, chat template and generation settings are the adapter's, else the base's.
///
/// # Errors
/// Files that do not fit or cannot be written; values too large for the type; `target` in use.
pub fn export_merged(
    dir: &Path,
    base: &Path,
    target: &Path,
    options: &ExportOptions,
    device: &Device,
) -> Result<Exported, PipelineError> {
    let dtype = match options.dtype {
        Some(dtype) => dtype,
        None => wmtp_model::stored_dtype(base)?,
    };
    let heads = match options.heads {
        Heads::Keep => None,
        Heads::Drop => Some(1),
    };
    let model = load_model(dir, Some(base), heads, DType::F32, device)?;
    let companions = Companions::read(dir)?.or(Companions::read(base)?);
    Ok(wmtp_model::export_model(&model, &companions, target, dtype)?)
}

/// The seed of the built-in models' random weights; part of what their names mean.
const SEED: u64 = 42;

/// Names of the built-in models.
pub const BUILTIN_MODELS: [&str; 2] = ["micro", "world"];
/// The model of the small world.
const WORLD_CONFIG: &str = include_str!("../../data/world/config.json");

/// The shape of a built-in model: `micro`, or `world` for the small world.
pub fn builtin_config(name: &str) -> Result<LlamaConfig, PipelineError> {
    match name {
        "micro" => Ok(LlamaConfig::parse(MICRO_CONFIG)?),
        "world" => Ok(LlamaConfig::parse(WORLD_CONFIG)?),
        other => Err(PipelineError::Setting(format!(
            "there is no built-in model `{other}`: there is builtin:{}",
            BUILTIN_MODELS.join(", builtin:")
        ))),
    }
}

/// Writes a built-in model (random weights from a fixed seed, and the micro tokenizer) into the cache,
/// unless it is there, and gives its directory. The directory appears whole or not at all.
pub fn builtin_model(name: &str, cache: &Path, device: &Device) -> Result<PathBuf, PipelineError> {
    let config = builtin_config(name)?;
    let dir = cache.join("builtin").join(format!("{name}-1"));
    if dir.join("config.json").is_file() {
        return Ok(dir);
    }
    let io = || PipelineError::io("writing the built-in model to", &dir);
    let temporary = cache
        .join("builtin")
        .join(format!(".tmp-{name}-{}", std::process::id()));
    fs::create_dir_all(&temporary).map_err(io())?;
    wmtp_model::save(&config.init(SEED, device), &temporary, SaveDtype::F32)?;
    Tokenizer::builtin_micro()?.save(&temporary)?;
    match fs::rename(&temporary, &dir) {
        Ok(()) => Ok(dir),
        // Another process was faster; its copy is the same.
        Err(_) if dir.join("config.json").is_file() => {
            fs::remove_dir_all(&temporary).map_err(io())?;
            Ok(dir)
        }
        Err(error) => Err(io()(error)),
    }
}
