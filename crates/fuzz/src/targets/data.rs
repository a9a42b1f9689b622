//! Data files: rows of every schema, arrays, Parquet, compressed files, folders.

use super::{file, files, none, tokenizers, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, named, split},
    scratch::{emptied, put, spread},
    target::{FIRST, POOL},
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use wmtp_data::{
    DataConfig, DataError, PromptStyle, Rendering, TextFile, Tokenizer,
    labels::{LabelledSource, contest},
    samples::samples,
    source::{Source, SourceOptions},
};

/// What reads rows: documents and prompts are made of them.
struct Reader {
    tokenizer: Tokenizer,
    plain: DataConfig,
    chat: DataConfig,
    renderings: [Rendering; 2],
}

impl Reader {
    fn new(dir: &Path) -> Self {
        let tokenizer = tokenizers::chatml(&dir.join("tokenizer"));
        let plain = DataConfig::default();
        let chat = DataConfig {
            prompt: PromptStyle::Chat,
            ..DataConfig::default()
        };
        Self {
            renderings: [&plain, &chat].map(|config| Rendering::new(config, &tokenizer)),
            tokenizer,
            plain,
            chat,
        }
    }

    fn read(&self, path: &Path) -> Result<(), DataError> {
        let source = Source::open(path, &SourceOptions::default())?;
        self.rows(&source)
    }

    fn rows(&self, source: &Source) -> Result<(), DataError> {
        for row in source.whole_rows() {
            let row = row?;
            // A question can be read where a record cannot.
            if let Ok(question) = row.question() {
                let _ = question.prompt(&self.plain, &self.tokenizer);
                let _ = question.prompt(&self.chat, &self.tokenizer);
            }
            let _ = row.with(&["prompt"], Vec::new());
        }
        for record in source.records() {
            let record = record?;
            let _ = record.examples();
            for rendering in &self.renderings {
                rendering.record(&record)?;
            }
        }
        Ok(())
    }
}

pub(super) const ROWS: Target = Target {
    name: "rows",
    what: "rows of JSON lines, of every schema, as documents and prompts",
    kind: Kind::Memory,
    shape: Shape::JsonLines,
    words: words::ROWS,
    // Rows are rendered on a pool.
    stack: POOL,
    seeds: || [files("tests/data", ".jsonl"), files("tests/data/malformed", ".jsonl")].concat(),
    open: |dir| {
        let reader = Reader::new(dir);
        let path = dir.join("rows.jsonl");
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&reader.read(&path))
        })
    },
};

pub(super) const ARRAY: Target = Target {
    name: "array",
    what: "a JSON array of rows",
    shape: Shape::Json,
    seeds: || {
        let mut seeds = [files("tests/data", ".json"), files("tests/data/malformed", ".json")].concat();
        seeds.push(b"[{\"text\": \"a\"}, {\"text\": \"b\"}]".to_vec());
        seeds
    },
    open: |dir| {
        let reader = Reader::new(dir);
        let path = dir.join("rows.json");
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&reader.read(&path))
        })
    },
    ..ROWS
};

pub(super) const SAMPLES: Target = Target {
    name: "samples",
    what: "samples of any file, for the comparison with evaluation problems",
    words: words::BENCHMARKS,
    open: |dir| {
        let paths = ["samples.jsonl", "samples.json"].map(|name| dir.join(name));
        Box::new(move |input| {
            let as_array = input.trim_ascii_start().starts_with(b"[");
            let path = put(&paths[usize::from(as_array)], input);
            Outcome::of(&samples(&path))
        })
    },
    ..ROWS
};

pub(super) const LABELS: Target = Target {
    name: "labels",
    what: "files of labelled solutions: MBPP's pairs, ConDefects, CodeContests",
    words: words::BENCHMARKS,
    stack: FIRST,
    seeds: || vec![file("data/contest/valid.jsonl"), file("tests/data/contest.jsonl")],
    open: |_| {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            let all = [
                LabelledSource::MbppMatched,
                LabelledSource::Condefects,
                LabelledSource::Contest,
            ];
            let found = all.map(|source| source.parse("labels", &text));
            let _ = contest::parse("labels", &text);
            match found.iter().find(|found| found.is_ok()) {
                Some(found) => Outcome::of(found),
                None => found.first().map_or(Outcome::Refused(0), Outcome::of),
            }
        })
    },
    ..ROWS
};

