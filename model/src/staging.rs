//! Directories that appear whole or not at all.

use std::path::Path;

use crate::error::ModelError;

/// Fills a directory beside `dst` and renames it to `dst` when it is complete.
pub(crate) fn into_place(dst: &Path, fill: impl FnOnce(&Path) -> Result<(), ModelError>) -> Result<(), ModelError> {
    let occupied = match std::fs::read_dir(dst) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(source) => return Err(ModelError::io("use", dst, source)),
    };
    let name = dst.file_name().filter(|_| !occupied).ok_or_else(|| {
        ModelError::Request(format!(
            "{} is not empty: choose a new or an empty directory",
            dst.display()
        ))
    })?;
    let mut staging = std::ffi::OsString::from(".");
    staging.push(name);
    staging.push(format!(".tmp-{}", std::process::id()));
    let staging = dst.with_file_name(staging);
    let parent = dst.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|source| ModelError::io("create", parent, source))?;
    }
    std::fs::create_dir(&staging).map_err(|source| ModelError::io("create", &staging, source))?;
    let filled = fill(&staging).and_then(|()| {
        // An empty directory gives way to the rename; a filled one does not.
        std::fs::rename(&staging, dst).map_err(|source| ModelError::io("create", dst, source))
    });
    if filled.is_err() {
        // The conversion has already failed; what cannot be removed either changes nothing.
        let _ = std::fs::remove_dir_all(&staging);
    }
    filled
}
