//! Tokenised documents, their epochs, optimizer steps and micro-batches.
//!
//! An epoch is a pure function of the data, the seed and its number, and a step one of the epoch
//! and its number: resuming needs (epoch, step) and nothing else. Holds all tokens in memory; data
//! sets beyond that are not what this is for.

use super::{
    Batch, DataError, Document, Example, StepShape, Tokenized, Tokenizer,
    pack::{first_fit, order},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ops::Range};

/// What became of the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetReport {
    /// Documents kept.
    pub documents: usize,
    /// Documents longer than a row, left out, as (name, tokens).
    pub dropped: Vec<(String, usize)>,
    /// Prompt tokens of those kept: all before the first that is trained.
    pub prompt_tokens: usize,
    /// Response tokens of those kept: what is trained.
    pub response_tokens: usize,
}

/// Tokenised documents that fit into rows of `seq_len` tokens.
#[derive(Clone, Debug)]
pub struct Dataset {
    documents: Vec<Tokenized>,
    seq_len: usize,
    pack: bool,
    /// Sources of a mix: their documents, and how much of them an epoch holds. Empty: each document once.
    mix: Vec<(Range<usize>, f64)>,
    hash: String,
    report: DatasetReport,
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
        let mut mix = Vec::with_capacity(parts.len());
        let mut documents = Vec::new();
        for (weight, mut part) in parts {
            let fit = part.iter().filter(|document| document.tokens.len() <= seq_len).count();
            let first = mix.last().map_or(0, |(range, _): &(Range<usize>, f64)| range.end);
            mix.push((first..first + fit, weight));
            documents.append(&mut part);
        }
        if mix.iter().all(|(_, weight)| *weight == 1.0) {
            mix.clear();
        }
        if seq_len < 2 {
            return Err(DataError::Setting {
                key: "data.seq_len",
                problem: format!("is {seq_len}; a prompt and a response need at least 2 tokens"),
            });
        }
        if let Some(bad) = documents
            .iter()
            .find(|d| d.prompt_len == 0 || d.prompt_len >= d.tokens.len())
        {
            return Err(DataError::Empty {
                what: format!("prompt or no response in {}", bad.name),
                why: "a document needs at least one token of each".into(),
            });
        }
        let (kept, long): (Vec<_>, Vec<_>) = documents.into_iter().partition(|d| d.tokens.len() <= seq_len);
        let dropped: Vec<_> = long.into_iter().map(|d| (d.name, d.tokens.len())).collect();
        if kept.is_empty() {
            let why = match dropped.iter().map(|(_, len)| len).min() {
                Some(shortest) => format!(
                    "all {} documents are longer than data.seq_len = {seq_len} (the shortest has {shortest} tokens); raise it",
                    dropped.len()
                ),
                None => "no example was given; check `data.source` and the task ranges".into(),
            };
            return Err(DataError::Empty {
                what: "data".into(),
                why,
            });
        }
        let prompt_tokens: usize = kept.iter().map(|d| d.prompt_len).sum();
        let tokens: usize = kept.iter().map(|d| d.tokens.len()).sum();
        let untrained: usize = kept.iter().flat_map(|d| &d.untrained).map(Range::len).sum();
        let report = DatasetReport {
            documents: kept.len(),
            dropped,
            prompt_tokens,
            response_tokens: tokens - prompt_tokens - untrained,
        };
        let hash = content_hash(&kept, &mix);
        Ok(Self {
            documents: kept,
            seq_len,
            pack,
            mix,
            hash,
            report,
        })
    }

    /// The documents kept, in the order given.
    pub fn documents(&self) -> &[Tokenized] {
        &self.documents
    }

    /// Tokens in a row, S.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// What was kept and what was left out.
    pub fn report(&self) -> &DatasetReport {
        &self.report
    }

    /// SHA-256 (hex) over the tokenised documents kept: sample numbers, ids, prompt lengths,
    /// problems and rewards, in order.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// An epoch for training: documents in an order drawn from (seed, epoch), packed, then
    /// `shape.rows()` rows a step. The last step may have fewer rows.
    pub fn epoch(&self, seed: u64, epoch: usize, shape: StepShape) -> Epoch<'_> {
        let rows = self.rows(self.order(seed, epoch));
        let steps = rows.chunks(shape.rows().max(1)).map(<[_]>::to_vec).collect();
        Epoch {
            dataset: self,
            steps,
            micro_batch: shape.micro_batch.max(1),
        }
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
    ) -> Epoch<'_> {
        let mut problems: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, document) in self.documents.iter().enumerate() {
            problems.entry(document.problem).or_default().push(index);
        }
        let mut problems: Vec<Vec<usize>> = problems.into_values().collect();
        if most > 0 {
            let mut drawn = Vec::new();
            let mut documents = 0;
            for p in order(problems.len(), seed, usize::MAX) {
                if documents >= most {
                    break;
                }
                documents += problems.get(p).map_or(0, Vec::len);
                drawn.extend(problems.get_mut(p).map(std::mem::take));
            }
            problems = drawn;
        }
        let mut steps = Vec::new();
        let mut waiting: Vec<usize> = Vec::new();
        for p in order(problems.len(), seed, epoch) {
            waiting.extend(problems.get(p).into_iter().flatten());
            if waiting.len() >= documents_per_step.max(1) {
                steps.push(self.rows(std::mem::take(&mut waiting)));
            }
        }
        if !waiting.is_empty() {
            steps.push(self.rows(waiting));
        }
        Epoch {
            dataset: self,
            steps,
            micro_batch: micro_batch.max(1),
        }
    }

    /// All documents once, in the order given, for validation and offline scores: micro-batches of
    /// at most `micro_batch` rows.
    pub fn in_order(&self, micro_batch: usize) -> Vec<Batch> {
        let rows = self.rows(0..self.documents.len());
        rows.chunks(micro_batch.max(1)).map(|rows| self.batch(rows)).collect()
    }

    /// Optimizer steps of the epochs `0..epochs`. Each is counted: packing may need a row more in
    /// one order than in another.
    pub fn num_steps(&self, seed: u64, epochs: usize, shape: StepShape) -> usize {
        (0..epochs).map(|e| self.epoch(seed, e, shape).len()).sum()
    }

    /// The documents of an epoch in their order, a function of seed and epoch.
    fn order(&self, seed: u64, epoch: usize) -> Vec<usize> {
        if self.mix.is_empty() {
            return order(self.documents.len(), seed, epoch);
        }
        let mut drawn = Vec::new();
        for (number, (range, weight)) in (1..).zip(&self.mix) {
            let whole = weight.floor();
            for _ in 0..whole as usize {
                drawn.extend(range.clone());
            }
            // Parts are drawn with seeds of their own, so that one does not depend on the size of another.
            let some = ((weight - whole) * range.len() as f64).round() as usize;
            let of_part = order(range.len(), seed.wrapping_add(number), epoch);
            drawn.extend(of_part.into_iter().take(some).map(|index| range.start + index));
        }
        let shuffled = order(drawn.len(), seed, epoch);
        shuffled
            .into_iter()
            .filter_map(|index| drawn.get(index).copied())
            .collect()
    }

    fn rows(&self, order: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
        let lengths = order
            .into_iter()
            .filter_map(|i| self.documents.get(i).map(|document| (i, document.tokens.len())));
        first_fit(lengths, self.seq_len, self.pack)
    }

    fn batch(&self, rows: &[Vec<usize>]) -> Batch {
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
            let documents = indices.iter().filter_map(|&i| self.documents.get(i));
            for (document, number) in documents.zip(0..) {
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
        batch
    }
}

