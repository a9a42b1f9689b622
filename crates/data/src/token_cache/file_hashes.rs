//! Content hashes of large files, remembered until the file changes: hashing gigabytes takes seconds.
//!
//! A file counts as unchanged while its path, size, time of change and number in the file system are the same.
//! One that changed within the last seconds is not remembered: a further change might have the same time.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::Metadata,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use wmtp_base::fs::{self, Fsync};

/// Files of fewer bytes are hashed each time.
const LARGE: u64 = 8 << 20;
/// A file whose last change is not older than this is not remembered.
const SETTLED: Duration = Duration::from_secs(3);

/// The hashes of a cache directory.
#[derive(Clone, Debug)]
pub struct FileHashes {
    dir: PathBuf,
}

/// A file with this state has this hash.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    changed: u64,
    number: u64,
    hash: String,
}

impl FileHashes {
    /// In this directory, which is made when the first hash is written.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The hash of a file, which `make` computes if it is not known. `kind` is what the hash covers in addition
    /// to the bytes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn of<E>(&self, path: &Path, kind: &str, make: impl FnOnce() -> Result<String, E>) -> Result<String, E> {
        let Some(now) = state(path) else { return make() };
        let name = hex::encode(Sha256::digest(format!("{kind}\n{}", now.path.display())));
        let memory = self.dir.join(format!("{name}.json"));
        match fs::read_json::<Known>(&memory) {
            Ok(known) if known.is(&now) => Ok(known.hash),
            _ => Self::made(path, &memory, make),
        }
    }

    fn made<E>(path: &Path, memory: &Path, make: impl FnOnce() -> Result<String, E>) -> Result<String, E> {
        let before = state(path);
        let hash = make()?;
        let unchanged = |after: &Known| before.as_ref().is_some_and(|before| before.is(after));
        let Some(after) = state(path).filter(unchanged).filter(Known::is_settled) else {
            return Ok(hash);
        };
        let known = Known {
            hash: hash.clone(),
            ..after
        };
        let dir = memory.parent().unwrap_or(Path::new("."));
        // What can't be remembered is computed again.
        let written = std::fs::create_dir_all(dir).and_then(|()| {
            let json = serde_json::to_vec(&known)?;
            fs::replace(memory, Fsync::No, |out| out.write_all(&json))
        });
        if let Err(error) = written {
            tracing::debug!("`{}` is not written: {error}", memory.display());
        }
        Ok(hash)
    }
}

impl Known {
    /// The same state of the same file.
    fn is(&self, other: &Self) -> bool {
        let state = |known: &Self| (known.bytes, known.changed, known.number);
        self.path == other.path && state(self) == state(other)
    }

    /// A further change would have another time.
    fn is_settled(&self) -> bool {
        UNIX_EPOCH + Duration::from_nanos(self.changed) + SETTLED < SystemTime::now()
    }
}

/// State of a large file, without its hash.
fn state(path: &Path) -> Option<Known> {
    let path = path.canonicalize().ok()?;
    let metadata = path.metadata().ok().filter(|metadata| metadata.len() >= LARGE)?;
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Known {
        bytes: metadata.len(),
        changed: u64::try_from(changed.as_nanos()).ok()?,
        number: number(&metadata),
        hash: String::new(),
        path,
    })
}

#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, fs::File};

    #[test]
    fn a_large_file_is_hashed_again_only_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let hashes = FileHashes::new(dir.path().join("hashes"));
        let path = dir.path().join("data");
        let made = Cell::new(0);
        let of = |kind: &str| {
            hashes.of::<()>(&path, kind, || {
                made.set(made.get() + 1);
                Ok(format!("hash {}", made.get()))
            })
        };
        let write = |bytes: u64, age: u64| {
            let file = File::create(&path).unwrap();
            file.set_len(bytes).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        write(LARGE, 60);
        assert_eq!((of("a").unwrap(), of("a").unwrap()), ("hash 1".into(), "hash 1".into()));
        // Another kind of hash of the same file.
        assert_eq!((of("b").unwrap(), of("a").unwrap()), ("hash 2".into(), "hash 1".into()));
        write(LARGE + 1, 60);
        assert_eq!(of("a").unwrap(), "hash 3");
        write(LARGE + 1, 50);
        assert_eq!((of("a").unwrap(), of("a").unwrap()), ("hash 4".into(), "hash 4".into()));
        // Changed just now: a further change could have the same time.
        write(LARGE + 1, 0);
        assert_eq!((of("a").unwrap(), of("a").unwrap()), ("hash 5".into(), "hash 6".into()));
        // Small files are not worth a file.
        write(LARGE - 1, 60);
        assert_eq!((of("a").unwrap(), of("a").unwrap()), ("hash 7".into(), "hash 8".into()));
        // A damaged memory counts as none.
        write(LARGE, 70);
        assert_eq!(of("a").unwrap(), "hash 9");
        for file in std::fs::read_dir(dir.path().join("hashes")).unwrap() {
            std::fs::write(file.unwrap().path(), "{").unwrap();
        }
        assert_eq!(
            (of("a").unwrap(), of("a").unwrap()),
            ("hash 10".into(), "hash 10".into())
        );
    }
}
