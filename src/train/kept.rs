//! Kept checkpoints (`best`, `step-000500`) that hold less than `last`: no optimizer, another stored type.
//!
//! `last` and `previous` always hold everything, weights in the type that training keeps, so that a run
//! resumes bit for bit. What a kept checkpoint leaves out is a setting (`train.checkpoint.only_model`,
//! `train.checkpoint.dtype`); its manifest then says that it cannot be resumed.

use super::{
    CheckpointConfig, CheckpointDtype,
    checkpoint::{CheckpointError, OPTIMIZER, entries, file_name, read_manifest, write_manifest},
};
use crate::{storage::MANIFEST, track::RunError};
use std::{fs, path::Path};
use wmtp_model::{ExportOptions, Heads, SaveDtype};

/// What a kept checkpoint holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Leave out the optimizer's state.
    pub only_model: bool,
    /// The stored type of the weights; None: as in `last`.
    pub dtype: Option<SaveDtype>,
}

impl From<&CheckpointConfig> for Kept {
    fn from(config: &CheckpointConfig) -> Self {
        Self {
            only_model: config.only_model,
            dtype: match config.dtype {
                CheckpointDtype::Auto => None,
                CheckpointDtype::F32 => Some(SaveDtype::F32),
                CheckpointDtype::F16 => Some(SaveDtype::F16),
                CheckpointDtype::Bf16 => Some(SaveDtype::Bf16),
            },
        }
    }
}

/// Fills the directory `to` with what is kept of the checkpoint `from`: hard links where nothing changes.
pub(super) fn fill(from: &Path, to: &Path, kept: Kept) -> Result<(), CheckpointError> {
    let content = |error: wmtp_model::ModelError| CheckpointError::Content {
        path: to.into(),
        problem: error.to_string(),
    };
    let dtype = match kept.dtype {
        Some(dtype) => Some(dtype).filter(|dtype| wmtp_model::stored_dtype(from).map_or(true, |now| now != *dtype)),
        None => None,
    };
    if let Some(dtype) = dtype {
        let options = ExportOptions {
            heads: Heads::Keep,
            dtype: Some(dtype),
        };
        wmtp_model::export_weights(from, to, &options).map_err(content)?;
    }
    let less = dtype.is_some() || kept.only_model;
    for file in entries(from)? {
        let name = file_name(&file);
        let target = to.join(&name);
        let left_out = (kept.only_model && name == OPTIMIZER) || (less && name == MANIFEST);
        if left_out || target.exists() {
            continue;
        }
        // File systems without hard links get a copy.
        if fs::hard_link(&file, &target).is_err() {
            fs::copy(&file, &target).map_err(RunError::io("copying", &file))?;
        }
    }
    if less {
        write_manifest(to, read_manifest(from)?.step, false)?;
    }
    Ok(())
}

/// Why a kept checkpoint is passed over, and what to do with it.
pub(super) fn not_resumable(path: &Path) -> String {
    format!(
        "`{}` holds the model without all of its training state and cannot be resumed: start a new run from it with `--model`",
        path.display()
    )
}
