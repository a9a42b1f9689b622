//! Files, folders and patterns with their splits; the mapping of columns; limits and hashes.

use super::{error, fixture, read, records};
use crate::{
    Body,
    source::{Dataset, Source, SourceOptions},
};
use std::{collections::BTreeMap, fs, io::Write, path::Path};

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn split(name: &str) -> SourceOptions {
    SourceOptions {
        split: Some(name.into()),
        ..SourceOptions::default()
    }
}

fn columns(names: &[(&str, &str)]) -> SourceOptions {
    SourceOptions {
        columns: names.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        ..SourceOptions::default()
    }
}

/// The texts of a source of texts.
fn texts(path: &Path, options: &SourceOptions) -> Vec<String> {
    let found = read(path, options).unwrap();
    let text = |body: &Body| match body {
        Body::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    found.iter().map(|record| text(&record.samples[0].body)).collect()
}

#[test]
fn a_folder_is_read_by_split() {
    let path = fixture("splits");
    let source = Source::open(&path, &SourceOptions::default()).unwrap();
    assert_eq!(
        (source.splits(), source.split()),
        (["test", "train", "validation"].map(String::from).as_slice(), "train")
    );
    assert_eq!(records(&path).len(), 4);
    // Other names of validation.
    for name in ["validation", "valid", "val", "dev", "eval"] {
        assert_eq!(read(&path, &split(name)).unwrap().len(), 1, "{name}");
    }
    assert_eq!(
        error(&path, &split("holdout")),
        "`FILE` has no split `holdout`; set `data.split` to one of `test`, `train`, `validation`"
    );
}

#[test]
fn files_in_no_split_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("extra.jsonl"), "{\"text\": \"extra\"}\n");
    // The only file is training data.
    assert_eq!(texts(dir.path(), &SourceOptions::default()), ["extra"]);
    put(&dir.path().join("train.jsonl"), "{\"text\": \"a\"}\n");
    let source = Source::open(dir.path(), &SourceOptions::default()).unwrap();
    assert_eq!(source.left_out(), [dir.path().join("extra.jsonl")]);
    assert_eq!(texts(dir.path(), &SourceOptions::default()), ["a"]);
}

#[test]
fn a_file_named_by_itself_is_read_whatever_its_name() {
    let test = fixture("splits/test.jsonl");
    assert_eq!(records(&test).len(), 1);
    assert_eq!(
        error(&test, &split("train")),
        "`FILE` has no split `train`; set `data.split` to one of `test`"
    );
    // A folder with a test split only is not trained on.
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("test.jsonl"), "{\"text\": \"a\"}\n");
    assert_eq!(
        error(dir.path(), &SourceOptions::default()),
        "`FILE` has no split `train`; set `data.split` to one of `test`"
    );
}

#[test]
fn a_pattern_names_files() {
    let pattern = fixture("splits/*.jsonl");
    let source = Source::open(&pattern, &SourceOptions::default()).unwrap();
    assert_eq!(source.splits(), ["test", "train"]);
    assert_eq!(source.records().count(), 4);
    let none = fixture("splits/*.nothing");
    assert_eq!(
        error(&none, &SourceOptions::default()),
        "`FILE` matches no file; correct the pattern"
    );
    let dir = tempfile::tempdir().unwrap();
    for name in ["b/2.jsonl", "a/1.jsonl", "[x].jsonl"] {
        put(&dir.path().join(name), &format!("{{\"text\": \"{name}\"}}\n"));
    }
    assert_eq!(
        texts(&dir.path().join("**/[12].jsonl"), &SourceOptions::default()),
        ["a/1.jsonl", "b/2.jsonl"]
    );
    // A file whose name looks like a pattern.
    assert_eq!(
        texts(&dir.path().join("[x].jsonl"), &SourceOptions::default()),
        ["[x].jsonl"]
    );
}

