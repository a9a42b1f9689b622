//! A model for inference, from a directory of any kind that training leaves.

use super::PipelineError;
use burn::tensor::{DType, Device};
use std::path::Path;
use wmtp_model::{LoadOptions, MtpLlama};

/// Loads the model in `dir`; with `base` the LoRA adapter in `dir` on top of it, merged in f32. `heads`:
/// as stored, or so many. Weights are kept in `dtype`.
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
    Ok(match base {
        Some(base) => wmtp_model::load_adapted(base, dir, &options, device)?,
        None => wmtp_model::load(dir, &options, device)?,
    })
}
