//! Formats of data files, told apart by their content: JSON lines, JSON arrays, Parquet and plain text, the
//! text ones also compressed by gzip or zstd.
//!
//! The name decides only where the content leaves it open: source code is text whatever it begins with, and
//! a file named `.jsonl` is JSON however damaged. Other formats are refused by name.

mod array;
mod lines;
pub(super) mod parquet;
mod text;

use super::row::Rows;
use crate::DataError;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes in which the content's first character has to occur.
const HEAD: u64 = 64 << 10;
/// Endings of JSON.
const JSON: [&str; 3] = ["jsonl", "ndjson", "json"];
/// Endings of compressed files.
const PACKED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
/// Endings of text that is trained on as it stands.
const TEXT: [&str; 42] = [
    "py", "pyi", "ipy", "rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "cu", "cuh", "java", "kt", "scala", "js",
    "jsx", "mjs", "ts", "tsx", "go", "rb", "php", "cs", "swift", "lua", "jl", "r", "pl", "sh", "bash", "sql", "hs",
    "ml", "ex", "md", "rst", "tex", "html", "css", "txt",
];
/// Endings of formats that are not read, with what to do.
const REFUSED: [(&str, &str); 12] = [
    ("csv", CSV),
    ("tsv", CSV),
    ("arrow", ARROW),
    ("feather", ARROW),
    ("ipc", ARROW),
    ("avro", "is Avro"),
    ("orc", "is ORC"),
    ("xlsx", "is a spreadsheet"),
    ("zip", "is a zip archive"),
    ("tar", "is a tar archive"),
    ("pkl", "is a Python pickle"),
    ("safetensors", "holds tensors"),
];
const CSV: &str = "is a table of separated values";
const ARROW: &str = "is Arrow";

/// How the bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

/// What the rows are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON object a line.
    JsonLines,
    /// A list of JSON objects.
    JsonArray,
    /// Parquet.
    Parquet,
    /// One text.
    Text,
}

/// A data file whose format is known.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    pub path: PathBuf,
    /// The path as errors show it.
    pub shown: Arc<str>,
    pub kind: Kind,
    packing: Packing,
    /// Whether a text that is not UTF-8, or has zero bytes, is left out instead of refused: met on a walk, not
    /// named.
    lenient: bool,
}

/// An error about a whole file.
pub(super) fn wrong(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::File {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The last ending of a name in lower case, without those of compression.
pub(super) fn ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut parts: Vec<&str> = name.split('.').skip(1).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| PACKED.contains(last)) {
        parts.pop();
    }
    parts.last().copied().unwrap_or_default().to_owned()
}

/// What the name of a file in a folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// JSON or Parquet.
    Rows,
    /// Text or source code.
    Text,
    /// A format that is not read.
    Refused,
    /// Something else.
    Other,
}

/// What the name of a file in a folder says.
pub(super) fn named(path: &Path) -> Named {
    let ending = ending(path);
    match ending.as_str() {
        "parquet" => Named::Rows,
        ending if JSON.contains(&ending) => Named::Rows,
        ending if TEXT.contains(&ending) => Named::Text,
        ending if REFUSED.iter().any(|(refused, _)| *refused == ending) => Named::Refused,
        _ => Named::Other,
    }
}

/// The refusal of a format that is not read.
fn refusal(path: &Path, what: &str) -> DataError {
    wrong(
        path,
        format!("{what}, which is not read; convert it to Parquet or JSON lines, by `Dataset.to_parquet` for one"),
    )
}