#[test]
fn a_hub_data_set_says_its_splits_in_the_readme() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    put(
        &at("README.md"),
        "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/part-*\n  - split: val\n    path:\n    - other/x.jsonl\n---\n# A data set\n",
    );
    put(&at("data/part-0.jsonl"), "{\"text\": \"0\"}\n");
    put(&at("data/part-1.jsonl"), "{\"text\": \"1\"}\n");
    put(&at("other/x.jsonl"), "{\"text\": \"x\"}\n");
    put(&at("test.jsonl"), "{\"text\": \"not named\"}\n");
    assert_eq!(texts(dir.path(), &SourceOptions::default()), ["0", "1"]);
    assert_eq!(texts(dir.path(), &split("validation")), ["x"]);

    put(
        &at("README.md"),
        "---\nconfigs:\n- config_name: a\n  data_files: data/*\n- config_name: b\n  data_dir: other\n---\n",
    );
    let message = error(dir.path(), &SourceOptions::default());
    assert!(
        message.contains("has the configurations `a`, `b` and no default; set `data.split` to CONFIGURATION/SPLIT"),
        "{message}"
    );
    assert_eq!(texts(dir.path(), &split("a/train")), ["0", "1"]);
    assert_eq!(texts(dir.path(), &split("b/train")), ["x"]);
    let message = error(dir.path(), &split("c/train"));
    assert!(
        message.contains("has no configuration `c`, only `a`, `b`;"),
        "{message}"
    );
    assert_eq!(
        error(&at("test.jsonl"), &split("a/test")),
        "`FILE` has no configuration `a`; set `data.split` to a split alone"
    );
    put(
        &at("README.md"),
        "---\nconfigs:\n- config_name: a\n  data_files: data/*\n- config_name: b\n  data_dir: other\n  default: true\n---\n",
    );
    assert_eq!(texts(dir.path(), &SourceOptions::default()), ["x"]);
    put(
        &at("README.md"),
        "---\nconfigs:\n- config_name: a\n  data_files: ../../etc/*\n---\n",
    );
    let message = error(dir.path(), &SourceOptions::default());
    assert!(
        message.contains("names `../../etc/*` outside of the folder"),
        "{message}"
    );
    put(
        &at("README.md"),
        "---\nconfigs:\n- config_name: a\n  data_files: gone/*\n---\n",
    );
    let message = error(dir.path(), &SourceOptions::default());
    assert!(
        message.contains("names `gone/*` for the split `train`, but no file matches"),
        "{message}"
    );
    // No front matter: the names decide.
    put(&at("README.md"), "---\nA line, not YAML: [\n---\n");
    assert_eq!(texts(dir.path(), &split("test")), ["not named"]);
}

#[test]
fn descriptions_and_hidden_files_are_no_data() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "dataset_info.json",
        ".cache/x.jsonl",
        "_old.jsonl",
        "notes.md",
        "table.csv",
    ] {
        put(&dir.path().join(name), "{\"text\": \"no\"}\n");
    }
    put(&dir.path().join("rows.jsonl"), "{\"text\": \"yes\"}\n");
    assert_eq!(texts(dir.path(), &SourceOptions::default()), ["yes"]);
    fs::remove_file(dir.path().join("rows.jsonl")).unwrap();
    let message = read(dir.path(), &SourceOptions::default()).unwrap_err().to_string();
    assert!(
        message.contains("table.csv` is a table of separated values"),
        "{message}"
    );
}

#[test]
fn a_folder_of_source_code_is_texts() {
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("pkg/test_a.py"), "\u{feff}a = 1\r\nb = 2\r\n");
    put(&dir.path().join("pkg/__init__.py"), "");
    put(&dir.path().join("pkg/_own.py"), "own = 1\n");
    fs::write(dir.path().join("utf16.py"), b"\xff\xfe#\x00").unwrap();
    fs::write(dir.path().join("zero.txt"), b"a\x00b").unwrap();
    put(&dir.path().join("z.py"), "{\"z\": 1}\n");
    put(&dir.path().join("__pycache__/c.py"), "no = 1\n");
    fs::write(dir.path().join("latin.py"), b"# \xe9\n").unwrap();
    assert_eq!(
        texts(dir.path(), &SourceOptions::default()),
        ["own = 1\n", "a = 1\nb = 2\n", "{\"z\": 1}\n"]
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        error(empty.path(), &SourceOptions::default()),
        "`FILE` holds no JSON, Parquet or text file; name a folder that does"
    );
}

