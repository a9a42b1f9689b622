//! The micro model that is built in, as an ordinary model directory in the cache.

use super::PipelineError;
use crate::data::{MICRO_CONFIG, Tokenizer};
use burn::tensor::Device;
use std::{
    fs,
    path::{Path, PathBuf},
};
use wmtp_model::{LlamaConfig, SaveDtype};

/// The seed of its random weights; part of what "the micro model" means.
const SEED: u64 = 42;

/// Writes the micro model (random weights from a fixed seed, and its tokenizer) into the cache,
/// unless it is there, and gives its directory. The directory appears whole or not at all.
pub fn micro_model(cache: &Path, device: &Device) -> Result<PathBuf, PipelineError> {
    let dir = cache.join("builtin").join("micro-1");
    if dir.join("config.json").is_file() {
        return Ok(dir);
    }
    let io = || PipelineError::io("writing the built-in model to", &dir);
    let temporary = cache.join("builtin").join(format!(".tmp-micro-{}", std::process::id()));
    fs::create_dir_all(&temporary).map_err(io())?;
    let config = LlamaConfig::parse(MICRO_CONFIG)?;
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
