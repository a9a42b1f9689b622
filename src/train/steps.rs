//! What `steps.jsonl` says of data sets and micro-batches.

use crate::{
    data::{Batch, Dataset},
    run::StepNames,
};

/// The document names of a training set and, where a value head is trained along, of its labelled solutions.
pub fn step_names(train: &Dataset, labelled: Option<&Dataset>) -> StepNames {
    let names = |data: &Dataset| {
        let documents = data.documents().iter();
        documents.map(|d| (d.sample, d.name.clone())).collect()
    };
    StepNames {
        documents: names(train),
        labelled: labelled.map(names).unwrap_or_default(),
    }
}

/// The sample numbers of each micro-batch.
pub(super) fn sample_numbers(micro: &[Batch]) -> Vec<Vec<usize>> {
    let of = |batch: &Batch| batch.documents.iter().map(|d| d.sample).collect();
    micro.iter().map(of).collect()
}