#[test]
fn compressed_and_marked_files_have_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\u{feff}{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}";
    put(&dir.path().join("plain.jsonl"), text);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    fs::write(dir.path().join("packed.jsonl.gz"), gzip.finish().unwrap()).unwrap();
    fs::write(
        dir.path().join("packed.zst"),
        zstd::encode_all(text.as_bytes(), 1).unwrap(),
    )
    .unwrap();
    fs::write(
        dir.path().join("array"),
        "\u{feff} [{\"text\": \"a\"}, {\"text\": \"b\"} ] ",
    )
    .unwrap();
    for name in ["plain.jsonl", "packed.jsonl.gz", "packed.zst", "array"] {
        assert_eq!(
            texts(&dir.path().join(name), &SourceOptions::default()),
            ["a", "b"],
            "{name}"
        );
    }
    // A row's number is that of its line.
    assert_eq!(records(&dir.path().join("plain.jsonl"))[1].place.row, 3);
}

#[test]
fn columns_are_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    put(
        &path,
        "{\"question\": \"q\", \"answer\": \"a\", \"text\": \"t\", \"w\": 2}\n{\"question\": \"q\", \"answer\": \"b\"}\n",
    );
    let options = columns(&[("prompt", "question"), ("completion", "answer"), ("weight", "w")]);
    let found = read(&path, &options).unwrap();
    assert_eq!(found[0].schema, "prompt-completion");
    assert_eq!((found[0].samples[0].weight, found[1].samples[0].weight), (2.0, 1.0));
    assert_eq!(
        error(&path, &columns(&[("prompt", "qestion"), ("completion", "answer")])),
        "FILE, row 1: `data.columns` maps `prompt` to `qestion`, which is absent, did you mean `question`?"
    );
    assert_eq!(
        error(&path, &columns(&[("promt", "question")])),
        "`data.columns` maps `promt`, which is no column of any schema, did you mean `prompt`?"
    );
    assert_eq!(
        error(&path, &columns(&[("prompt", "question"), ("completion", "question")])),
        "`data.columns` maps the column `question` twice; keep one of the two"
    );
    // An error names the file's column.
    put(&path, "{\"question\": \"q\", \"answer\": 3}\n");
    assert_eq!(
        error(&path, &columns(&[("prompt", "question"), ("completion", "answer")])),
        "FILE, row 1, column `answer`: found the number `3`, give a text"
    );
}

#[test]
fn a_mapped_column_of_parquet_may_begin_with_null() {
    let found = read(&fixture("chat.parquet"), &columns(&[("reward", "label")])).unwrap();
    let rewards: Vec<Option<f32>> = found.iter().map(|record| record.samples[0].reward).collect();
    assert_eq!(rewards, [None, None, None, Some(1.0), Some(0.0), None]);
    // Of columns that are not read, too, a similar one is offered.
    assert_eq!(
        error(&fixture("chat.parquet"), &columns(&[("text", "source_ur")])),
        "FILE, row 1: `data.columns` maps `text` to `source_ur`, which is absent, did you mean `source_url`?"
    );
}

#[test]
fn rows_are_limited() {
    let options = SourceOptions {
        max_rows: Some(2),
        ..SourceOptions::default()
    };
    assert_eq!(read(&fixture("text.jsonl"), &options).unwrap().len(), 2);
    assert_eq!(
        Source::open(&fixture("chat.parquet"), &options).unwrap().len_hint(),
        Some(2)
    );
    assert_eq!(Source::open(&fixture("text.jsonl"), &options).unwrap().len_hint(), None);
}

#[test]
fn the_hash_is_of_the_content_and_what_selects_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
    put(&a, "{\"text\": \"a\"}\n");
    put(&b, "{\"text\": \"a\"}\n");
    let hash = |path: &Path, options: &SourceOptions| -> String {
        let source = Source::open(path, options).unwrap();
        let set: &dyn Dataset = &source;
        set.hash().unwrap()
    };
    let plain = SourceOptions::default();
    assert_eq!(hash(&a, &plain), hash(&b, &plain));
    assert_ne!(hash(&a, &plain), hash(&a, &columns(&[("text", "code")])));
    let limited = SourceOptions {
        max_rows: Some(1),
        columns: BTreeMap::new(),
        split: None,
    };
    assert_ne!(hash(&a, &plain), hash(&a, &limited));
    put(&b, "{\"text\": \"b\"}\n");
    assert_ne!(hash(&a, &plain), hash(&b, &plain));
}
