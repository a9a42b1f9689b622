//! Documents one after another into one side of a split: what fits into a row is kept, in memory or on disk.

use super::{
    DataError, DatasetReport, Tokenized, TooLong,
    dataset::{Content, Documents, Entry, Mix},
    token_cache::{SideMeta, Writer},
};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Bytes that a document in memory takes in addition to its tokens and its name.
const OVERHEAD: usize = size_of::<Tokenized>() + 32;

/// Takes documents in order.
pub(super) struct Collector {
    seq_len: usize,
    too_long: TooLong,
    kept: Kept,
    index: Vec<Entry>,
    mix: Mix,
    hasher: Sha256,
    report: DatasetReport,
    /// Documents given, those that are too long included.
    pushed: usize,
    /// Tokens of the shortest document that is too long.
    shortest: Option<usize>,
    /// Bytes of memory that the documents take.
    bytes: usize,
    /// What of a document is hashed.
    scratch: Vec<u8>,
}

enum Kept {
    Memory(Vec<Tokenized>),
    Disk(Writer),
}

impl Collector {
    /// For rows of `seq_len` tokens.
    ///
    /// # Errors
    /// A `seq_len` below 2.
    pub fn new(seq_len: usize, too_long: TooLong) -> Result<Self, DataError> {
        if seq_len < 2 {
            return Err(DataError::Setting {
                key: "data.seq_len",
                problem: format!("is {seq_len}; a prompt and a response need at least 2 tokens"),
            });
        }
        Ok(Self {
            seq_len,
            too_long,
            kept: Kept::Memory(Vec::new()),
            index: Vec::new(),
            mix: Vec::new(),
            hasher: Sha256::new_with_prefix(b"wmtp documents 1\n"),
            report: DatasetReport::default(),
            pushed: 0,
            shortest: None,
            bytes: 0,
            scratch: Vec::new(),
        })
    }

    /// Documents given so far.
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// Bytes of memory that the documents take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next document.
    ///
    /// # Errors
    /// One without a prompt or a response, one that is too long where that is refused, a disk that can't be
    /// written.
    pub fn push(&mut self, mut document: Tokenized) -> Result<(), DataError> {
        if document.prompt_len == 0 || document.prompt_len >= document.tokens.len() {
            return Err(DataError::Empty {
                what: format!("prompt or no response in {}", document.name),
                why: "a document needs at least one token of each".into(),
            });
        }
        self.pushed += 1;
        if document.tokens.len() > self.seq_len && !self.fitted(&mut document)? {
            let len = document.tokens.len();
            self.shortest = Some(self.shortest.map_or(len, |shortest| shortest.min(len)));
            self.report.too_long += 1;
            if self.report.dropped.len() < DatasetReport::NAMED {
                self.report.dropped.push((document.name, len));
            }
            return Ok(());
        }
        if self.index.len() >= u32::MAX as usize {
            return Err(DataError::Setting {
                key: "data.max_rows",
                problem: format!("must be set: the data have more than {} documents", u32::MAX),
            });
        }
        let untrained: usize = document.untrained.iter().map(Range::len).sum();
        self.report.documents += 1;
        self.report.prompt_tokens += document.prompt_len;
        self.report.response_tokens += document.tokens.len() - document.prompt_len - untrained;
        self.index.push(Entry {
            len: document.tokens.len() as u32,
            problem: document.problem,
        });
        hashed(&document, &mut self.scratch);
        self.hasher.update(&self.scratch);
        match &mut self.kept {
            Kept::Memory(documents) => {
                self.bytes += 4 * document.tokens.len() + document.name.len() + OVERHEAD;
                documents.push(document);
                Ok(())
            }
            Kept::Disk(writer) => writer.push(&document),
        }
    }

