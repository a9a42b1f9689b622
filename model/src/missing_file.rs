//! Directories without the file that a model needs: what is there instead, and what to do with it.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::ModelError;

/// The error for a directory without `model.safetensors` and without its index.
pub(crate) fn weights(dir: &Path) -> ModelError {
    let names = names(dir);
    let ending = |end: &str| names.iter().find(|name| name.ends_with(end)).cloned();
    let has = |name: &str| names.iter().any(|n| n == name);
    let problem = if let Some(name) = names.iter().find(|name| is_pytorch(name)) {
        format!(
            "has `{name}` and neither `pytorch_model.bin` nor its index: rename it if it holds the whole model, or download the index"
        )
    } else if has("adapter_model.bin") {
        "has `adapter_model.bin` and no `adapter_model.safetensors`: load it with peft and save it again with `save_pretrained` (docs/models.md)".into()
    } else if let Some(name) = ending(".pth") {
        format!("has `{name}` and no `model.safetensors`: convert Meta's layout with `wmtp convert SRC DST`")
    } else if let Some(name) = ending(".gguf") {
        format!("has `{name}` and no `model.safetensors`: GGUF is not read, take the files that it was made from")
    } else if let Some(name) = names.iter().find(|name| is_shard(name)) {
        format!(
            "has `{name}` and no `model.safetensors.index.json`, which says what is in the shards: download the index as well"
        )
    } else if let Some(name) = names.iter().find(|name| is_weights(name)) {
        format!("has `{name}` and no `model.safetensors`: rename it if it holds the whole model")
    } else if let Some(name) = ending(".h5").or_else(|| ending(".msgpack")) {
        format!("has `{name}` and no `model.safetensors`: convert it with transformers (docs/models.md)")
    } else {
        "has no `model.safetensors`, no `pytorch_model.bin` and no index of shards: give a directory that holds the weights"
            .into()
    };
    ModelError::NoModel {
        place: dir.display().to_string(),
        problem,
    }
}

/// The error for a directory whose `config.json` cannot be read.
pub(crate) fn config(dir: &Path, source: std::io::Error) -> ModelError {
    let problem = match source.kind() {
        ErrorKind::NotFound => instead_of_config(dir),
        _ => None,
    };
    match problem {
        Some(problem) => ModelError::NoModel {
            place: dir.display().to_string(),
            problem,
        },
        None => ModelError::io("read", &dir.join("config.json"), source),
    }
}

fn instead_of_config(dir: &Path) -> Option<String> {
    let names = names(dir);
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("adapter_config.json") {
        Some("is a LoRA adapter and no whole model: merge it into its base first (docs/models.md)".into())
    } else if has("params.json") {
        Some("is in Meta's layout (`params.json`): convert it with `wmtp convert SRC DST`".into())
    } else if has("run.json") && has("checkpoints") {
        Some("is a run's directory: give one of its checkpoints, such as `checkpoints/best`".into())
    } else if has("snapshots") && has("refs") {
        Some("is a hub cache's entry: give a directory below its `snapshots`".into())
    } else {
        let gguf = names.iter().find(|name| name.ends_with(".gguf"))?;
        Some(format!(
            "has `{gguf}` and no `config.json`: GGUF is not read, take the files that it was made from"
        ))
    }
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    is_weights(name) && name.contains("-of-")
}

/// A PyTorch file of weights under another name than a whole model's, such as a shard.
fn is_pytorch(name: &str) -> bool {
    name.ends_with(".bin") && name.contains("pytorch_model")
}

/// A safetensors file that could be a whole model's.
fn is_weights(name: &str) -> bool {
    /// Files of this crate and of peft that hold something else.
    const OTHERS: [&str; 4] = ["mtp_heads", "value_head", "adapter_model", "mtp_adapter"];
    name.strip_suffix(".safetensors")
        .is_some_and(|stem| !OTHERS.contains(&stem))
}

/// Names of the directory's entries, sorted; none where it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(file: &str, error: impl Fn(&Path) -> ModelError) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(file), "").unwrap();
        error(dir.path()).to_string()
    }

    #[test]
    fn other_files_are_named_with_what_to_do() {
        for (file, fragment) in [
            ("pytorch_model-00001-of-00002.bin", "index"),
            ("old.pytorch_model.bin", "rename"),
            ("adapter_model.bin", "peft"),
            ("consolidated.00.pth", "wmtp convert"),
            ("q4.gguf", "GGUF"),
            ("model-00001-of-00002.safetensors", "index"),
            ("model.fp16.safetensors", "rename"),
            ("tf_model.h5", "transformers"),
            ("README.md", "no `model.safetensors`"),
        ] {
            let said = said(file, weights);
            assert!(said.contains(fragment), "{file}: {said}");
            assert!(file == "README.md" || said.contains(file), "{file}: {said}");
            assert!(said.split_whitespace().count() <= 30, "{said}");
        }
    }

    #[test]
    fn a_directory_of_another_kind_is_named() {
        let absent = || std::io::Error::from(ErrorKind::NotFound);
        for (file, fragment) in [("adapter_config.json", "LoRA adapter"), ("params.json", "wmtp convert")] {
            let said = said(file, |dir| config(dir, absent()));
            assert!(said.contains(fragment), "{file}: {said}");
        }
        assert!(said("notes.txt", |dir| config(dir, absent())).starts_with("cannot read"));
    }
}
