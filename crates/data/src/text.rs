//! Plain text trained on in addition to the problems: source files of a library, say, from which fresh heads
//! learn to look ahead before the problems are few.
//!
//! Every file becomes documents of at most a row, cut between tokens and without overlap; all tokens
//! but a document's first are trained. Only a file's first document begins with the tokenizer's special
//! tokens (BOS), and only its last one ends with EOS. A byte order mark at a file's start is dropped.

use super::{DataError, Example, Tokenized, Tokenizer};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Folders that a walk leaves out: other people's packages and what Python compiles.
const LEFT_OUT: [&str; 2] = ["site-packages", "__pycache__"];
/// Endings of files that hold records, not text to be trained on as it stands.
const RECORDS: [&str; 7] = ["jsonl", "ndjson", "json", "parquet", "arrow", "csv", "tsv"];
/// First problem number of a text file, beyond all benchmarks' own.
const FIRST_PROBLEM: u32 = 1 << 24;
/// A document shorter than this trains next to nothing and is left out.
const SHORTEST: usize = 8;

/// Reads `paths`: files as they are, and of directories every `*.py`, walked in order of names
/// without `site-packages` and `__pycache__`. Links are not followed. One example a file: its text is
/// `code`, so that it can be compared with evaluation problems.
///
/// # Errors
/// A path that can't be read, a named file of records (JSON lines, Parquet) or that is not UTF-8, a
/// directory without any `*.py`.
/// Files met on a walk that are not UTF-8 are left out: libraries hold some on purpose.
pub fn load(paths: &[String]) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::new();
    for path in paths {
        let path = Path::new(path);
        let read = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.is_dir() {
            let mut files = Vec::new();
            walk(path, &mut files)?;
            let found = examples.len();
            for file in files {
                if let Ok(text) = String::from_utf8(std::fs::read(&file).map_err(|source| DataError::Read {
                    path: file.clone(),
                    source,
                })?) {
                    let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
                    examples.push(example(examples.len(), &name, text));
                }
            }
            if examples.len() == found {
                return Err(DataError::Empty {
                    what: format!("text in `{}`", path.display()),
                    why: "it holds no *.py file; give a folder with some, or files, in `data.text`".into(),
                });
            }
        } else {
            if let Some(ending) = record_ending(path) {
                return Err(DataError::Setting {
                    key: "data.text",
                    problem: format!(
                        "names `{}`: it takes plain text, and a .{ending} file would be trained on with its braces, keys and quotes; \
                         write its texts into text files",
                        path.display()
                    ),
                });
            }
            let text = std::fs::read_to_string(path).map_err(read)?;
            examples.push(example(examples.len(), &path.display().to_string(), text));
        }
    }
    Ok(examples)
}

/// The ending of a file of records.
fn record_ending(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    RECORDS.into_iter().find(|record| *record == ending)
}

fn example(index: usize, name: &str, text: String) -> Example {
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    Example {
        sample: index,
        name: format!("text/{name}"),
        problem: FIRST_PROBLEM.saturating_add(index as u32),
        prompt: String::new(),
        response: text.clone(),
        task: String::new(),
        code: text,
        reward: None,
    }
}

/// All `*.py` below `dir`, in order of names.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let read = |source| DataError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(read)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(read)?);
        if kind.is_dir() {
            let name = entry.file_name();
            if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                walk(&path, files)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
    Ok(())
}

/// Documents made of text files, and what of the files was left out.
#[derive(Clone, Debug, Default)]
pub(super) struct TextDocuments {
    pub documents: Vec<Tokenized>,
    /// Files too short for a document, with their tokens (EOS not counted).
    pub short: Vec<(String, usize)>,
    /// Tokens of ends of files too short for a document.
    pub tail_tokens: usize,
}

/// Tokenises texts on all cores and cuts them into documents of at most `seq_len` tokens, numbered
/// from `first_sample` on.
///
/// # Errors
/// The first text that the tokenizer refuses.
pub(super) fn tokenized(
    texts: &[Example],
    tokenizer: &Tokenizer,
    seq_len: usize,
    first_sample: usize,
) -> Result<TextDocuments, DataError> {
    let encoded: Vec<Result<(Vec<u32>, usize), DataError>> = texts
        .par_iter()
        .map(|text| {
            // Nothing precedes a text: all of it but the special tokens is response.
            let (ids, begin) = tokenizer
                .trained("", &text.response)
                .map_err(|error| error.of_sample(&text.name))?;
            Ok((ids, begin))
        })
        .collect();
    let mut found = TextDocuments::default();
    for (text, encoded) in texts.iter().zip(encoded) {
        let (tokens, begin) = encoded?;
        let own = tokens.len().saturating_sub(begin + 1);
        let before = found.documents.len();
        for (number, piece) in (1..).zip(tokens.chunks(seq_len.max(2))) {
            if piece.len() < SHORTEST {
                // The only piece: the file is reported by name.
                if number > 1 {
                    found.tail_tokens += piece.len();
                }
                continue;
            }
            found.documents.push(Tokenized {
                sample: first_sample + found.documents.len(),
                name: format!("{}#{number}", text.name),
                problem: text.problem,
                tokens: piece.to_vec(),
                prompt_len: 1,
                untrained: Vec::new(),
                given: Vec::new(),
                reward: None,
            });
        }
        if found.documents.len() == before {
            found.short.push((text.name.clone(), own));
        }
    }
    Ok(found)
}
