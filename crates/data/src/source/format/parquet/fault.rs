//! What is wrong with a file's bytes.

use parquet::errors::ParquetError;

/// Why a column cannot be decoded.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is not what its format says.
    Damaged(String),
    /// The column holds bytes that are no text.
    NotText(String),
}

impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Runs the crate's code; a panic of it is an error.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    crate::guard::guarded(read).unwrap_or_else(|| Err(Fault::Damaged("it cannot be decoded".into())))
}
