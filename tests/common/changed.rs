//! Files that are damaged for a while.

use std::{fs, path::PathBuf};

/// A file that is changed until this is dropped.
pub struct Changed {
    path: PathBuf,
    before: Vec<u8>,
}

impl Changed {
    /// By `change`, which must change something.
    pub fn new(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let before = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut bytes = before.clone();
        change(&mut bytes);
        assert_ne!(bytes, before, "{} is as it was", path.display());
        fs::write(&path, bytes).expect("the file can be written");
        Self { path, before }
    }

    /// The lowest bits of four weights, the last ones of the file.
    pub fn bits(path: PathBuf) -> Self {
        Self::new(path, |bytes| {
            let end = bytes.len();
            for weight in 1..=4 {
                bytes[end - 4 * weight] ^= 1;
            }
        })
    }

    /// Every `from` becomes `to`.
    pub fn text(path: PathBuf, from: &str, to: &str) -> Self {
        Self::new(path, |bytes| {
            let text = String::from_utf8(bytes.clone()).expect("a text");
            assert!(text.contains(from), "no {from} in {text}");
            *bytes = text.replace(from, to).into_bytes();
        })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("the file can be written");
    }
}
