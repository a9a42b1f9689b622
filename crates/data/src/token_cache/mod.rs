//! Tokenised data on disk, for data larger than memory: made once, then read document by document.
//!
//! ```text
//! meta.json      what it was made from, reports, sizes and checksums (`meta`)
//! train.index    a record of 56 bytes for each document (`format`)
//! train.data     tokens, ranges and name of each document
//! valid.index, valid.data
//! ```
//!
//! A directory is written under another name and renamed when it is complete, so an interrupted process leaves
//! nothing that would be read. Its name is a hash of everything that decides its content (`key`). Size and
//! checksum of the index are checked when it is opened, the checksum of a document whenever it is read; a
//! damaged cache is made anew. Files are read by position; nothing is mapped into memory.

mod file_hashes;
mod format;
mod key;
mod meta;
mod stored;
mod writer;

pub use file_hashes::FileHashes;
pub(super) use key::key;
pub(super) use meta::{Meta, SideMeta};
pub(super) use stored::Stored;
pub(super) use writer::Writer;

use super::{DataConfig, DataError, Dataset, OverlapReport, Splits, TokenReport};
use format::{FORMAT, Width};
use std::{fs, io, path::Path, sync::Arc};
use wmtp_base::{
    fs::Lock,
    token_cache::{Label, META, TokenDir},
};

/// Names of the two sides' files.
const SIDES: [&str; 2] = ["train", "valid"];

/// What happens while data are tokenised, for who shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheEvent<'a> {
    /// Rows were tokenised. Comes often: after each chunk of a few megabytes.
    Tokenized {
        /// Rows of this source so far.
        rows: usize,
        /// Rows of this source, where that is known.
        of: Option<usize>,
        /// Tokens of all sources so far.
        tokens: u64,
    },
    /// The documents are too large for memory and go to this directory from now on.
    Begun(&'a Path),
    /// Another process tokenises the same data; this one waits for it.
    Waiting(&'a Path),
    /// A cache that is damaged is made anew.
    Damaged {
        /// Its directory.
        dir: &'a Path,
        /// What is wrong with it, as a part of a sentence.
        problem: &'a str,
    },
}

/// Where documents go that are too large for memory.
#[derive(Clone, Copy)]
pub struct TokenCache<'a> {
    cache: &'a Path,
    memory: usize,
    report: &'a dyn Fn(CacheEvent<'_>),
    stop: &'a dyn Fn() -> bool,
}

impl<'a> TokenCache<'a> {
    /// Documents of at most this many bytes stay in memory: 64 MiB, 16 million tokens less what names take.
    pub const MEMORY: usize = 64 << 20;

    /// Below the cache directory (`paths.cache`). What happens is reported to `report`.
    pub fn below(cache: &'a Path, report: &'a dyn Fn(CacheEvent<'_>)) -> Self {
        Self {
            cache,
            memory: Self::MEMORY,
            report,
            stop: &|| false,
        }
    }

    /// Tokenising ends with an error, and leaves nothing, as soon as `stop` gives true. It is called after each
    /// chunk.
    pub fn with_stop(mut self, stop: &'a dyn Fn() -> bool) -> Self {
        self.stop = stop;
        self
    }

    /// Another limit than [`Self::MEMORY`], in bytes. With 0, all documents are on disk.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn say(&self, event: CacheEvent<'_>) {
        (self.report)(event);
    }

    pub(super) fn is_stopped(&self) -> bool {
        (self.stop)()
    }

    /// Hashes of large files.
    pub(super) fn hashes(&self) -> FileHashes {
        FileHashes::new(self.dir().hashes())
    }

    fn dir(&self) -> TokenDir {
        TokenDir::below(self.cache)
    }

