//! One pass over a data set, in optimizer steps and micro-batches.

use super::{Batch, DataError, Dataset, pack::Rows};

/// One pass over a data set, cut into optimizer steps. Holds numbers of documents only; a step's documents are
/// read when it is asked for.
#[derive(Clone, Debug)]
pub struct Epoch {
    dataset: Dataset,
    rows: Rows,
    /// Where each step's rows end.
    ends: Vec<u32>,
    micro_batch: usize,
}

impl Epoch {
    /// Steps of `rows_per_step` rows; the last one may have fewer.
    pub(super) fn even(dataset: &Dataset, rows: Rows, rows_per_step: usize, micro_batch: usize) -> Self {
        let (len, step) = (rows.len(), rows_per_step.max(1));
        let ends = (0..len.div_ceil(step)).map(|number| (number * step).saturating_add(step).min(len) as u32);
        let ends = ends.collect();
        Self::new(dataset, rows, ends, micro_batch)
    }

    /// Steps that end at these rows.
    pub(super) fn new(dataset: &Dataset, rows: Rows, ends: Vec<u32>, micro_batch: usize) -> Self {
        Self {
            dataset: dataset.clone(),
            rows,
            ends,
            micro_batch: micro_batch.max(1),
        }
    }

    /// Optimizer steps.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without any step; a data set is never empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The micro-batches of a step, counted from 0; empty past the end.
    ///
    /// # Errors
    /// Documents on disk that can't be read, or are damaged.
    pub fn step(&self, step: usize) -> Result<Vec<Batch>, DataError> {
        self.step_in(step, self.micro_batch)
    }

    /// The same step in micro-batches of another size: the same documents in the same rows, for
    /// when memory is short.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_in(&self, step: usize, micro_batch: usize) -> Result<Vec<Batch>, DataError> {
        let Some(&end) = self.ends.get(step) else {
            return Ok(Vec::new());
        };
        let start = step.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let rows: Vec<&[u32]> = (start.unwrap_or_default()..end)
            .map(|row| self.rows.row(row as usize))
            .collect();
        rows.chunks(micro_batch.max(1))
            .map(|rows| self.dataset.batch(rows))
            .collect()
    }

    /// All micro-batches, step by step.
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch, DataError>> + '_ {
        (0..self.len()).flat_map(|step| match self.step(step) {
            Ok(batches) => batches.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }
}
