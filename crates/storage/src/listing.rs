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

/// PyTorch's own files, which are read where a model has no safetensors.
fn is_pickle(name: &str) -> bool {
    let flat = !name.contains(['/', '\\']);
    flat && name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))
}

/// Weights of a whole model, or of one of its shards.
fn is_whole(name: &str) -> bool {
    let of_a_part = ["adapter_model", "mtp_", "value_head"];
    is_model_file(name) && name.ends_with(".safetensors") && !of_a_part.iter().any(|part| name.starts_with(part))
}

/// Which of a source's files make its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelFiles {
    /// PyTorch's own are among them: there is nothing else.
    pickles: bool,
}

impl ModelFiles {
    /// Of the files with these names.
    pub fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> Self {
        let pickles = !names.any(|name| is_whole(name) || name == "adapter_config.json");
        Self { pickles }
    }

    /// Whether the file with this name is one of them.
    pub fn has(self, name: &str) -> bool {
        is_model_file(name) || (self.pickles && is_pickle(name))
    }
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
    let is_weights = |name: &str| name.ends_with(".safetensors") || (is_pickle(name) && name.ends_with(".bin"));
    if !objects.iter().any(|o| is_weights(&o.name)) {
        return unusable(
            "it has no *.safetensors file and no pytorch_model.bin: convert its weights first (docs/models.md)",
        );
    }
    Ok(())
}

/// Files of a data set: none that is hidden, and none that would leave its directory.
pub(super) fn is_data_file(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) && !name.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(names: &[&'static str]) -> Vec<&'static str> {
        let files = ModelFiles::of(names.iter().copied());
        names.iter().copied().filter(|name| files.has(name)).collect()
    }

    #[test]
    fn pytorchs_files_are_taken_where_there_is_nothing_else() {
        let both = ["config.json", "model.safetensors", "pytorch_model.bin"];
        assert_eq!(taken(&both), ["config.json", "model.safetensors"]);
        let shards = [
            "config.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
            "mtp_heads.safetensors",
            "tokenizer.model",
        ];
        assert_eq!(taken(&shards), shards, "heads are no model");
        let others = [
            "config.json",
            "training_args.bin",
            "onnx/pytorch_model.bin",
            "optimizer.bin",
        ];
        assert_eq!(taken(&others), ["config.json"]);
        let adapter = ["adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin"];
        assert_eq!(taken(&adapter), ["adapter_config.json", "adapter_model.safetensors"]);
    }

    #[test]
    fn a_model_has_a_configuration_and_weights() {
        let check = |names: &[&str]| {
            let objects: Vec<Object> = names
                .iter()
                .map(|name| Object {
                    name: (*name).to_owned(),
                    path: String::new(),
                    size: None,
                    sha256: None,
                    etag: None,
                })
                .collect();
            check_model("hf://o/n", &objects).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["config.json", "pytorch_model.bin"]), Ok(()));
        assert_eq!(check(&["adapter_config.json", "adapter_model.safetensors"]), Ok(()));
        assert!(check(&["model.safetensors"]).unwrap_err().contains("no config.json"));
        let index_alone = check(&["config.json", "pytorch_model.bin.index.json"]);
        assert!(index_alone.unwrap_err().contains("no pytorch_model.bin"));
    }
}
