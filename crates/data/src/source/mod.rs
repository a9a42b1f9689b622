//! Data of any format and schema as [`Record`]s: `path -> files -> rows -> records`.
//!
//! * `files`, `card`: which files a path names, and their splits;
//! * `format`: JSON lines, JSON arrays, Parquet and text, told apart by content, as rows;
//! * `schema`: rows as records, recognised by their columns.
//!
//! Nothing holds a whole file. Page `docs/data.md` has formats, schemas and errors.

mod card;
mod files;
mod format;
mod row;
mod schema;
mod whole;

pub use row::{Row, Rows};
pub use whole::{WholeRow, WholeRows};

use crate::{DataError, FileHashes, Record};
use format::{DataFile, Kind, wrong};
use row::listed;
use schema::Mapping;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Part of every hash: changes when the same files give other records.
const READER: &str = "records 2";

/// Records in a fixed order: files ([`Source`]), or what another implementation reads or makes.
///
/// ```
/// use wmtp_data::{Body, DataError, Place, Record, Sample, source::Dataset};
///
/// /// The sums of the numbers below ten.
/// struct Sums;
///
/// impl Dataset for Sums {
///     fn name(&self) -> &str {
///         "sums"
///     }
///
///     fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_> {
///         Box::new((0..100).map(|row| {
///             let (a, b) = (row / 10, row % 10);
///             Ok(Record {
///                 place: Place { file: "sums".into(), row: row + 1 },
///                 schema: "sums",
///                 task_id: None,
///                 samples: vec![Sample::new(Body::Text(format!("{a} + {b} = {}", a + b)))],
///                 tests: None,
///                 language: None,
///             })
///         }))
///     }
///
///     fn hash(&self) -> Result<String, DataError> {
///         Ok("sums 1".into())
///     }
///
///     fn len_hint(&self) -> Option<usize> {
///         Some(100)
///     }
/// }
///
/// let last = Sums.records().last().unwrap().unwrap();
/// assert_eq!(last.samples[0].body, Body::Text("9 + 9 = 18".into()));
/// ```
pub trait Dataset: Send + Sync {
    /// What messages and reports call it.
    fn name(&self) -> &str;

    /// Its records, from the first one.
    fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_>;

    /// A hash of everything that decides its records, for caches: equal hashes mean equal records.
    ///
    /// # Errors
    /// Content that cannot be read.
    fn hash(&self) -> Result<String, DataError>;

    /// The same, with hashes of large files that do not change remembered in `files`.
    ///
    /// # Errors
    /// As [`Self::hash`].
    fn content_hash(&self, files: &FileHashes) -> Result<String, DataError> {
        let _ = files;
        self.hash()
    }

    /// The number of its rows, where it is known without reading all of them.
    fn len_hint(&self) -> Option<usize> {
        None
    }
}

/// How a path is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// The split, or `CONFIGURATION/SPLIT` of a hub data set with several configurations. Without one `train`,
    /// or of files that are named by themselves the only one.
    pub split: Option<String>,
    /// Canonical column names with the file's own: `prompt` to `question`, say.
    pub columns: BTreeMap<String, String>,
    /// Rows to read at most.
    pub max_rows: Option<usize>,
}

/// Data files: one, those of a folder or hub data set, or those that a pattern matches.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    files: Vec<DataFile>,
    splits: Vec<String>,
    split: String,
    left_out: Vec<PathBuf>,
    mapping: Mapping,
    options: SourceOptions,
}

