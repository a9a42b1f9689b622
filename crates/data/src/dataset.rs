//! Tokenised documents, their epochs, optimizer steps and micro-batches.
//!
//! An epoch is a pure function of the data, the seed and its number, and a step one of the epoch
//! and its number: resuming needs (epoch, step) and nothing else. The documents are in memory or on disk
//! ([`super::TokenCache`]); what is always in memory are 8 bytes for each.

use super::{
    Batch, DataError, Document, Epoch, Example, StepShape, Tokenized, Tokenizer, TooLong,
    collect::Collector,
    pack::{Rows, first_fit, order},
    token_cache::Stored,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::HashMap, ops::Range, sync::Arc};

/// What became of the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// Documents kept.
    pub documents: usize,
    /// Documents longer than a row, left out.
    pub too_long: usize,
    /// The first of those, at most [`Self::NAMED`], as (name, tokens).
    pub dropped: Vec<(String, usize)>,
    /// Prompt tokens of those kept: all before the first that is trained.
    pub prompt_tokens: usize,
    /// Response tokens of those kept: what is trained.
    pub response_tokens: usize,
}

impl DatasetReport {
    /// Most documents that are named as too long.
    pub const NAMED: usize = 1000;
}

/// Length and problem of a document: what epochs are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub len: u32,
    pub problem: u32,
}

/// Where the documents are.
#[derive(Debug)]
pub(super) enum Documents {
    Memory(Vec<Tokenized>),
    Disk(Stored),
}

/// Sources of a mix: their documents, and how much of them an epoch holds. Empty: each document once.
pub(super) type Mix = Vec<(Range<usize>, f64)>;

/// Tokenised documents that fit into rows of `seq_len` tokens. Clones share them.
#[derive(Clone, Debug)]
pub struct Dataset {
    content: Arc<Content>,
    seq_len: usize,
    pack: bool,
}

/// The documents and what is known of all.
#[derive(Debug)]
pub(super) struct Content {
    pub documents: Documents,
    pub index: Vec<Entry>,
    pub mix: Mix,
    pub hash: String,
    pub report: DatasetReport,
}

impl Dataset {
    /// Tokenises examples. Those longer than `seq_len` are left out and named in
    /// [`Dataset::report`].
    ///
    /// # Errors
    /// No example, none that fits, an example without a prompt, or a `seq_len` below 2.
    pub fn new(examples: &[Example], tokenizer: &Tokenizer, seq_len: usize, pack: bool) -> Result<Self, DataError> {
        Self::from_tokenized(Tokenized::all(examples, tokenizer)?, seq_len, pack)
    }

