//! A file of rows, plain or compressed by gzip.

use super::DataError;
use sha2::{Digest, Sha256};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// What gzip's files begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Most bytes of the text of a compressed file: a few kilobytes can stand for gigabytes.
const MOST_UNPACKED: u64 = 128 << 20;

/// A file's text, unpacked if it was compressed.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// The file: the one that was named, or the only one of the directory that was named.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// SHA-256 of the file as it lies there.
    pub sha256: String,
}

impl TextFile {
    /// Reads `source`: a file, or a directory that holds one JSONL file (`.jsonl` or `.jsonl.gz`).
    ///
    /// # Errors
    /// A path that cannot be read, a directory with no such file or several, bytes that are no gzip
    /// although they begin so, more than 128 MiB unpacked, text that is not UTF-8.
    pub fn read(source: &Path) -> Result<Self, DataError> {
        let path = if source.is_dir() {
            only_file(source)?
        } else {
            source.to_owned()
        };
        let wrong = |problem: String| DataError::File {
            path: path.clone(),
            problem,
        };
        let bytes = std::fs::read(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let bytes = if bytes.starts_with(&GZIP) {
            let mut unpacked = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice())
                .take(MOST_UNPACKED + 1)
                .read_to_end(&mut unpacked)
                .map_err(|error| wrong(format!("is damaged gzip: {error}; take a complete file")))?;
            if unpacked.len() as u64 > MOST_UNPACKED {
                return Err(wrong(format!(
                    "unpacks to more than {} MiB; take the published file, or unpack it yourself",
                    MOST_UNPACKED >> 20
                )));
            }
            unpacked
        } else {
            bytes
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| wrong("is not UTF-8 text; give a JSONL file, plain or compressed by gzip".into()))?;
        Ok(Self { path, text, sha256 })
    }

    /// The path as messages show it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn only_file(dir: &Path) -> Result<PathBuf, DataError> {
    let wrong = |problem: String| DataError::File {
        path: dir.to_owned(),
        problem,
    };
    let entries = std::fs::read_dir(dir).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_file() && (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
        })
        .collect();
    files.sort();
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(wrong("holds no .jsonl or .jsonl.gz file; name the file itself".into())),
        several => Err(wrong(format!(
            "holds {} .jsonl files; name the one to read",
            several.len()
        ))),
    }
}

/// Parses one JSON object a line, each with its line number; empty lines are passed over.
///
/// # Errors
/// A line that is no `T`, with its number.
pub fn rows<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<Vec<(usize, T)>, DataError> {
    text.lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty())
        .map(|(row, line)| {
            let row = serde_json::from_str(row).map_err(|e| DataError::Row {
                file: file.to_owned(),
                line,
                problem: format!("not a row of this file: {e}"),
            })?;
            Ok((line, row))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_files_have_the_same_text() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a.txt"), dir.path().join("b.jsonl.gz"));
        std::fs::write(&plain, "é\n").unwrap();
        std::fs::write(&packed, gzip("é\n")).unwrap();
        assert_eq!(TextFile::read(&plain).unwrap().text, "é\n");
        assert_eq!(TextFile::read(&packed).unwrap().text, "é\n");
        // The directory's only JSONL file.
        assert_eq!(TextFile::read(dir.path()).unwrap().path, packed);
        // printf 'é\\n' | sha256sum
        let digest = TextFile::read(&plain).unwrap().sha256;
        assert_eq!(
            digest,
            "edd3a863872a04239eb29ad4bc12fc892b3d4ae57cc7e786a3697816f8e141c2"
        );
    }

    /// 150 MiB of one letter in 150 kB.
    #[test]
    fn a_file_that_unpacks_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl.gz");
        std::fs::write(&path, gzip(&"a".repeat(1 << 20)).repeat(150)).unwrap();
        let error = TextFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("unpacks to more than 128 MiB"), "{error}");
        std::fs::write(&path, gzip(&"a".repeat(1 << 20)).repeat(20)).unwrap();
        assert_eq!(TextFile::read(&path).unwrap().text.len(), 20 << 20);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| TextFile::read(path).unwrap_err().to_string();
        assert!(error(&dir.path().join("none")).contains("cannot be read"));
        assert!(error(dir.path()).contains("holds no .jsonl"));
        let torn = dir.path().join("a.jsonl");
        let whole = gzip("some text that is long enough");
        std::fs::write(&torn, &whole[..whole.len() - 9]).unwrap();
        assert!(error(&torn).contains("damaged gzip"), "{}", error(&torn));
        std::fs::write(&torn, [0xff, 0xfe]).unwrap();
        assert!(error(&torn).contains("not UTF-8"));
        std::fs::write(dir.path().join("b.jsonl"), "").unwrap();
        assert!(error(dir.path()).contains("holds 2 .jsonl files"));
    }
}
