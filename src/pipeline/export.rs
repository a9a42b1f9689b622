//! A LoRA adapter merged into its base, as a model directory of its own.

use super::{PipelineError, load_model};
use burn::tensor::{DType, Device};
use std::path::Path;
use wmtp_model::{Companions, ExportOptions, Exported, Heads};

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
