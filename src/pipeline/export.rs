//! A model directory of any kind that training leaves: loaded for inference, or an adapter merged into its
//! base and written as a model directory of its own.

use super::{ModelDir, PipelineError};
use burn::tensor::{DType, Device};
use std::path::Path;
use wmtp_model::{Companions, ExportOptions, Exported, Heads, LoadOptions, MtpLlama};

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
