//! Documents of one side, read one by one.

use super::{
    SideMeta,
    format::{Record, Width, decode},
};
use crate::{
    DataError, Tokenized,
    dataset::{Content, Documents, Entry},
};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use wmtp_base::{fs::Lock, token_cache::META};

/// The open files of one side.
#[derive(Debug)]
pub(crate) struct Stored {
    dir: PathBuf,
    index: File,
    data: File,
    data_bytes: u64,
    width: Width,
    count: usize,
    /// Nobody removes what is open.
    _lock: Arc<Lock>,
}

impl Stored {
    /// Opens `NAME.index` and `NAME.data` of `dir` and reads the index.
    ///
    /// # Errors
    /// What is wrong with them, as a part of a sentence.
    pub fn open(dir: &Path, name: &str, width: Width, meta: &SideMeta, lock: Arc<Lock>) -> Result<Content, String> {
        let open = |ending: &str, bytes: u64| {
            let name = format!("{name}.{ending}");
            let file = File::open(dir.join(&name)).map_err(|error| format!("lacks {name}: {error}"))?;
            let found = file.metadata().map_or(0, |metadata| metadata.len());
            match found == bytes {
                true => Ok(file),
                false => Err(format!("has {found} bytes in {name}, not {bytes}")),
            }
        };
        let data = open("data", meta.data_bytes)?;
        let index = open("index", meta.index_bytes())?;
        let entries = entries(&index, meta, width).map_err(|error| format!("has a damaged {name}.index: {error}"))?;
        let stored = Self {
            dir: dir.to_owned(),
            index,
            data,
            data_bytes: meta.data_bytes,
            width,
            count: entries.len(),
            _lock: lock,
        };
        Ok(Content {
            documents: Documents::Disk(stored),
            index: entries,
            mix: meta.mix(),
            hash: meta.hash.clone(),
            report: meta.report.clone(),
        })
    }

    /// A document; None past the end.
    ///
    /// # Errors
    /// A file that can't be read, or a document that is not the one that was written.
    pub fn get(&self, index: usize) -> Result<Option<Tokenized>, DataError> {
        if index >= self.count {
            return Ok(None);
        }
        let unreadable = |source| DataError::Read {
            path: self.dir.clone(),
            source,
        };
        let mut bytes = [0; Record::BYTES];
        read_at(&self.index, &mut bytes, (index * Record::BYTES) as u64).map_err(unreadable)?;
        let Some(record) = Record::read(&bytes) else {
            return Err(self.damaged(index));
        };
        let size = record.payload_bytes(self.width);
        if record.offset.saturating_add(size) > self.data_bytes {
            return Err(self.damaged(index));
        }
        let mut payload = vec![0; size as usize];
        read_at(&self.data, &mut payload, record.offset).map_err(unreadable)?;
        match decode(&record, &payload, self.width) {
            Some(document) => Ok(Some(document)),
            None => Err(self.damaged(index)),
        }
    }

    /// The cache is not used again: without its description it is made anew.
    fn damaged(&self, index: usize) -> DataError {
        let _ = std::fs::remove_file(self.dir.join(META));
        DataError::File {
            path: self.dir.clone(),
            problem: format!(
                "is damaged at document {index}; check the disk, and start or resume the run: the tokens are made anew"
            ),
        }
    }
}

/// Length and problem of every document, by which the index is checked as a whole.
fn entries(index: &File, meta: &SideMeta, width: Width) -> io::Result<Vec<Entry>> {
    let wrong = || io::Error::other("it is not as it was written");
    let mut entries = Vec::with_capacity(meta.report.documents);
    let mut reader = BufReader::with_capacity(1 << 20, index);
    let (mut crc, mut offset) = (crc32fast::Hasher::new(), 0);
    let mut bytes = [0; Record::BYTES];
    for _ in 0..meta.report.documents {
        reader.read_exact(&mut bytes)?;
        crc.update(&bytes);
        let record = Record::read(&bytes)
            .filter(|record| record.offset == offset)
            .ok_or_else(wrong)?;
        offset += record.payload_bytes(width);
        entries.push(Entry {
            len: record.len,
            problem: record.problem,
        });
    }
    match crc.finalize() == meta.index_crc && offset == meta.data_bytes {
        true => Ok(entries),
        false => Err(wrong()),
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = bytes.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
        }
    }
    Ok(())
}