impl DataFile {
    /// Finds the format from the beginning of the file.
    ///
    /// # Errors
    /// A file that cannot be read or has a format that is not read.
    pub fn open(path: &Path, lenient: bool) -> Result<Self, DataError> {
        let unreadable = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let mut start = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(64).read_to_end(&mut start).map_err(unreadable)?;
        let ending = ending(path);
        if let Some((_, what)) = REFUSED.iter().find(|(refused, _)| *refused == ending) {
            return Err(refusal(path, what));
        }
        let packing = match start.as_slice() {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::None,
        };
        let mut found = Self {
            path: path.to_owned(),
            shown: path.display().to_string().into(),
            kind: Kind::Text,
            packing,
            lenient,
        };
        found.kind = match start.as_slice() {
            [b'P', b'A', b'R', b'1', ..] => Kind::Parquet,
            [b'P', b'A', b'R', b'E', ..] => return Err(refusal(path, "is encrypted Parquet")),
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => {
                return Err(refusal(path, ARROW));
            }
            [b'P', b'K', 3, 4, ..] => return Err(refusal(path, "is a zip archive")),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] if !lenient => return Err(wrong(path, "is UTF-16; save it as UTF-8")),
            start if start.starts_with(b"version https://git-lfs") => {
                return Err(wrong(
                    path,
                    "is only a Git LFS pointer; run `git lfs pull`, or download the file itself",
                ));
            }
            _ if ending == "parquet" => {
                return Err(wrong(
                    path,
                    "is not Parquet, which begins with `PAR1`; take a complete file",
                ));
            }
            _ => found.text_kind(&ending)?,
        };
        Ok(found)
    }

    /// JSON lines, a JSON array or text.
    fn text_kind(&self, ending: &str) -> Result<Kind, DataError> {
        let mut head = Vec::new();
        if let Err(error) = self.reader()?.take(HEAD).read_to_end(&mut head)
            && head.is_empty()
        {
            return Err(self.damaged(&error, 0));
        }
        let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head);
        if head.contains(&0) && !self.lenient {
            return Err(wrong(
                &self.path,
                "is neither text nor Parquet; give JSON lines, a JSON array, Parquet or text",
            ));
        }
        let mut characters = head.iter().filter(|byte| !byte.is_ascii_whitespace());
        let kind = match (characters.next(), characters.next()) {
            (Some(b'['), _) if JSON.contains(&ending) => Kind::JsonArray,
            _ if JSON.contains(&ending) => Kind::JsonLines,
            _ if ending != "txt" && TEXT.contains(&ending) => Kind::Text,
            (Some(b'{'), Some(b'"' | b'}')) => Kind::JsonLines,
            (Some(b'['), Some(b'{')) => Kind::JsonArray,
            _ => Kind::Text,
        };
        Ok(kind)
    }

    /// The unpacked bytes.
    fn reader(&self) -> Result<Box<dyn BufRead + Send>, DataError> {
        let unreadable = |source| DataError::Read {
            path: self.path.clone(),
            source,
        };
        let file = BufReader::with_capacity(128 << 10, File::open(&self.path).map_err(unreadable)?);
        Ok(match self.packing {
            Packing::None => Box::new(file),
            Packing::Gzip => Box::new(BufReader::with_capacity(
                128 << 10,
                flate2::bufread::MultiGzDecoder::new(file),
            )),
            Packing::Zstd => Box::new(BufReader::with_capacity(
                128 << 10,
                zstd::stream::read::Decoder::with_buffer(file).map_err(unreadable)?,
            )),
        })
    }

    /// The error of a read that failed after `rows` rows.
    fn damaged(&self, error: &io::Error, rows: usize) -> DataError {
        let what = match self.packing {
            Packing::None => return wrong(&self.path, format!("cannot be read after row {rows}: {error}")),
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        };
        wrong(
            &self.path,
            format!("is damaged or incomplete {what} after row {rows} ({error}); take a complete file"),
        )
    }

    /// Its rows. Of Parquet, those columns that `wanted` accepts.
    ///
    /// # Errors
    /// A file that cannot be opened; Parquet whose footer or schema is damaged.
    pub fn rows(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Box<dyn Rows>, DataError> {
        Ok(match self.kind {
            Kind::JsonLines => Box::new(lines::JsonLines::new(self.clone(), self.reader()?)),
            Kind::JsonArray => Box::new(array::JsonArray::new(self.clone(), self.reader()?)),
            Kind::Parquet => Box::new(parquet::ParquetRows::open(self, wanted)?),
            Kind::Text => Box::new(text::TextRows::new(self.clone(), self.reader()?)),
        })
    }
}

/// What is wrong with JSON, and in which column of its line, without the line that serde adds.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ")
        .and_then(|end| text.get(..end))
        .unwrap_or(&text)
        .to_owned()
}

#[cfg(test)]
mod tests;