impl Source {
    /// Finds the files of `path` and their formats; reads no rows.
    ///
    /// # Errors
    /// A path without data, a format that is not read, a split that is not there, a mapping of columns that
    /// no schema has.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, DataError> {
        let mapping = Mapping::new(&options.columns)?;
        let (config, asked) = match options.split.as_deref().map(|split| split.split_once('/').ok_or(split)) {
            Some(Ok((config, split))) => (Some(config), Some(split)),
            Some(Err(split)) => (None, Some(split)),
            None => (None, None),
        };
        let mut found = files::find(path, config)?;
        let splits: Vec<String> = found.splits.keys().cloned().collect();
        let split = match (asked, splits.as_slice()) {
            (Some(split), _) if splits.iter().any(|known| known == split) => split,
            (Some(split), _) => files::canonical(split),
            (None, [only]) if found.named => only.as_str(),
            (None, _) => files::TRAIN,
        };
        let Some(paths) = found.splits.remove(split) else {
            return Err(wrong(
                path,
                format!(
                    "has no split `{split}`; set `data.split` to one of {}",
                    listed(splits.iter().map(String::as_str))
                ),
            ));
        };
        let files: Result<Vec<DataFile>, DataError> =
            paths.iter().map(|file| DataFile::open(file, !found.named)).collect();
        Ok(Self {
            name: path.display().to_string(),
            files: files?,
            split: split.to_owned(),
            splits,
            left_out: found.left_out,
            mapping,
            options: options.clone(),
        })
    }

    /// The splits that are there, in order of names.
    pub fn splits(&self) -> &[String] {
        &self.splits
    }

    /// The split that is read.
    pub fn split(&self) -> &str {
        &self.split
    }

    /// The files of the split, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Files of the folder that are in no split although others are: a report should name them.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Its records. A row that cannot be one is an error, after which the iterator ends; so is a source
    /// without any row.
    pub fn records(&self) -> Records {
        Records {
            rows: self.reader(false),
            ready: VecDeque::new(),
            done: false,
        }
    }

    /// Its rows with all their columns, to be written again. Errors as for [`Source::records`].
    pub fn whole_rows(&self) -> WholeRows {
        WholeRows::new(self.reader(true))
    }

    fn reader(&self, whole: bool) -> Reader {
        Reader {
            path: PathBuf::from(&self.name),
            files: self.files.clone().into(),
            rows: None,
            mapping: self.mapping.clone(),
            max_rows: self.options.max_rows,
            read: 0,
            whole,
        }
    }

    /// Rows, where all files are Parquet.
    pub fn len_hint(&self) -> Option<usize> {
        let counts = self.files.iter().map(|file| match file.kind {
            Kind::Parquet => format::parquet::count(&file.path).ok(),
            _ => None,
        });
        let rows: usize = counts.sum::<Option<usize>>()?;
        Some(self.options.max_rows.map_or(rows, |most| rows.min(most)))
    }

    /// SHA-256 (hex) over the files' bytes, the mapping of columns and the limit of rows. Reads all files.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hash(&self) -> Result<String, DataError> {
        self.hash_by(&mut DataFile::hash)
    }

    /// The hash, with those of the files by `of_file`.
    fn hash_by(&self, of_file: &mut dyn FnMut(&DataFile) -> Result<String, DataError>) -> Result<String, DataError> {
        let mut hash = Sha256::new_with_prefix(READER);
        for (name, column) in &self.options.columns {
            for text in [name, column] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
        }
        hash.update(format!("max_rows {:?}", self.options.max_rows));
        for file in &self.files {
            hash.update(of_file(file)?);
        }
        Ok(hex::encode(hash.finalize()))
    }
}

impl DataFile {
    /// SHA-256 (hex) of the file's bytes and of what they are read as.
    fn hash(&self) -> Result<String, DataError> {
        let unreadable = |source| DataError::Read {
            path: self.path.clone(),
            source,
        };
        let mut reader = File::open(&self.path).map_err(unreadable)?;
        // Text and JSON in the same bytes are different records.
        let mut content = Sha256::new_with_prefix(format!("{:?}", self.kind));
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = reader.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                return Ok(hex::encode(content.finalize()));
            }
            content.update(buffer.get(..read).unwrap_or_default());
        }
    }
}

impl Dataset for Source {
    fn name(&self) -> &str {
        &self.name
    }

    fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_> {
        Box::new(Self::records(self))
    }

    fn hash(&self) -> Result<String, DataError> {
        Self::hash(self)
    }

    fn content_hash(&self, files: &FileHashes) -> Result<String, DataError> {
        // Names of documents are those of files.
        let mut shown = String::new();
        let hash = self.hash_by(&mut |file| {
            shown.push_str(&file.shown);
            shown.push('\n');
            files.of(&file.path, &format!("{:?}", file.kind), || file.hash())
        })?;
        Ok(format!("{hash} {shown}"))
    }

    fn len_hint(&self) -> Option<usize> {
        Self::len_hint(self)
    }
}

/// The rows of a [`Source`], file by file.
struct Reader {
    path: PathBuf,
    files: VecDeque<DataFile>,
    rows: Option<Box<dyn Rows>>,
    mapping: Mapping,
    max_rows: Option<usize>,
    read: usize,
    /// Whether columns that no schema uses are read.
    whole: bool,
}

impl Reader {
    /// The next row, of the next file if this one is at its end; and whether it is the first of all.
    fn next(&mut self) -> Result<Option<(Row, bool)>, DataError> {
        if self.max_rows.is_some_and(|most| self.read >= most) {
            return Ok(None);
        }
        loop {
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                self.read += 1;
                return row.map(|row| Some((row, self.read == 1)));
            }
            let Some(file) = self.files.pop_front() else {
                return match self.read {
                    0 => Err(wrong(&self.path, "has no rows; give a file with at least one")),
                    _ => Ok(None),
                };
            };
            self.rows = Some(file.rows(&|column| self.whole || self.mapping.wants(column))?);
        }
    }
}

/// The records of a [`Source`], file by file.
pub struct Records {
    rows: Reader,
    /// Records of the last row that are not given yet.
    ready: VecDeque<Record>,
    done: bool,
}

impl Records {
    fn advance(&mut self) -> Result<Option<Record>, DataError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            let Some((row, first)) = self.rows.next()? else {
                return Ok(None);
            };
            self.ready = schema::records(row, &self.rows.mapping, first)?.into();
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.advance().transpose();
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

#[cfg(test)]
mod tests;
