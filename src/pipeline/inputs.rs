//! What goes into a run in addition to its settings: models, tokenizer, value head and data, by content. Their
//! hashes are in `run.json`, and a resumed run must have the same.

use super::{
    ModelDir, PipelineError,
    request::{Prepared, Request},
};
use crate::run::{FileHash, RunRecord, file};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// The key of the base model's weights.
const BASE: &str = "model.base";

/// One of them.
#[derive(Clone, Debug)]
struct Input {
    /// Its key in `run.json`: the setting that names it and, where that names several files, the file.
    key: String,
    /// The setting.
    setting: &'static str,
    /// For people.
    what: String,
    sha256: String,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs(Vec<Input>);

/// Whether a run reads labelled solutions, and their hash counts: reading them takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labelled {
    /// The value stage or the joint value loss reads them.
    Read,
    /// Nothing does.
    Unread,
}

impl Inputs {
    /// Reads and hashes what the run's settings name. `model_hash`: of the base model's weights.
    ///
    /// # Errors
    /// What can't be read.
    pub fn of(
        request: &Request,
        prepared: &Prepared,
        model_hash: &str,
        labelled: Labelled,
    ) -> Result<Self, PipelineError> {
        let mut inputs = Self::default();
        let (dirs, recipe) = (&request.model_dirs, &request.recipe);
        inputs.weights(BASE, &dirs.model, model_hash.to_owned());
        inputs.file(BASE, dirs.model.whole(), "config.json")?;
        inputs.file(BASE, dirs.model.whole(), "mtp_heads.safetensors")?;
        if dirs.model.base.is_some() {
            inputs.file(BASE, &dirs.model.dir, "adapter_config.json")?;
        }
        inputs.add(
            "tokenizer",
            BASE,
            format!("the tokenizer in `{}`", prepared.tokenizer.place()),
            prepared.tokenizer.hash().to_owned(),
        );
        let needs = recipe.scorer.models_needed();
        if let Some(reference) = dirs.reference.as_ref().filter(|_| needs.reference.is_some()) {
            inputs.weights("model.reference", reference, reference.hash()?);
            inputs.file("model.reference", reference.whole(), "config.json")?;
        }
        if let Some(dir) = dirs.reward.as_ref().filter(|_| needs.reward) {
            let reward = ModelDir {
                dir: dir.clone(),
                base: None,
            };
            inputs.weights("model.reward", &reward, reward.hash()?);
            inputs.file("model.reward", dir, "config.json")?;
        }
        let head = needs.value.and_then(|critic| critic.value_head.as_ref());
        if let Some(head) = head {
            let path = value_head_file(head);
            let hash = hash_or_absent(&path)?;
            inputs.add("scorer.value_head", "scorer.value_head", shown(&path), hash);
        }
        let source = &recipe.data.source;
        let mut data = |key: &str, which: &str, hash: &str| {
            inputs.add(
                key,
                "data.source",
                format!("the {which} data of `{source}`"),
                hash.to_owned(),
            );
        };
        data("data.train", "training", prepared.splits.train.hash());
        data("data.valid", "held-out", prepared.splits.valid.hash());
        if labelled == Labelled::Read && needs.value.is_some() && (head.is_none() || is_joint(request)) {
            // Held-out solutions decide which head is the best.
            let solutions = prepared.solutions(request)?;
            let both = format!("{}\n{}", solutions.train.hash(), solutions.valid.hash());
            data("data.labelled", "labelled", &hex::encode(Sha256::digest(both)));
        }
        Ok(inputs)
    }

    /// Whether a resumed run reads labelled solutions: its value stage has not ended, or the head learns along.
    pub fn labelled_of(request: &Request, run: &Path) -> Labelled {
        let learned = run.join(file::VALUE_STAGE_REPORT).is_file();
        match is_joint(request) || !learned {
            true => Labelled::Read,
            false => Labelled::Unread,
        }
    }

    fn add(&mut self, key: impl Into<String>, setting: &'static str, what: String, sha256: String) {
        self.0.push(Input {
            key: key.into(),
            setting,
            what,
            sha256,
        });
    }

    fn weights(&mut self, setting: &'static str, model: &ModelDir, hash: String) {
        let what = format!("the model in `{}`", model.dir.display());
        self.add(setting, setting, what, hash);
    }

    /// A file of a model that the hash of its weights does not cover.
    fn file(&mut self, setting: &'static str, dir: &Path, name: &str) -> Result<(), PipelineError> {
        let path = dir.join(name);
        let hash = hash_or_absent(&path)?;
        self.add(format!("{setting}/{name}"), setting, shown(&path), hash);
        Ok(())
    }

    /// For `run.json`: all but those that have a field of their own.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let others = self.0.iter().filter(|input| own_field(&input.key).is_none());
        others.map(|input| (input.key.clone(), input.sha256.clone())).collect()
    }

    /// The same of those that have a field of their own, by the field.
    pub fn own_fields(&self) -> BTreeMap<String, String> {
        let own = self.0.iter().filter_map(|input| Some((own_field(&input.key)?, input)));
        own.map(|(field, input)| (field.to_owned(), input.sha256.clone()))
            .collect()
    }

    /// Compares them with what the record of `run` has. Returns the keys of those that it has no hash of.
    ///
    /// # Errors
    /// The first that is another, with both hashes.
    pub fn check(&self, record: &RunRecord, run: &Path) -> Result<Vec<&str>, PipelineError> {
        let mut unknown = Vec::new();
        for input in &self.0 {
            match recorded(record, &input.key) {
                None => unknown.push(input.key.as_str()),
                Some(then) if *then == input.sha256 => {}
                Some(then) => {
                    return Err(PipelineError::Setting(format!(
                        "{} is not what `{}` was started with: its SHA-256 is {}, and `{}` says {then}; put it back, or \
                         say where it is with --set {}=…",
                        input.what,
                        run.display(),
                        input.sha256,
                        file::RECORD,
                        input.setting
                    )));
                }
            }
        }
        Ok(unknown)
    }
}

/// Whether the record knows the content of what the setting `key` names.
pub(super) fn is_recorded(record: &RunRecord, key: &str) -> bool {
    let content = match key {
        // The training data have been in the record from the beginning; the held-out ones count as well.
        "data.source" | "data.text" => "data.valid",
        other => other,
    };
    recorded(record, content).is_some()
}

fn recorded<'a>(record: &'a RunRecord, key: &str) -> Option<&'a String> {
    match own_field(key) {
        Some("model_sha256") => record.model_sha256.as_ref(),
        Some(_) => record.data_sha256.as_ref(),
        None => record.inputs_sha256.as_ref()?.get(key),
    }
}

/// The field of `run.json` that holds a hash alone.
fn own_field(key: &str) -> Option<&'static str> {
    match key {
        BASE => Some("model_sha256"),
        "data.train" => Some("data_sha256"),
        _ => None,
    }
}

fn is_joint(request: &Request) -> bool {
    let value = request.recipe.scorer.models_needed().value;
    value.is_some_and(|critic| critic.value == crate::scorer::ValueUse::Joint)
}

/// The file of a value head that a recipe names by itself or by its directory.
fn value_head_file(named: &str) -> PathBuf {
    let path = PathBuf::from(named);
    match path.is_dir() {
        true => path.join(file::VALUE_HEAD),
        false => path,
    }
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

fn hash_or_absent(path: &Path) -> Result<String, PipelineError> {
    match FileHash::of(path) {
        Ok(hash) => Ok(hash.sha256),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RunRecord::ABSENT.to_owned()),
        Err(error) => Err(PipelineError::io("reading", path)(error)),
    }
}
