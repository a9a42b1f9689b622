//! Which files a path names, and to which split each belongs.
//!
//! A path is a file, a folder or a pattern such as `data/*.jsonl`. In a folder the split of a file is what
//! the configuration in its README says (`card`), or the word `train`, `validation` or `test` in the name of
//! the file or of a folder, as the hub's data sets have it.

use super::{
    card,
    format::{DataFile, Named, named, wrong},
};
use crate::DataError;
use std::{
    collections::BTreeMap,
    fs::Metadata,
    path::{Path, PathBuf},
};

/// The split of files whose names say nothing.
pub(super) const TRAIN: &str = "train";
/// Words in names, with the split that they stand for.
const WORDS: [(&str, &str); 10] = [
    ("train", TRAIN),
    ("training", TRAIN),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("eval", "validation"),
    ("evaluation", "validation"),
    ("test", "test"),
    ("testing", "test"),
];
/// Files that describe a data set and hold none of its rows.
const DESCRIPTIONS: [&str; 7] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "config.json",
    "package.json",
    "metadata.json",
];
/// Folders that a walk leaves out: what tools install or compile.
const LEFT_OUT: [&str; 4] = ["site-packages", "__pycache__", "node_modules", "target"];
/// Most files of a source.
const MOST: usize = 1_000_000;

/// The files of a path by split.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub splits: BTreeMap<String, Vec<PathBuf>>,
    /// Files of rows that are in no split although others are.
    pub left_out: Vec<PathBuf>,
    /// Whether the files were named, by themselves or by a pattern, and not met in a folder.
    pub named: bool,
}

/// The split that a word stands for; another name as it is.
pub(super) fn canonical(name: &str) -> &str {
    let known = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
    known.map_or(name, |(_, split)| split)
}

/// Finds the files. Of a data set with several configurations, those of `config`.
///
/// # Errors
/// A path that is not there, a pattern that is none or that nothing matches, a folder without data or without
/// this configuration.
pub(super) fn find(path: &Path, config: Option<&str>) -> Result<Found, DataError> {
    match (std::fs::metadata(path), config) {
        (Ok(kind), _) if kind.is_dir() => folder(path, config),
        (_, Some(config)) => Err(no_config(path, config)),
        (kind, None) => named_by(path, kind),
    }
}

/// The error of a configuration that is asked for and not there.
fn no_config(path: &Path, config: &str) -> DataError {
    wrong(
        path,
        format!("has no configuration `{config}`; set `data.split` to a split alone"),
    )
}