    /// What the cache of this key holds. None if there is none, or a damaged one.
    ///
    /// # Errors
    /// A lock that can't be taken.
    pub(super) fn open(&self, key: &str, config: &DataConfig) -> Result<Option<Splits>, DataError> {
        let dir = self.dir().complete(key);
        if !dir.is_dir() {
            return Ok(None);
        }
        let path = self.dir().lock(key);
        let lock = Lock::shared(&path).and_then(|lock| lock.touch().map(|()| lock));
        let lock = Arc::new(lock.map_err(|source| Writer::error(&path, source))?);
        let opened = Meta::read(&dir, key).and_then(|meta| {
            let Some(meta) = meta else { return Ok(None) };
            let side = |name: &str, side: &SideMeta| {
                let content = Stored::open(&dir, name, meta.width, side, lock.clone())?;
                Ok::<_, String>(Dataset::of(content, config.seq_len, config.pack))
            };
            Ok(Some(Splits {
                train: side(SIDES[0], &meta.train)?,
                valid: side(SIDES[1], &meta.valid)?,
                overlap: meta.overlap,
                tokens: meta.tokens,
            }))
        });
        opened.or_else(|problem| {
            let problem = problem.as_str();
            // Without it the directory counts as damaged for whoever sees it next, and is replaced.
            let _ = fs::remove_file(dir.join(META));
            self.say(CacheEvent::Damaged { dir: &dir, problem });
            Ok(None)
        })
    }

    /// The error of a cache that was made and can't be used.
    pub(super) fn unusable(&self, key: &str) -> DataError {
        DataError::File {
            path: self.dir().complete(key),
            problem: "can't be used right after it was written; check the disk, or set another `paths.cache`".into(),
        }
    }

    /// Begins the cache of a key. None if another process made it in the meantime.
    ///
    /// # Errors
    /// A disk that can't be written; a damaged cache that a process uses.
    pub(super) fn begin(&self, key: &str) -> Result<Option<Building>, DataError> {
        let dir = self.dir();
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| DataError::Write { path, source }
        };
        fs::create_dir_all(dir.path()).map_err(error(dir.path()))?;
        let (lock, complete) = (dir.lock(key), dir.complete(key));
        let alone = match Lock::try_exclusive(&lock).map_err(error(&lock))? {
            Some(alone) => alone,
            None if Meta::read(&complete, key).is_ok_and(|meta| meta.is_some()) => return Ok(None),
            None if complete.is_dir() => {
                return Err(DataError::File {
                    path: complete,
                    problem: "is damaged, and a process uses it; wait until that has ended".into(),
                });
            }
            None => {
                self.say(CacheEvent::Waiting(&complete));
                Lock::exclusive(&lock).map_err(error(&lock))?
            }
        };
        if Meta::read(&complete, key).is_ok_and(|meta| meta.is_some()) {
            return Ok(None);
        }
        let partial = dir.partial(key);
        dir.remove_partial(key, &alone).map_err(error(&partial))?;
        fs::create_dir(&partial).map_err(error(&partial))?;
        self.say(CacheEvent::Begun(&complete));
        Ok(Some(Building {
            key: key.to_owned(),
            dir,
            alone,
        }))
    }
}

/// A cache that is being written. Dropped before its end, it leaves nothing.
pub(super) struct Building {
    key: String,
    dir: TokenDir,
    alone: Lock,
}

impl Building {
    /// Writers of the two sides, for a vocabulary of this size.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn writers(&self, vocabulary: usize) -> Result<[Writer; 2], DataError> {
        let (dir, width) = (self.dir.partial(&self.key), Width::of(vocabulary));
        let [train, valid] = SIDES;
        Ok([Writer::create(&dir, train, width)?, Writer::create(&dir, valid, width)?])
    }

    /// Gives the cache its name.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn finish(
        self,
        sources: Vec<String>,
        vocabulary: usize,
        sides: [SideMeta; 2],
        reports: Reports,
    ) -> Result<(), DataError> {
        let (partial, complete) = (self.dir.partial(&self.key), self.dir.complete(&self.key));
        let [train, valid] = sides;
        let meta = Meta {
            label: Label { sources },
            format: FORMAT,
            key: self.key.clone(),
            width: Width::of(vocabulary),
            train,
            valid,
            overlap: reports.overlap,
            tokens: reports.tokens,
            checksum: 0,
        };
        meta.write(&partial)?;
        // A damaged one may be there.
        let named = match fs::remove_dir_all(&complete) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(&partial, &complete),
        };
        named.map_err(|source| Writer::error(&complete, source))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        let _ = self.dir.remove_partial(&self.key, &self.alone);
    }
}

/// What else a cache records.
pub(super) struct Reports {
    /// What the training documents share with evaluation problems.
    pub overlap: OverlapReport,
    /// Special tokens and short texts.
    pub tokens: TokenReport,
}

#[cfg(test)]
mod tests;
