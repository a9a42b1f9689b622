//! `model.safetensors.index.json`: which file holds which tensor.
//!
//! transformers writes it for sharded models only. Here it is always written, and names only the files of
//! the trunk and head 1: vLLM and SGLang load every `*.safetensors` of a directory that has no index, and
//! stop at the tensors of `mtp_heads.safetensors`, which no plain Llama has.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::raw::SaveDtype;
use crate::store::write_json;
use crate::tensor_file::Outgoing;

/// Name of the file.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Name, number of values and stored type of each tensor of one file.
pub(crate) struct Indexed(Vec<(String, usize, SaveDtype)>);

impl Indexed {
    /// What is about to be written.
    pub(crate) fn of(tensors: &[Outgoing<'_>]) -> Self {
        let mut entries: Vec<_> = tensors
            .iter()
            .map(|tensor| {
                let values = tensor.spec.shape.iter().product();
                (tensor.spec.name.clone(), values, tensor.dtype)
            })
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Self(entries)
    }

    /// Writes the index of `dir`, which says that all of these tensors are in `file`. Sizes are in bytes
    /// without the file's header, as transformers counts them.
    pub(crate) fn write(&self, dir: &Path, file: &str) -> Result<(), ModelError> {
        let parameters: usize = self.0.iter().map(|(_, values, _)| values).sum();
        let bytes: usize = self.0.iter().map(|(_, values, dtype)| values * dtype.size()).sum();
        let map: Map<String, Value> = self.0.iter().map(|(name, ..)| (name.clone(), json!(file))).collect();
        write_json(
            &dir.join(INDEX),
            &json!({
                "metadata": {"total_parameters": parameters, "total_size": bytes},
                "weight_map": map,
            }),
        )
    }
}