/// A file, or the files that a pattern matches.
fn named_by(path: &Path, kind: std::io::Result<Metadata>) -> Result<Found, DataError> {
    match kind {
        Ok(_) => Ok(named_files(vec![path.to_owned()])),
        Err(_) if path.to_string_lossy().contains(['*', '?', '[']) => {
            let files = matches(path, &path.to_string_lossy())?;
            match files.is_empty() {
                true => Err(wrong(path, "matches no file; correct the pattern")),
                false => Ok(named_files(files)),
            }
        }
        Err(source) => Err(DataError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Files that the path names itself. Only the name of the file counts for its split.
fn named_files(files: Vec<PathBuf>) -> Found {
    let mut found = Found {
        named: true,
        ..Found::default()
    };
    for file in files {
        let split = file.file_name().and_then(|name| split_of(Path::new(name)));
        found
            .splits
            .entry(split.unwrap_or_else(|| TRAIN.into()))
            .or_default()
            .push(file);
    }
    found
}

/// The files that a pattern matches, in order of names.
///
/// # Errors
/// Something that is no pattern; a folder that cannot be read.
pub(super) fn matches(path: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let found =
        glob::glob(pattern).map_err(|error| wrong(path, format!("is no pattern: {}; correct it", error.msg)))?;
    let mut files = Vec::new();
    for file in found.take(MOST) {
        let file = file.map_err(|error| DataError::Read {
            path: error.path().to_owned(),
            source: std::io::Error::from(error.error().kind()),
        })?;
        if file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

/// The files of a folder: those of JSON and Parquet, or else text.
fn folder(path: &Path, config: Option<&str>) -> Result<Found, DataError> {
    match (card::splits(path, config)?, config) {
        (Some(splits), _) => {
            return Ok(Found {
                splits,
                ..Found::default()
            });
        }
        (None, Some(config)) => return Err(no_config(path, config)),
        (None, None) => {}
    }
    let mut files = Vec::new();
    walk(path, &mut files)?;
    let (mut rows, mut texts, mut refused) = (Vec::new(), Vec::new(), None);
    for file in files {
        match named(&file) {
            // Caches of data sets begin with an underscore, but source code does as well.
            Named::Rows if underscored(path, &file) => {}
            Named::Rows => rows.push(file),
            Named::Text => texts.push(file),
            Named::Refused => refused = refused.or(Some(file)),
            Named::Other => {}
        }
    }
    if let (true, Some(refused)) = (rows.is_empty(), refused) {
        // Says what to do with the format.
        DataFile::open(&refused, false)?;
    }
    match (rows.is_empty(), texts.is_empty()) {
        (false, _) => Ok(by_name(path, rows)),
        (true, false) => Ok(Found {
            splits: by_top_folder(path, texts),
            ..Found::default()
        }),
        (true, true) => Err(wrong(
            path,
            "holds no JSON, Parquet or text file; name a folder that does",
        )),
    }
}

/// Whether the file, or a folder of it below `root`, begins with an underscore.
fn underscored(root: &Path, file: &Path) -> bool {
    let below = file.strip_prefix(root).unwrap_or(file);
    below
        .components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with('_'))
}

/// All files below `dir` in order of names. Hidden ones are left out, links to folders are not followed.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let unreadable = |source| DataError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(unreadable)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lower = name.to_lowercase();
        if name.starts_with('.') || LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() && !DESCRIPTIONS.contains(&lower.as_str()) && !lower.starts_with("readme") {
            if files.len() >= MOST {
                return Err(wrong(
                    dir,
                    format!("is in a folder of more than {MOST} files; name a part of it"),
                ));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Files of rows by the words in their names. If any name has one, files without are in no split.
fn by_name(root: &Path, files: Vec<PathBuf>) -> Found {
    let mut found = Found::default();
    for file in files {
        match split_of(file.strip_prefix(root).unwrap_or(&file)) {
            Some(split) => found.splits.entry(split).or_default().push(file),
            None => found.left_out.push(file),
        }
    }
    if found.splits.is_empty() {
        found.splits.insert(TRAIN.into(), std::mem::take(&mut found.left_out));
    }
    found
}

/// Text files by the folders directly below the root, if all of these are named like splits: deeper down,
/// `test` is a word of programs.
fn by_top_folder(root: &Path, files: Vec<PathBuf>) -> BTreeMap<String, Vec<PathBuf>> {
    let top = |file: &PathBuf| {
        let mut parts = file.strip_prefix(root).ok()?.components();
        let first = parts.next()?.as_os_str().to_str()?.to_lowercase();
        parts.next()?;
        let (_, split) = WORDS.iter().find(|(word, _)| *word == first)?;
        Some((*split).to_owned())
    };
    let named: Option<Vec<String>> = files.iter().map(top).collect();
    let mut splits: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    match named {
        Some(named) => {
            for (split, file) in named.into_iter().zip(files) {
                splits.entry(split).or_default().push(file);
            }
        }
        None => _ = splits.insert(TRAIN.into(), files),
    }
    splits
}

/// The split that a path says: of its file's name first, then of its folders, the innermost first.
fn split_of(path: &Path) -> Option<String> {
    if let Some(split) = shard_split(path) {
        return Some(split);
    }
    let mut parts: Vec<String> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy().to_lowercase())
        .collect();
    parts.reverse();
    parts
        .iter()
        .find_map(|part| {
            let mut words = part.split(|character: char| !character.is_alphabetic());
            words.find_map(|word| WORDS.iter().find(|(known, _)| *known == word))
        })
        .map(|(_, split)| (*split).to_owned())
}

/// The split of `data/NAME-00000-of-00002.parquet`: the hub gives splits of any name to such files.
fn shard_split(path: &Path) -> Option<String> {
    let parent = path.parent()?.file_name()?;
    if parent != "data" {
        return None;
    }
    let stem = path.file_name()?.to_str()?.split('.').next()?;
    let (name, count) = stem.rsplit_once("-of-")?;
    let (name, number) = name.rsplit_once('-')?;
    let digits = |text: &str| {
        text.get(..5)
            .is_some_and(|five| five.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let word = |character: char| character.is_alphanumeric() || character == '_';
    (digits(count) && digits(number) && !name.is_empty() && name.chars().all(word)).then(|| canonical(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Option<String> {
        split_of(Path::new(path))
    }

    #[test]
    fn words_of_names_are_splits() {
        for (path, expected) in [
            ("train.jsonl", Some("train")),
            ("data/train-00000-of-00002.parquet", Some("train")),
            (
                "data/train_sft-00000-of-00003-a3ecf92756993583.parquet",
                Some("train_sft"),
            ),
            ("data/dev-00000-of-00001.parquet", Some("validation")),
            ("main/test-00000-of-00001.parquet", Some("test")),
            ("c4-train.00000-of-01024.json.gz", Some("train")),
            ("validation/part-00000-of-00002.parquet", Some("validation")),
            ("train/eval.jsonl", Some("validation")),
            ("my_val_2.json", Some("validation")),
            ("trainer.jsonl", None),
            ("tests.jsonl", None),
            ("latest.parquet", None),
        ] {
            assert_eq!(split(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn text_has_splits_only_by_the_folders_on_top() {
        let files = |paths: &[&str]| paths.iter().map(|path| Path::new("/r").join(path)).collect::<Vec<_>>();
        let of = |paths: &[&str]| {
            let splits = by_top_folder(Path::new("/r"), files(paths));
            splits
                .into_iter()
                .map(|(split, files)| (split, files.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&["train/a.py", "valid/b.py"]),
            [("train".into(), 1), ("validation".into(), 1)]
        );
        assert_eq!(of(&["src/a.py", "test/b.py"]), [("train".into(), 2)]);
        assert_eq!(of(&["test.py", "train.py"]), [("train".into(), 2)]);
    }
}
