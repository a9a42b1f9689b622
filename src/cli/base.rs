//! Where models are that a file names: the base of a LoRA adapter, the model of a resumed run.
//!
//! A name in a file was written elsewhere, maybe as a path relative to another directory. It is looked
//! for as if it had been given here, then in the directories above the file. `--base` (`paths.base`)
//! says where it is when that finds nothing, or the wrong one.

use super::{
    Failure, Model, Output,
    common::{model_dir, resolve_model},
};
use crate::{
    data::Tokenizer,
    pipeline::{ModelDir, load_model},
    run::RunRecord,
    settings::{Config, Settings},
    storage::{Location, StorageError},
};
use burn::tensor::{DType, Device};
use serde_json::Value;
use std::path::{Path, PathBuf};
use wmtp_model::{CausalLm, MtpLlama};

/// The directory of a model that was given on the command line or in the settings and, where that holds a
/// LoRA adapter, the directory of its base.
pub(super) fn find_dir(model: &Model, config: &Config, device: &Device, output: &Output) -> Result<ModelDir, Failure> {
    let dir = model_dir(model, config, device)?;
    let base = adapter_base(&dir, config, device, output)?;
    Ok(ModelDir { dir, base })
}

/// The directory of the base model that the adapter in `dir` belongs to; None if it holds a whole model.
fn adapter_base(dir: &Path, config: &Config, device: &Device, output: &Output) -> Result<Option<PathBuf>, Failure> {
    let path = dir.join("adapter_config.json");
    let whole = ["model.safetensors", "model.safetensors.index.json"];
    if whole.iter().any(|name| dir.join(name).is_file()) || !path.is_file() {
        return Ok(None);
    }
    if let Some(given) = &config.paths.base {
        let found = resolve_model(given, config, output)
            .map_err(|failure| failure.about(&format!("--base {given} (paths.base): ")))?;
        return Ok(Some(model_dir(&found, config, device)?));
    }
    let (name, revision) = base_name(&path)?;
    let about = format!(
        "`{}` is a LoRA adapter and its base model `{name}` was not found; say where it is with --base DIR",
        dir.display()
    );
    let found = match near(&name, dir, config)? {
        Some(found) => found,
        None => {
            let uri = hub_name(&name, revision.as_deref(), dir).unwrap_or_else(|| name.clone());
            let found = resolve_model(&uri, config, output).map_err(|failure| failure.about(&format!("{about}: ")))?;
            model_dir(&found, config, device)?
        }
    };
    tracing::info!(base = %found.display(), "the adapter's base model");
    Ok(Some(found))
}

/// `base_model_name_or_path` and `revision` of an adapter.
fn base_name(path: &Path) -> Result<(String, Option<String>), Failure> {
    let text = std::fs::read(path).map_err(|e| Failure::usage(format!("cannot read `{}`: {e}", path.display())))?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| {
        let problem = wmtp_model::other_content(&text).map_or_else(|| format!("it is not JSON: {e}"), str::to_owned);
        Failure::usage(format!("`{}` cannot be read: {problem}", path.display()))
    })?;
    let text = |key: &str| json[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let name = text("base_model_name_or_path").ok_or_else(|| {
        Failure::usage(format!(
            "`{}` does not name its base model (`base_model_name_or_path`): give it with --base DIR",
            path.display()
        ))
    })?;
    Ok((name, text("revision")))
}

/// peft names models of the hub without a scheme; this program, whose adapters have a `config.json`, does
/// not.
fn hub_name(name: &str, revision: Option<&str>, adapter: &Path) -> Option<String> {
    let at = revision.map_or_else(String::new, |revision| format!("@{revision}"));
    let hub = format!("hf://{name}{at}");
    let peft = !adapter.join("config.json").is_file();
    (peft && is_path(name) && Location::parse(&hub).is_ok()).then_some(hub)
}

fn is_path(name: &str) -> bool {
    matches!(Location::parse(name), Ok(Location::Path(_)))
}

/// The directory that a path means: from here, under `paths.models`, or from one of the directories
/// above `file`. None for a path that is nowhere, and for other URIs.
fn near(name: &str, file: &Path, config: &Config) -> Result<Option<PathBuf>, Failure> {
    let Location::Path(path) = Location::parse(name)? else {
        return Ok(None);
    };
    let storage = crate::storage::Storage::new(&config.storage, &config.paths);
    match storage.resolve(name, crate::storage::Kind::Model, &mut |_| ()) {
        Ok(found) => return Ok(Some(found)),
        Err(StorageError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(above(&path, file))
}

/// The first directory above `file` from which the relative `path` leads to a model.
fn above(path: &Path, file: &Path) -> Option<PathBuf> {
    let from = std::fs::canonicalize(file).ok()?;
    let found = |dir: &Path| Some(dir.join(path)).filter(|found| found.join("config.json").is_file());
    path.is_relative().then(|| from.ancestors().find_map(found)).flatten()
}

/// The model that a recipe names; for a run that is resumed (`run`), also where the run found it, and
/// above the run's directory.
pub(super) fn of_run(
    uri: &str,
    run: Option<&Path>,
    key: &str,
    config: &Config,
    output: &Output,
) -> Result<Model, Failure> {
    let failure = match (resolve_model(uri, config, output), run) {
        (Ok(found), _) => return Ok(found),
        (Err(failure), None) => return Err(failure),
        (Err(failure), Some(_)) if !is_path(uri) => return Err(failure),
        (Err(failure), Some(_)) => failure,
    };
    let run = run.unwrap_or(Path::new(""));
    let directory = |dir: PathBuf| Model {
        uri: uri.to_owned(),
        source: super::ModelSource::Directory(dir),
    };
    let places = RunRecord::read(run)
        .and_then(|record| record.places)
        .unwrap_or_default();
    let then = places.get(key).cloned().flatten();
    let then = then.map(PathBuf::from).filter(|dir| dir.is_dir());
    if let Some(found) = then.or_else(|| above(Path::new(uri), run)) {
        tracing::info!(model = uri, directory = %found.display(), "found where the run had it");
        return Ok(directory(found));
    }
    if let Some(given) = config.paths.base.as_ref().filter(|_| key == "model") {
        return resolve_model(given, config, output)
            .map(|found| Model {
                uri: uri.to_owned(),
                ..found
            })
            .map_err(|failure| failure.about(&format!("--base {given} (paths.base): ")));
    }
    let flag = match key {
        "model" => "--base DIR",
        _ => "--set paths.models=DIR",
    };
    Err(failure.about(&format!(
        "the {key} `{uri}` that `{}` was started with was not found; say where it is with {flag}: ",
        run.display()
    )))
}

/// Loads a model for inference, with its tokenizer and its weights in `dtype`. A directory that holds
/// a LoRA adapter is loaded on top of the base that it names. Heads: as stored, or at most `heads`. The
/// tokenizer adds special tokens as `data.special_tokens` says.
pub(super) fn open_model(
    model: &Model,
    heads: Option<usize>,
    dtype: DType,
    settings: &Settings,
    device: &Device,
    output: &Output,
) -> Result<(MtpLlama, Tokenizer), Failure> {
    let dir = find_dir(model, &settings.config, device, output)?;
    let loaded = load_model(&dir.dir, dir.base.as_deref(), heads, dtype, device)?;
    let tokenizer = Tokenizer::load(dir.tokenizer())?
        .with_choice(settings.recipe.data.choice())?
        .for_model(loaded.config().vocab_size)?;
    if let Some(notice) = tokenizer.notice() {
        say!("note: {notice}");
    }
    Ok((loaded, tokenizer))
}
