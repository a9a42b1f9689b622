//! A model for inference, from a directory of any kind that training leaves.

use super::PipelineError;
use burn::tensor::{DType, Device};
use serde::Deserialize;
use std::path::Path;
use wmtp_model::{LoadOptions, MtpLlama};

/// The fields of `adapter_config.json` that a loader needs.
#[derive(Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
}

/// Loads the model in `dir`; with `base` the adapter in `dir` on top of it, merged. `heads`: as
/// stored, or so many. Weights are kept in `dtype`; an adapter is merged in f32 before.
pub fn open_model(
    dir: &Path,
    base: Option<&Path>,
    heads: Option<usize>,
    dtype: DType,
    device: &Device,
) -> Result<MtpLlama, PipelineError> {
    let Some(base) = base else {
        return Ok(wmtp_model::load(
            dir,
            &LoadOptions {
                n_heads: heads,
                dtype,
                ..LoadOptions::default()
            },
            device,
        )?);
    };
    let path = dir.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| PipelineError::Io {
        what: "reading",
        path: path.clone(),
        source,
    })?;
    let config: AdapterConfig = serde_json::from_str(&text)
        .map_err(|e| PipelineError::Setting(format!("`{}` is not an adapter's configuration: {e}", path.display())))?;
    // The adapter's own configuration says how many heads were trained.
    let heads = wmtp_model::LlamaConfig::read(dir)?.n_heads;
    let options = LoadOptions {
        n_heads: Some(heads),
        ..LoadOptions::default()
    };
    let model = wmtp_model::apply_lora(
        wmtp_model::load(base, &options, device)?,
        config.r,
        config.lora_alpha,
        0,
    );
    Ok(wmtp_model::merged(wmtp_model::load_adapter(model, dir)?).in_dtype(dtype))
}
