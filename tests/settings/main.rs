//! What a user may write into settings, and what comes out.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod errors;
mod merge;
mod read_back;
mod rules;
mod shipped;

use std::path::PathBuf;
use wmtp::settings::Sources;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn variable(name: &str, value: &str) -> [(String, String); 1] {
    [(name.to_owned(), value.to_owned())]
}

fn problem(sources: Sources) -> String {
    match sources.load() {
        Ok(settings) => panic!("this should have been refused: {settings:?}"),
        Err(e) => e.to_string(),
    }
}
