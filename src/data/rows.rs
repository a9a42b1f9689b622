//! JSON Lines: one JSON object a line.

use super::DataError;

/// Parses one JSON object a line, each with its line number; empty lines are passed over.
///
/// # Errors
/// A line that is no `T`, with its number.
pub(crate) fn rows<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<Vec<(usize, T)>, DataError> {
    text.lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty())
        .map(|(row, line)| {
            let row = serde_json::from_str(row).map_err(|e| DataError::Row {
                file: file.to_owned(),
                line,
                problem: format!("not a row of this file: {e}"),
            })?;
            Ok((line, row))
        })
        .collect()
}
