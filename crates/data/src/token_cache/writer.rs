//! Documents to the two files of one side.

use super::{
    SideMeta,
    format::{Width, encode},
};
use crate::{DataError, DatasetReport, Tokenized, dataset::Mix};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

/// Writes documents one after another.
pub(crate) struct Writer {
    width: Width,
    index: (PathBuf, BufWriter<File>),
    data: (PathBuf, BufWriter<File>),
    /// Of the index so far.
    crc: crc32fast::Hasher,
    /// Bytes of the payloads so far.
    bytes: u64,
    payload: Vec<u8>,
}

impl Writer {
    /// New files `NAME.index` and `NAME.data` in `dir`.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn create(dir: &Path, name: &str, width: Width) -> Result<Self, DataError> {
        let file = |ending: &str| {
            let path = dir.join(format!("{name}.{ending}"));
            let file = File::create(&path).map_err(|source| Self::error(&path, source))?;
            Ok::<_, DataError>((path, BufWriter::with_capacity(BUFFER, file)))
        };
        Ok(Self {
            width,
            index: file("index")?,
            data: file("data")?,
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            payload: Vec::new(),
        })
    }

    /// A disk that can't be written.
    pub fn error(path: &Path, source: io::Error) -> DataError {
        DataError::Write {
            path: path.to_owned(),
            source,
        }
    }

    /// Writes the next document.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn push(&mut self, document: &Tokenized) -> Result<(), DataError> {
        let encoded = encode(document, self.width, self.bytes, &mut self.payload);
        let record = encoded.ok_or_else(|| DataError::File {
            path: self.data.0.clone(),
            problem: format!("can't hold {}: a number in it is too large", document.name),
        })?;
        let record = record.bytes();
        self.bytes += self.payload.len() as u64;
        self.crc.update(&record);
        for ((path, file), bytes) in [(&mut self.data, self.payload.as_slice()), (&mut self.index, &record)] {
            file.write_all(bytes).map_err(|source| Self::error(path, source))?;
        }
        Ok(())
    }

    /// Completes the files.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn finish(mut self, mix: Mix, hash: String, report: DatasetReport) -> Result<SideMeta, DataError> {
        for (path, file) in [&mut self.index, &mut self.data] {
            file.flush().map_err(|source| Self::error(path, source))?;
        }
        Ok(SideMeta::new(self.crc.finalize(), self.bytes, mix, hash, report))
    }
}