pub(super) const CARD: Target = Target {
    name: "card",
    what: "the README of a hub data set, which says which files are read",
    shape: Shape::Yaml,
    words: &[
        "configs",
        "config_name",
        "data_files",
        "data_dir",
        "split",
        "path",
        "default",
        "train",
        "test",
        "validation",
        "train.jsonl",
        "sub/*.jsonl",
        "**/*.jsonl",
        "../*",
        "[a-",
        "{a,b}",
        "*",
        "?",
        "/etc",
        "---",
        "./",
        "sub",
    ],
    stack: FIRST,
    seeds: none,
    open: |dir| {
        let folder = dir.join("dataset");
        for name in ["train.jsonl", "test.jsonl", "sub/train-0.jsonl", "sub/deep/x.jsonl"] {
            let path = folder.join(name);
            let made = path.parent().map(fs::create_dir_all);
            assert!(made.is_some_and(|made| made.is_ok()), "a folder for {name}");
            put(&path, b"{\"text\": \"a\"}\n");
        }
        Box::new(move |input| {
            put(&folder.join("README.md"), input);
            let options = |split: Option<&str>| SourceOptions {
                split: split.map(str::to_owned),
                ..SourceOptions::default()
            };
            let _ = Source::open(&folder, &options(Some("b/test")));
            Outcome::of(&Source::open(&folder, &options(None)))
        })
    },
    ..ROWS
};

pub(super) const FOLDER: Target = Target {
    name: "folder",
    what: "a folder of data files, told apart by content",
    kind: Kind::Loader,
    shape: Shape::Parts,
    seeds: || {
        let rows = b"{\"prompt\": \"a\", \"completion\": \"b\"}\n";
        let card = b"---\nconfigs:\n- config_name: a\n  default: true\n  data_files: \"*.jsonl\"\n---\n";
        vec![
            named(&[
                ("train.jsonl", rows),
                ("test.jsonl", rows),
                ("README.md", b"A data set."),
            ]),
            named(&[
                ("a/train-00000-of-00001.json", b"[{\"text\": \"x\"}]"),
                ("a/notes.txt", b"text\n"),
            ]),
            named(&[("README.md", card), ("x.jsonl", rows), ("dataset_info.json", b"{}")]),
            named(&[
                ("x.csv", b"a,b\n1,2\n"),
                ("x.arrow", b"ARROW1"),
                ("x.parquet", &file("tests/data/malformed/cut.parquet")),
            ]),
            named(&[
                ("code.py", b"def f():\n    return 1\n"),
                ("target/y.py", b"x = 1\n"),
                (".hidden", b""),
            ]),
        ]
    },
    open: |dir| {
        let reader = Reader::new(dir);
        let folder = dir.join("folder");
        Box::new(move |input| {
            spread(&folder, &split(input));
            Outcome::of(&reader.read(&folder))
        })
    },
    ..ROWS
};

pub(super) const PARQUET: Target = Target {
    name: "parquet",
    what: "a Parquet file",
    kind: Kind::Loader,
    shape: Shape::Bytes,
    words: &[
        "PAR1",
        "messages",
        "list",
        "element",
        "role",
        "content",
        "text",
        "\u{15}\u{0}",
        "\u{19}\u{1c}",
    ],
    seeds: || {
        let read = |path: &str| fs::read(super::root().join(path)).unwrap_or_default();
        [
            "chat.parquet",
            "malformed/cut.parquet",
            "nested/zstd.parquet",
            "nested/lz4.parquet",
            "nested/snappy.parquet",
        ]
        .map(|name| read(&format!("tests/data/{name}")))
        .into()
    },
    open: |dir| {
        let reader = Reader::new(dir);
        let path = dir.join("rows.parquet");
        Box::new(move |input| {
            put(&path, input);
            let outcome = Outcome::of(&reader.read(&path));
            let counted = Source::open(&path, &SourceOptions::default()).map(|source| source.len_hint());
            let _ = counted;
            outcome
        })
    },
    ..ROWS
};

pub(super) const COMPRESSED: Target = Target {
    name: "compressed",
    what: "rows compressed by gzip and zstd",
    kind: Kind::Loader,
    shape: Shape::JsonLines,
    seeds: || {
        let mut seeds = files("tests/data", ".jsonl");
        seeds.push(fs::read(super::root().join("tests/data/malformed/cut.jsonl.gz")).unwrap_or_default());
        // A frame that wants a window of 2 GiB, and one of no content.
        seeds.push(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00".to_vec());
        seeds
    },
    open: |dir| {
        let reader = Reader::new(dir);
        let paths: Vec<PathBuf> = ["rows.jsonl.gz", "rows.jsonl.zst"].map(|name| dir.join(name)).into();
        let folder = dir.join("one");
        Box::new(move |input| {
            // Compressed rows, most of the time; else bytes that may be anything.
            let is_text = input.first().is_some_and(|byte| b"{[\n ".contains(byte));
            let gzip = if is_text { gzipped(input) } else { input.to_vec() };
            let zstd = if is_text {
                zstd::encode_all(input, 1).unwrap_or_default()
            } else {
                input.to_vec()
            };
            let outcomes = [(0, gzip), (1, zstd)].map(|(n, bytes)| {
                put(&paths[n], &bytes);
                Outcome::of(&reader.read(&paths[n]))
            });
            put(&emptied(&folder).join("x.jsonl.gz"), &gzipped(input));
            let _ = TextFile::read(&folder);
            let _ = TextFile::read(&paths[0]);
            match outcomes {
                [Outcome::Accepted, _] => Outcome::Accepted,
                [_, second] => second,
            }
        })
    },
    ..ROWS
};

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}