    /// The same from documents already tokenised.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn from_tokenized(documents: Vec<Tokenized>, seq_len: usize, pack: bool) -> Result<Self, DataError> {
        Self::mixed(vec![(1.0, documents)], seq_len, pack)
    }

    /// Several sources, of each of which an epoch holds the given share: 0.5 a half, drawn anew for each epoch; 2
    /// everything twice.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn mixed(parts: Vec<(f64, Vec<Tokenized>)>, seq_len: usize, pack: bool) -> Result<Self, DataError> {
        let mut collector = Collector::new(seq_len, TooLong::Drop)?;
        for (weight, documents) in parts {
            for document in documents {
                collector.push(document)?;
            }
            collector.end_part(weight);
        }
        Ok(Self::of(collector.finish()?, seq_len, pack))
    }

    pub(super) fn of(content: Content, seq_len: usize, pack: bool) -> Self {
        Self {
            content: Arc::new(content),
            seq_len,
            pack,
        }
    }

    /// Documents kept.
    pub fn len(&self) -> usize {
        self.content.index.len()
    }

    /// Never: a data set has at least one document.
    pub fn is_empty(&self) -> bool {
        self.content.index.is_empty()
    }

    /// Tokens of each document kept, in the order given.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + Clone + '_ {
        self.content.index.iter().map(|entry| entry.len as usize)
    }

    /// A document by its index among those kept; None past the end.
    ///
    /// # Errors
    /// A document on disk that can't be read, or is damaged.
    pub fn document(&self, index: usize) -> Result<Option<Cow<'_, Tokenized>>, DataError> {
        match &self.content.documents {
            Documents::Memory(documents) => Ok(documents.get(index).map(Cow::Borrowed)),
            Documents::Disk(stored) => Ok(stored.get(index)?.map(Cow::Owned)),
        }
    }

    /// The documents kept, in the order given.
    pub fn documents(&self) -> impl Iterator<Item = Result<Cow<'_, Tokenized>, DataError>> + '_ {
        (0..self.len()).filter_map(|index| self.document(index).transpose())
    }

    /// Whether the documents are on disk ([`super::TokenCache`]).
    pub fn on_disk(&self) -> bool {
        matches!(self.content.documents, Documents::Disk(_))
    }

    /// Tokens in a row, S.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// What was kept and what was left out.
    pub fn report(&self) -> &DatasetReport {
        &self.content.report
    }

    /// SHA-256 (hex) over the tokenised documents kept: sample numbers, ids, prompt lengths,
    /// problems and rewards, in order.
    pub fn hash(&self) -> &str {
        &self.content.hash
    }

    /// An epoch for training: documents in an order drawn from (seed, epoch), packed, then
    /// `shape.rows()` rows a step. The last step may have fewer rows.
    pub fn epoch(&self, seed: u64, epoch: usize, shape: StepShape) -> Epoch {
        let rows = self.rows(self.order(seed, epoch));
        Epoch::even(self, rows, shape.rows(), shape.micro_batch)
    }

    /// An epoch whose steps hold whole problems, for losses that compare solutions of one problem:
    /// problems in an order drawn from (seed, epoch), as many a step as give at least
    /// `documents_per_step` documents, packed within the step. With `most` above 0 every epoch has the same
    /// problems, drawn from the seed: as many as give at least `most` documents.
    pub fn epoch_by_problem(
        &self,
        seed: u64,
        epoch: usize,
        documents_per_step: usize,
        micro_batch: usize,
        most: usize,
    ) -> Epoch {
        let problem = |index: &u32| self.content.index.get(*index as usize).map(|entry| entry.problem);
        let mut documents: Vec<u32> = (0..self.len() as u32).collect();
        documents.sort_by_key(problem);
        let mut problems: Vec<&[u32]> = documents.chunk_by(|a, b| problem(a) == problem(b)).collect();
        if most > 0 {
            let mut drawn = Vec::new();
            let mut count = 0;
            for number in order(problems.len(), seed, usize::MAX) {
                if count >= most {
                    break;
                }
                let own = problems.get(number as usize).copied().unwrap_or_default();
                count += own.len();
                drawn.push(own);
            }
            problems = drawn;
        }
        let (mut rows, mut ends) = (Rows::default(), Vec::new());
        let mut step = |waiting: &mut Vec<u32>| {
            rows.append(&self.rows(std::mem::take(waiting)));
            ends.push(rows.len() as u32);
        };
        let mut waiting: Vec<u32> = Vec::new();
        for number in order(problems.len(), seed, epoch) {
            waiting.extend(problems.get(number as usize).copied().unwrap_or_default());
            if waiting.len() >= documents_per_step.max(1) {
                step(&mut waiting);
            }
        }
        if !waiting.is_empty() {
            step(&mut waiting);
        }
        Epoch::new(self, rows, ends, micro_batch)
    }

    /// All documents once, in the order given, for offline scores: steps of one micro-batch of at most
    /// `micro_batch` rows.
    pub fn in_order(&self, micro_batch: usize) -> Epoch {
        let rows = self.rows(0..self.len() as u32);
        Epoch::even(self, rows, micro_batch, micro_batch)
    }

    /// As [`Self::in_order`], for validation: about `most` documents where there are more and `most` is above 0.
    /// They are whole problems, spread evenly over all in the order in which they occur.
    pub fn for_validation(&self, micro_batch: usize, most: usize) -> Epoch {
        if most == 0 || self.len() <= most {
            return self.in_order(micro_batch);
        }
        let rows = self.rows(self.spread(most));
        Epoch::even(self, rows, micro_batch, micro_batch)
    }

    /// Indices of the documents of every n-th problem, so that they are about `most`.
    fn spread(&self, most: usize) -> Vec<u32> {
        let mut numbers: HashMap<u32, u64> = HashMap::new();
        let (most, all) = (most as u64, self.len() as u64);
        let of_entry = |(index, entry): (u32, &Entry)| {
            let next = numbers.len() as u64;
            let number = *numbers.entry(entry.problem).or_insert(next);
            // The share most / all of any run of numbers, the first included.
            (number * most % all < most).then_some(index)
        };
        (0..).zip(&self.content.index).filter_map(of_entry).collect()
    }

    /// Optimizer steps of the epochs `0..epochs`. Each is counted: packing may need a row more in
    /// one order than in another.
    pub fn num_steps(&self, seed: u64, epochs: usize, shape: StepShape) -> usize {
        (0..epochs).map(|e| self.epoch(seed, e, shape).len()).sum()
    }

    /// The documents of an epoch in their order, a function of seed and epoch.
    fn order(&self, seed: u64, epoch: usize) -> Vec<u32> {
        let mix = &self.content.mix;
        if mix.is_empty() {
            return order(self.len(), seed, epoch);
        }
        let mut drawn: Vec<u32> = Vec::new();
        for (number, (range, weight)) in (1..).zip(mix) {
            let whole = weight.floor();
            for _ in 0..whole as usize {
                drawn.extend(range.start as u32..range.end as u32);
            }
            // Parts are drawn with seeds of their own, so that one does not depend on the size of another.
            let some = ((weight - whole) * range.len() as f64).round() as usize;
            let of_part = order(range.len(), seed.wrapping_add(number), epoch);
            drawn.extend(of_part.into_iter().take(some).map(|index| range.start as u32 + index));
        }
        let shuffled = order(drawn.len(), seed, epoch);
        shuffled
            .into_iter()
            .filter_map(|index| drawn.get(index as usize).copied())
            .collect()
    }

    fn rows(&self, order: impl IntoIterator<Item = u32>) -> Rows {
        let length = |index: u32| self.content.index.get(index as usize).map_or(0, |entry| entry.len);
        let lengths = order.into_iter().map(|index| (index, length(index)));
        first_fit(lengths, self.seq_len, self.pack)
    }

    pub(super) fn batch(&self, rows: &[&[u32]]) -> Result<Batch, DataError> {
        let size = rows.len() * self.seq_len;
        let mut batch = Batch {
            rows: rows.len(),
            seq_len: self.seq_len,
            tokens: Vec::with_capacity(size),
            positions: Vec::with_capacity(size),
            docs: Vec::with_capacity(size),
            response: Vec::with_capacity(size),
            given: Vec::with_capacity(size),
            documents: Vec::new(),
        };
        for (row, indices) in rows.iter().enumerate() {
            let first = row * self.seq_len;
            for (&index, number) in indices.iter().zip(0..) {
                let Some(document) = self.document(index as usize)? else {
                    continue;
                };
                let len = document.tokens.len();
                batch.documents.push(Document {
                    sample: document.sample,
                    name: document.name.clone(),
                    problem: document.problem,
                    row,
                    start: batch.tokens.len() - first,
                    len,
                    prompt_len: document.prompt_len,
                    reward: document.reward,
                });
                batch.tokens.extend(&document.tokens);
                batch.positions.extend((0..).take(len));
                batch.docs.extend(std::iter::repeat_n(number, len));
                let first = batch.response.len();
                batch.response.extend((0..len).map(|t| t >= document.prompt_len));
                batch.given.resize(first + len, 1.0);
                let part = |range: &Range<usize>| first + range.start.min(len)..first + range.end.min(len);
                for range in &document.untrained {
                    batch.response.get_mut(part(range)).unwrap_or_default().fill(false);
                }
                for (range, weight) in &document.given {
                    batch.given.get_mut(part(range)).unwrap_or_default().fill(*weight);
                }
            }
            let end = first + self.seq_len;
            batch.tokens.resize(end, 0);
            batch.positions.resize(end, 0);
            batch.docs.resize(end, Batch::PADDING);
            batch.response.resize(end, false);
            batch.given.resize(end, 1.0);
        }
        Ok(batch)
    }
}