    /// Makes a document fit as `data.too_long` says; false if it is left out.
    fn fitted(&self, document: &mut Tokenized) -> Result<bool, DataError> {
        match self.too_long {
            TooLong::Drop => Ok(false),
            TooLong::Refuse => Err(DataError::Setting {
                key: "data.seq_len",
                problem: format!(
                    "is {}, and `{}` has {} tokens; raise it, or set data.too_long to `cut` or `drop`",
                    self.seq_len,
                    document.name,
                    document.tokens.len()
                ),
            }),
            TooLong::Cut => {
                // One whose prompt fills the row stays too long, so that it is dropped and named.
                let mut cut = document.clone();
                cut.cut(self.seq_len);
                let fits = cut.trained_tokens() > 0;
                if fits {
                    *document = cut;
                }
                Ok(fits)
            }
        }
    }

    /// A source ends here, of which an epoch holds the share `weight`.
    pub fn end_part(&mut self, weight: f64) {
        let first = self.mix.last().map_or(0, |(range, _)| range.end);
        self.mix.push((first..self.index.len(), weight));
    }

    /// Moves the documents to a disk; further ones follow them there.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn move_to(&mut self, mut writer: Writer) -> Result<(), DataError> {
        if let Kept::Memory(documents) = &mut self.kept {
            for document in documents.drain(..) {
                writer.push(&document)?;
            }
            self.bytes = 0;
            self.kept = Kept::Disk(writer);
        }
        Ok(())
    }

    /// The documents in memory, with their hash.
    ///
    /// # Errors
    /// None was kept.
    pub fn finish(mut self) -> Result<Content, DataError> {
        let hash = self.close()?;
        let documents = match self.kept {
            Kept::Memory(documents) => documents,
            Kept::Disk(_) => Vec::new(),
        };
        Ok(Content {
            documents: Documents::Memory(documents),
            index: self.index,
            mix: self.mix,
            hash,
            report: self.report,
        })
    }

    /// What the cache records of the documents on disk. None if they are in memory.
    ///
    /// # Errors
    /// None was kept, or a disk that can't be written.
    pub fn finish_on_disk(mut self) -> Result<Option<SideMeta>, DataError> {
        let hash = self.close()?;
        match self.kept {
            Kept::Memory(_) => Ok(None),
            Kept::Disk(writer) => writer.finish(self.mix, hash, self.report).map(Some),
        }
    }

    /// Checks that there is a document, and gives the hash of all.
    fn close(&mut self) -> Result<String, DataError> {
        if self.index.is_empty() {
            let why = match self.shortest {
                Some(shortest) => format!(
                    "all {} documents are longer than data.seq_len = {} (the shortest has {shortest} tokens); raise it",
                    self.report.too_long, self.seq_len
                ),
                None => "no example was given; check `data.source` and the task ranges".into(),
            };
            return Err(DataError::Empty {
                what: "data".into(),
                why,
            });
        }
        if self.mix.iter().all(|(_, weight)| *weight == 1.0) {
            self.mix.clear();
        }
        for (range, weight) in &self.mix {
            self.hasher.update(b"part");
            self.hasher.update((range.end as u64).to_le_bytes());
            self.hasher.update(weight.to_le_bytes());
        }
        Ok(hex::encode(std::mem::take(&mut self.hasher).finalize()))
    }
}

/// What the hash covers of a document.
fn hashed(d: &Tokenized, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend((d.sample as u64).to_le_bytes());
    bytes.extend(d.problem.to_le_bytes());
    bytes.push(u8::from(d.reward.is_some()));
    bytes.extend(d.reward.unwrap_or(0.0).to_le_bytes());
    bytes.extend((d.prompt_len as u64).to_le_bytes());
    bytes.extend((d.tokens.len() as u64).to_le_bytes());
    for token in &d.tokens {
        bytes.extend(token.to_le_bytes());
    }
    // Documents without either hash as they did before there were any.
    for range in &d.untrained {
        bytes.extend(b"untrained");
        bytes.extend((range.start as u64).to_le_bytes());
        bytes.extend((range.end as u64).to_le_bytes());
    }
    for (range, weight) in &d.given {
        bytes.extend(b"weight");
        bytes.extend((range.start as u64).to_le_bytes());
        bytes.extend((range.end as u64).to_le_bytes());
        bytes.extend(weight.to_le_bytes());
    }
}
