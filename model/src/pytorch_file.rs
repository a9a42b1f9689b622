//! Reading PyTorch's files through burn-store's reader, which parses their pickle and runs nothing in it.

use std::collections::BTreeMap;
use std::path::Path;

use burn_store::pytorch_reader::{DType, PytorchReader, Tensor};
use safetensors::Dtype;

use crate::error::ModelError;
use crate::file_content::other_content;
use crate::raw::SaveDtype;

/// The tensors of a checkpoint by name, their bytes not yet read.
pub(crate) fn open(path: &Path) -> Result<BTreeMap<String, Tensor>, ModelError> {
    // Opened separately, so that a file that cannot be opened is not reported as damaged.
    let mut file = std::fs::File::open(path).map_err(|source| ModelError::io("read", path, source))?;
    let reader = PytorchReader::new(path).map_err(|error| {
        let mut head = [0; 512];
        let read = std::io::Read::read(&mut file, &mut head).unwrap_or(0);
        let is_checkpoint = head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80\x02");
        let reason = other_content(&head[..read]).filter(|_| !is_checkpoint);
        ModelError::format(
            path,
            "PyTorch checkpoint",
            reason.map_or_else(|| error.to_string(), str::to_owned),
        )
    })?;
    Ok(reader.into_tensors().into_iter().collect())
}

/// The float type of a tensor, where it is one of those that weights are stored in.
pub(crate) fn dtype(tensor: &Tensor) -> Option<SaveDtype> {
    SaveDtype::from_safetensors(safetensors_dtype(tensor))
}

/// The type under safetensors' name.
pub(crate) fn safetensors_dtype(tensor: &Tensor) -> Dtype {
    match tensor.dtype() {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
