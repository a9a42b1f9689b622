//! Kept checkpoints (`best`, `step-000500`) that hold less than `last`: no optimizer, another stored type.
//!
//! `last` and `previous` always hold everything, weights in the type that training keeps, so that a run
//! resumes bit for bit. What a kept checkpoint leaves out is a setting (`train.checkpoint.only_model`,
//! `train.checkpoint.dtype`); its manifest then says that it cannot be resumed.

use super::{CheckpointConfig, CheckpointDtype};
use std::path::Path;
use wmtp_model::{ExportOptions, Heads, SaveDtype};
use wmtp_run::{
    CheckpointError,
    file::{MANIFEST, OPTIMIZER},
    link_files, write_manifest_of_kept,
};

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

impl Kept {
    /// Fills the directory `to` with what is kept of the checkpoint `from`: hard links where nothing changes.
    pub fn fill(self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        let content = |error: wmtp_model::ModelError| CheckpointError::Content {
            path: to.into(),
            problem: error.to_string(),
        };
        let dtype = match self.dtype {
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
        let less = dtype.is_some() || self.only_model;
        link_files(from, to, |name| {
            (self.only_model && name == OPTIMIZER) || (less && name == MANIFEST)
        })?;
        if less {
            write_manifest_of_kept(from, to)?;
        }
        Ok(())
    }
}
