//! All targets, by what they read.

mod chat;
mod code;
mod data;
mod eval;
mod model;
mod net;
mod runs;
mod server;
mod settings;
mod tensors;
mod test;
mod tokenizers;
mod words;

use crate::Target;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// All targets.
pub const TARGETS: &[Target] = &[
    settings::YAML,
    settings::CONFIG,
    settings::RECIPE,
    settings::SETS,
    settings::SWEEP,
    data::ROWS,
    data::ARRAY,
    data::SAMPLES,
    data::LABELS,
    data::CARD,
    data::FOLDER,
    data::PARQUET,
    data::COMPRESSED,
    chat::TEMPLATE,
    chat::CONVERSATION,
    code::PYTHON,
    code::ADDRESSES,
    tokenizers::JSON,
    tokenizers::CONFIG,
    tokenizers::GENERATION,
    tokenizers::COMPANIONS,
    tokenizers::PIECES,
    model::CONFIG,
    model::PARAMS,
    model::ADAPTER_CONFIG,
    tensors::MODEL,
    tensors::DIRECTORY,
    tensors::HEADS,
    tensors::ADAPTER,
    tensors::REWARD,
    tensors::VALUE_HEAD,
    tensors::SCORES,
    tensors::PYTORCH,
    eval::PREDICTIONS,
    eval::MBPP,
    eval::SANITIZED,
    eval::HUMANEVAL,
    eval::CONTEST,
    eval::OWN,
    eval::PLUS,
    eval::VERDICT,
    eval::CACHED,
    runs::RECORD,
    runs::TRAINER,
    runs::MANIFEST,
    runs::METRICS,
    runs::STEPS,
    runs::DIRECTORY,
    net::HUB,
    net::PUSH,
    net::S3,
    net::MLFLOW,
    test::PANIC,
    test::SLOW,
    test::MEMORY,
    test::OVERFLOW,
    test::REFUSES,
];

/// The repository, whose own files are inputs to begin with.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The most bytes of a file of the repository that is an input: more only makes executions slower.
const LONGEST_SEED: usize = 6 << 10;

/// The files of a directory of the repository whose names end with `end`; long ones cut after a line.
fn files(dir: &str, end: &str) -> Vec<Vec<u8>> {
    let paths = wmtp_base::fs::entries(&root().join(dir)).unwrap_or_default();
    let wanted = paths
        .into_iter()
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(end));
    wanted.filter_map(|path| fs::read(path).ok()).map(shortened).collect()
}

/// A file of the repository, cut after a line where it is long.
fn file(path: &str) -> Vec<u8> {
    shortened(fs::read(root().join(path)).unwrap_or_default())
}

fn shortened(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() > LONGEST_SEED {
        let head = bytes.get(..LONGEST_SEED).unwrap_or_default();
        let end = head
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(LONGEST_SEED, |at| at + 1);
        bytes.truncate(end);
    }
    bytes
}

/// None in addition to the corpus.
fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_target_has_inputs() {
        let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(names.len(), TARGETS.len());
        for target in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
            let inputs = (target.seeds)().len() + fs::read_dir(corpus).map_or(0, Iterator::count);
            assert!(inputs > 0, "{}", target.name);
        }
    }

    #[test]
    fn the_corpus_is_small_and_belongs_to_targets() {
        let mut bytes = 0;
        for dir in wmtp_base::fs::entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap() {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            assert!(TARGETS.iter().any(|target| target.name == name), "{name} is no target");
            for file in wmtp_base::fs::entries(&dir).unwrap() {
                let size = fs::metadata(&file).unwrap().len();
                assert!(size < 4096, "{}: {size} bytes", file.display());
                bytes += size;
            }
        }
        assert!(bytes < 150_000, "{bytes}");
    }
}
