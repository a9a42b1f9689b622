//! Names that were replaced stay away, and the field's terms are there to be found.
//!
//! `docs/retired.txt` lists identifiers that mean one thing only, one a line with its replacement. They occur
//! in no source and on no page; the migration notes of the changelog may name them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the identifiers are searched. A part that does not exist is skipped.
const PARTS: &[&str] = &[
    "src",
    "model",
    "kernels",
    "crates",
    "sandbox",
    "tests",
    "benches",
    "examples",
    "docs",
    "configs",
    "README.md",
    "COMPAT.md",
    "Justfile",
    "Cargo.toml",
];
const LIST: &str = "docs/retired.txt";
/// Terms that a reader from the field searches for.
const TERMS: &[&str] = &["KV cache", "gradient accumulation", "sublayer", "throughput"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text files below `path`, without build output, the list and this file.
fn texts(path: &Path, out: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .flatten()
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name != "target" && name != "fixtures" && name != "cases" && !name.starts_with('.') {
                texts(&entry.path(), out);
            }
        }
    } else if path != root().join(LIST) && path != root().join(file!()) && path.is_file() {
        // Pictures are no text.
        if let Ok(text) = fs::read_to_string(path) {
            out.push((path.strip_prefix(root()).unwrap_or(path).to_owned(), text));
        }
    }
}

fn repository() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for part in PARTS {
        texts(&root().join(part), &mut found);
    }
    assert!(
        found.len() > 300,
        "{} files: the sources are where they are looked for",
        found.len()
    );
    found
}

/// The list: name and replacement.
fn retired() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(LIST)).expect("the list of retired names");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, now) = line.split_once(" -> ").unwrap_or_else(|| panic!("{LIST}: `{line}`"));
            (name.to_owned(), now.to_owned())
        })
        .collect()
}

/// Places at which `name` stands as a whole identifier, as `file:line`.
fn places(name: &str, files: &[(PathBuf, String)]) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if line.split(|c| !is_part(c)).any(|word| word == name) {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn retired_names_occur_nowhere() {
    let files = repository();
    let list = retired();
    assert!(list.len() >= 10, "{} names", list.len());
    let found: Vec<String> = list
        .iter()
        .flat_map(|(name, now)| {
            let places = places(name, &files);
            places
                .into_iter()
                .map(move |place| format!("{place}: `{name}` is {now} now"))
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_retired_name_is_found_as_a_whole_identifier_only() {
    let files = [(
        PathBuf::from("a.rs"),
        "let weigher = 1;\nlet weighers = my_weigher + Weigher;\n// self.weigher()\n".to_owned(),
    )];
    assert_eq!(places("weigher", &files), ["a.rs:1", "a.rs:3"]);
}

#[test]
fn the_terms_of_the_field_occur() {
    let files = repository();
    for term in TERMS {
        let lower = term.to_lowercase();
        let sources = files
            .iter()
            .filter(|(path, text)| !path.ends_with("retired.rs") && text.to_lowercase().contains(&lower));
        assert!(sources.count() > 0, "`{term}` occurs nowhere");
    }
}
