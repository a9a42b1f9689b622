//! What a model card and its model are made of: a checkpoint, its files, and what people say of it.

use super::Failure;
use crate::{
    report::card::{CardFields, Evaluation, ModelCard},
    run::{Manifest, RunDir, RunRecord, TrainerState, file, verify},
};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// What people said of the models of a run, in its directory.
const FIELDS: &str = "model_card.json";
/// The card, in its directory.
pub(super) const CARD: &str = "MODEL_CARD.md";

/// The checkpoint of a run that is meant: `best`, or `last` where there is no best one. It is whole, byte for
/// byte what was trained and judged.
pub(super) fn checkpoint(dir: &Path, wanted: Option<&str>) -> Result<(String, PathBuf), Failure> {
    let run = RunDir::at(dir);
    let there = |name: &&str| run.checkpoint(name).join(file::MANIFEST).is_file();
    let name = match wanted {
        Some(name) => Some(name).filter(there),
        None => [file::BEST, file::LAST].into_iter().find(there),
    };
    let Some(name) = name else {
        return Err(Failure::usage(format!(
            "{} has no complete checkpoint {}: train it first, or name another with --checkpoint",
            dir.display(),
            wanted.unwrap_or("best or last")
        )));
    };
    let path = run.checkpoint(name);
    verify(&path).map_err(Failure::failed)?;
    Ok((name.to_owned(), path))
}

/// What the files of a run say of one of its checkpoints.
pub(super) struct CardFacts {
    /// Those of exactly these weights.
    pub evaluations: Vec<Evaluation>,
    /// `trainer.json`.
    pub trainer: TrainerState,
    manifest: Manifest,
    recipe: String,
}

impl CardFacts {
    /// Reads them; `sha256` is the hash of the checkpoint's weights.
    pub fn read(dir: &Path, checkpoint: &Path, sha256: &str) -> Result<Self, Failure> {
        let mut evaluations = Evaluation::of_run(dir);
        evaluations.retain(|evaluation| evaluation.is_of(sha256));
        let recipe = dir.join(file::RECIPE);
        Ok(Self {
            evaluations,
            trainer: read_json(&checkpoint.join(file::TRAINER))?,
            manifest: read_json(&checkpoint.join(file::MANIFEST))?,
            recipe: std::fs::read_to_string(&recipe)
                .map_err(|e| Failure::usage(format!("cannot read `{}`: {e}", recipe.display())))?,
        })
    }

    /// The card that they make.
    pub fn card<'a>(
        &'a self,
        name: &'a str,
        checkpoint: &'a str,
        sha256: &'a str,
        run: &'a RunRecord,
        fields: &'a CardFields,
    ) -> ModelCard<'a> {
        ModelCard {
            name,
            checkpoint,
            sha256,
            run,
            trainer: &self.trainer,
            manifest: &self.manifest,
            recipe: &self.recipe,
            evaluations: &self.evaluations,
            fields,
        }
    }
}

/// Keeps a card, and what people said for it, with the run.
pub(super) fn save(dir: &Path, fields: &CardFields, card: &str) -> Result<(), Failure> {
    let fields = serde_json::to_string_pretty(fields)?;
    for (name, text) in [(FIELDS, fields.as_str()), (CARD, card)] {
        let path = dir.join(name);
        crate::fs::write(&path, text.as_bytes())
            .map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", path.display())))?;
    }
    Ok(())
}

/// The checkpoint's files without those that only training needs.
pub(super) fn model_files(checkpoint: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(checkpoint)
        .map_err(|e| Failure::failed(format!("cannot read `{}`: {e}", checkpoint.display())))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && file::is_of_model(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    files.sort();
    Ok(files)
}

/// What was given now, over what was given for this run before.
pub(super) fn fields(file: Option<&Path>, dir: &Path) -> Result<CardFields, Failure> {
    let before = std::fs::read_to_string(dir.join(FIELDS)).unwrap_or_default();
    let before: CardFields = serde_json::from_str(&before).unwrap_or_default();
    let Some(file) = file else { return Ok(before) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("--card: cannot read `{}`: {e}", file.display())))?;
    let bad = |problem: String| Failure::usage(format!("--card: `{}` {problem}", file.display()));
    if let Some(line) = wmtp_base::yaml::too_deep(&text) {
        return Err(bad(format!("is nested more than 100 levels deep in line {line}")));
    }
    let documents = <saphyr::Yaml as saphyr::LoadableYamlNode>::load_from_str(&text)
        .map_err(|e| bad(format!("is not valid YAML: {e}")))?;
    let map = documents
        .first()
        .and_then(saphyr::Yaml::as_mapping)
        .ok_or_else(|| bad("must be a map: `intended_use: TEXT` and so on".into()))?;
    let mut fields = before;
    for (key, value) in map {
        let (Some(key), Some(value)) = (key.as_str(), value.as_str()) else {
            return Err(bad("must have texts as keys and values".into()));
        };
        let field = match key {
            "intended_use" => &mut fields.intended_use,
            "limits" => &mut fields.limits,
            "licence" => &mut fields.licence,
            "data_licence" => &mut fields.data_licence,
            _ => {
                return Err(bad(format!(
                    "has a key `{key}`: there are intended_use, limits, licence and data_licence"
                )));
            }
        };
        *field = Some(value.to_owned());
    }
    Ok(fields)
}

/// A JSON document of a run.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    crate::fs::read_json(path).map_err(|e| Failure::usage(format!("cannot read `{}`: {e}", path.display())))
}
