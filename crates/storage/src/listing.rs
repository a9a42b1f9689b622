//! What a source holds, before a byte of it is fetched.

use super::StorageError;
use sha2::{Digest, Sha256};

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Its name in the directory, with `/` between folders.
    pub name: String,
    /// Where the server has it.
    pub path: String,
    /// In bytes, if the server tells.
    pub size: Option<u64>,
    /// The hash that its bytes must have, if it is known before they are here.
    pub sha256: Option<String>,
    /// The server's name of this version; None where the path says it.
    pub etag: Option<String>,
}

/// A file, or a directory with all that is wanted of it.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// What was asked for.
    pub uri: String,
    /// The same under a name that will never mean anything else.
    pub forever: Option<String>,
    /// Last part of its name.
    pub name: String,
    /// True: the only object is what was asked for, not a directory that holds it.
    pub is_file: bool,
    pub objects: Vec<Object>,
}

impl Listing {
    /// Changes whenever a file does.
    pub fn version(&self) -> String {
        let mut hash = Sha256::new();
        for object in &self.objects {
            hash.update(format!(
                "{}\n{}\n{:?}\n{:?}\n{:?}\n",
                object.name, object.path, object.size, object.sha256, object.etag
            ));
        }
        hex::encode(hash.finalize())
    }

    /// The objects' names in an error.
    pub fn about(&self, object: &Object) -> String {
        if self.is_file {
            self.uri.clone()
        } else {
            format!("{} of {}", object.name, self.uri)
        }
    }
}

/// The files of a model directory; none lies in a folder of its own.
pub(super) fn is_model_file(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "adapter_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
    ];
    let flat = !name.contains(['/', '\\']) && !name.starts_with('.');
    let tokenizer = name.starts_with("tokenizer") && (name.ends_with(".json") || name.ends_with(".model"));
    // Some repositories carry a second copy of the weights under other tensor names.
    let weights = name.ends_with(".safetensors") && !name.starts_with("consolidated");
    flat && (EXACT.contains(&name) || tokenizer || weights)
}

/// Whether these are a model directory's.
pub(super) fn check_model(uri: &str, objects: &[Object]) -> Result<(), StorageError> {
    let unusable = |problem: &str| {
        Err(StorageError::NotAModel {
            uri: uri.to_owned(),
            problem: problem.to_owned(),
        })
    };
    let adapter = objects.iter().any(|o| o.name == "adapter_config.json");
    if !adapter && !objects.iter().any(|o| o.name == "config.json") {
        return unusable("it has no config.json");
    }
    if !objects.iter().any(|o| o.name.ends_with(".safetensors")) {
        return unusable("it has no *.safetensors file: convert its weights first (docs/models.md)");
    }
    Ok(())
}

/// Files of a data set: none that is hidden, and none that would leave its directory.
pub(super) fn is_data_file(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) && !name.contains('\\')
}
