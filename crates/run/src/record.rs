//! `run.json`: what a run is. Training runs, evaluations and sweeps write it, each the fields that it has.

use super::{Machine, file};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// `run.json`. Absent fields are those that another kind of run, or another version, does not write.
/// Fields of type `Option<Option<_>>` are written as null where the inner value is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Layout of this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    /// `evaluation` or `sweep`; absent for a training run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Distinguishes the run from all others, wherever it is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Pipeline of a training run, `eval-BENCHMARK`, or `sweep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// When it was started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Version of the program that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wmtp: Option<String>,
    /// Commit of the program that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Option<String>>,
    /// Version of the program that started an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What an evaluation was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// Device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Machine>,
    /// Seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// URI of the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// SHA-256 of its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// Local directories of the models, by `model`, `reference` and `reward`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub places: Option<BTreeMap<String, Option<String>>>,
    /// URI of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// SHA-256 of the tokenised training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// The date that chat templates see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_date: Option<Option<String>>,
    /// SHA-256 of what else goes into the run, by setting and file: `model.base/config.json`, `model.reference`,
    /// `data.valid`; [`RunRecord::ABSENT`] for a file that was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs_sha256: Option<BTreeMap<String, String>>,
    /// SHA-256 of `config.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
    /// SHA-256 of `recipe.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe_sha256: Option<String>,
    /// The same of the file before the last change of settings, which a kill may have left in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe_sha256_before: Option<String>,
    /// What checkpoints name as their recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe_id: Option<String>,
    /// Training documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<usize>,
    /// How many documents were left out because they are longer than `data.seq_len`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents_too_long_count: Option<usize>,
    /// The first of those, at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents_too_long: Option<Vec<LongDocument>>,
    /// Samples left out because they copy an evaluation problem (`data.copies`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_left_out: Option<usize>,
    /// Copies of evaluation problems that were trained on, because the settings allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_trained: Option<usize>,
    /// Response tokens of the training documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_tokens: Option<usize>,
    /// Counts of special tokens and of text files, as the data loader reports them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Value>,
    /// Planned optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Whether the base model has random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_weights: Option<bool>,
    /// Each time that the run was resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Vec<Resumption>>,
}

/// A document that is longer than `data.seq_len`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongDocument {
    /// Its name.
    pub name: String,
    /// Its tokens.
    pub tokens: usize,
}

/// One time that a run was resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resumption {
    /// When, RFC 3339.
    pub time: String,
    /// At which optimizer step.
    pub step: usize,
    /// Version of the program.
    pub wmtp: String,
    /// Commit of the program.
    pub commit: Option<String>,
    /// Device.
    pub device: String,
    /// Settings that changed: key, value before, value from then on.
    pub changed: BTreeMap<String, [String; 2]>,
}

impl RunRecord {
    /// Value of `kind` of an evaluation.
    pub const EVALUATION: &str = "evaluation";
    /// Value of `kind` of a sweep.
    pub const SWEEP: &str = "sweep";
    /// Stands for the hash of a file that was not there when the run started.
    pub const ABSENT: &str = "absent";

    /// Reads the record of the run in `dir`; None if there is none that can be read.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(file::RECORD)).ok()?).ok()
    }

    /// Whether this is an evaluation's.
    pub fn is_evaluation(&self) -> bool {
        self.kind.as_deref() == Some(Self::EVALUATION)
    }

    /// Whether `algorithm` is this one.
    pub fn is_of(&self, algorithm: &str) -> bool {
        self.algorithm.as_deref() == Some(algorithm)
    }
}

/// What a training run has cost, over all processes that ended by themselves: `timing.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunTiming {
    /// Wall-clock seconds, loading and validation included.
    pub seconds: f64,
    /// How many processes.
    pub processes: usize,
    /// The largest resident size of any in bytes, where the system tells.
    pub peak_memory: Option<u64>,
}