/// One pass over a data set, cut into optimizer steps.
#[derive(Clone, Debug)]
pub struct Epoch<'a> {
    dataset: &'a Dataset,
    steps: Vec<Vec<Vec<usize>>>,
    micro_batch: usize,
}

impl Epoch<'_> {
    /// Optimizer steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// True without any step; a data set is never empty.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The micro-batches of a step, counted from 0; empty past the end.
    pub fn step(&self, step: usize) -> Vec<Batch> {
        self.step_in(step, self.micro_batch)
    }

    /// The same step in micro-batches of another size: the same documents in the same rows, for
    /// when memory is short.
    pub fn step_in(&self, step: usize, micro_batch: usize) -> Vec<Batch> {
        let rows = self.steps.get(step).map(Vec::as_slice).unwrap_or_default();
        rows.chunks(micro_batch.max(1))
            .map(|rows| self.dataset.batch(rows))
            .collect()
    }
}

fn content_hash(documents: &[Tokenized], mix: &[(Range<usize>, f64)]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"wmtp documents 1\n");
    for d in documents {
        hasher.update((d.sample as u64).to_le_bytes());
        hasher.update(d.problem.to_le_bytes());
        hasher.update([u8::from(d.reward.is_some())]);
        hasher.update(d.reward.unwrap_or(0.0).to_le_bytes());
        hasher.update((d.prompt_len as u64).to_le_bytes());
        hasher.update((d.tokens.len() as u64).to_le_bytes());
        for token in &d.tokens {
            hasher.update(token.to_le_bytes());
        }
        // Documents without either hash as they did before there were any.
        for range in &d.untrained {
            hasher.update(b"untrained");
            hasher.update((range.start as u64).to_le_bytes());
            hasher.update((range.end as u64).to_le_bytes());
        }
        for (range, weight) in &d.given {
            hasher.update(b"weight");
            hasher.update((range.start as u64).to_le_bytes());
            hasher.update((range.end as u64).to_le_bytes());
            hasher.update(weight.to_le_bytes());
        }
    }
    for (range, weight) in mix {
        hasher.update(b"part");
        hasher.update((range.end as u64).to_le_bytes());
        hasher.update(weight.to_le_bytes());
    }
    hex::encode(hasher.finalize())
}
