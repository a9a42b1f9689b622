//! What each step was trained on: `steps.jsonl`.
//!
//! The first line names the documents by their sample numbers, [`StepNames`]; a line a step follows,
//! [`StepDocuments`], with numbers only. Of data on disk, the lines of the steps have the names. A run that is resumed cuts the file back to its checkpoint, so
//! that every step is in it once.

use super::{RunError, file};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// The names of documents by sample number: the first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepNames {
    /// Documents of the token loss.
    pub documents: BTreeMap<usize, String>,
    /// Labelled solutions of the value loss (`scorer.value: joint`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labelled: BTreeMap<usize, String>,
}

/// The documents of one optimizer step, a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDocuments {
    /// Optimizer step, from 1, as in `metrics.jsonl`.
    pub step: usize,
    /// Epoch, from 1.
    pub epoch: usize,
    /// Sample numbers of each micro-batch, in its order.
    pub documents: Vec<Vec<usize>>,
    /// The same of the labelled solutions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labelled: Vec<Vec<usize>>,
    /// Names that the first line does not have. [`read_steps`] puts them to those.
    #[serde(default, skip_serializing_if = "StepNames::is_empty")]
    pub names: StepNames,
}

impl StepNames {
    /// True without any name.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.labelled.is_empty()
    }
}

/// The lines of a run's `steps.jsonl`: the names, then all steps in order. A last line that was not
/// written to its end is left out.
///
/// # Errors
/// The file can't be read, or holds something else.
pub fn read_steps(run: &Path) -> Result<(StepNames, Vec<StepDocuments>), RunError> {
    let path = run.join(file::STEPS);
    let text = fs::read_to_string(&path).map_err(RunError::io("reading", &path))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    let bad = |e: serde_json::Error| RunError::io("reading", &path)(std::io::Error::other(e));
    let first: Option<StepNames> = lines.next().map(serde_json::from_str).transpose().map_err(bad)?;
    let mut steps: Vec<StepDocuments> = lines
        .map(|line| serde_json::from_str(line).map_err(bad))
        .collect::<Result<_, _>>()?;
    let mut names = first.unwrap_or_default();
    for step in &mut steps {
        let own = std::mem::take(&mut step.names);
        names.documents.extend(own.documents);
        names.labelled.extend(own.labelled);
    }
    Ok((names, steps))
}
