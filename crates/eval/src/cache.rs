//! Verdicts kept by content: the same program under the same tests, limits, harness, interpreter
//! and sandbox is run once.
//!
//! A directory with a small file for each verdict, named by the hash of everything that decides it.
//! Files appear whole, so that several processes may share the directory. What depends on how busy
//! the machine is ([`Judgement::repeats`]) is not kept.

use super::{Judgement, TestCount, Verdict};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};
use wmtp_base::fs::{Fsync, replace};

/// Raised when the meaning of the files changes.
const FORMAT: &str = "wmtp verdict 1";

/// A directory of verdicts.
#[derive(Debug)]
pub struct VerdictCache {
    dir: PathBuf,
    hits: AtomicUsize,
}

#[derive(Serialize, Deserialize)]
struct CachedVerdict {
    result: String,
    unverified: Option<String>,
    tests: Option<TestCount>,
}

impl VerdictCache {
    /// The directory is made when there is something to keep.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            hits: AtomicUsize::new(0),
        }
    }

    /// Verdicts that were found.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// The name of a verdict: a hash of all that decides it, none of it ambiguous.
    pub fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut hash = Sha256::new();
        for part in std::iter::once(FORMAT).chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }

    /// The verdict under this name; one that cannot be read is not there.
    pub fn get(&self, key: &str) -> Option<Judgement> {
        let text = std::fs::read_to_string(self.path(key)).ok()?;
        let entry: CachedVerdict = serde_json::from_str(&text).ok()?;
        let verdict: Verdict = entry.result.parse().ok()?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(Judgement {
            tests: entry.tests,
            ..Judgement::of(verdict, entry.unverified)
        })
    }

    /// Keeps a verdict that repeats. The cache only saves time, so a full disk is a warning.
    pub fn put(&self, key: &str, judgement: &Judgement) {
        if !judgement.repeats {
            return;
        }
        if let Err(error) = self.write(key, judgement) {
            tracing::warn!(dir = %self.dir.display(), %error, "a verdict could not be kept");
        }
    }

    /// Bytes that were kept under this name.
    pub(super) fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(key)).ok()
    }

    /// Keeps bytes. As [`VerdictCache::put`], a full disk is a warning.
    pub(super) fn put_bytes(&self, key: &str, bytes: &[u8]) {
        if let Err(error) = self.write_bytes(key, bytes) {
            tracing::warn!(dir = %self.dir.display(), %error, "the results of a reference solution could not be kept");
        }
    }

    fn write(&self, key: &str, judgement: &Judgement) -> std::io::Result<()> {
        let entry = CachedVerdict {
            result: judgement.verdict.to_string(),
            unverified: judgement.unverified.clone(),
            tests: judgement.tests.clone(),
        };
        self.write_bytes(key, &serde_json::to_vec(&entry)?)
    }

    fn write_bytes(&self, key: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.path(key);
        let dir = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(dir)?;
        replace(&path, Fsync::No, |out| out.write_all(bytes))
    }

    /// Two levels, so that no directory gets too long.
    fn path(&self, key: &str) -> PathBuf {
        let (first, rest) = key.split_at_checked(2).unwrap_or(("", key));
        self.dir.join(first).join(format!("{rest}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(verdict: Verdict) -> Judgement {
        Judgement::of(verdict, Some("why".into()))
    }

    #[test]
    fn a_verdict_is_found_again_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = VerdictCache::new(dir.path());
        let key = VerdictCache::key(["code", "tests"]);
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &judgement(Verdict::Error("KeyError".into())));
        assert_eq!(cache.get(&key), Some(judgement(Verdict::Error("KeyError".into()))));
        assert_eq!(cache.hits(), 1);
        assert_eq!(
            VerdictCache::new(dir.path()).get(&key).map(|j| j.verdict.passed()),
            Some(false)
        );
    }

    #[test]
    fn what_depends_on_the_machine_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = VerdictCache::new(dir.path());
        for verdict in [Verdict::Timeout, Verdict::Killed(9)] {
            cache.put("key", &judgement(verdict));
        }
        let slow = Judgement {
            repeats: false,
            ..judgement(Verdict::Passed)
        };
        cache.put("key", &slow);
        assert_eq!(cache.get("key"), None);
    }

    #[test]
    fn a_torn_file_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = VerdictCache::new(dir.path());
        cache.put("abc", &judgement(Verdict::Passed));
        std::fs::write(cache.path("abc"), "{\"result\": \"pa").unwrap();
        assert_eq!(cache.get("abc"), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(VerdictCache::key(["ab", "c"]), VerdictCache::key(["a", "bc"]));
        assert_ne!(VerdictCache::key(["a"]), VerdictCache::key(["a", ""]));
    }
}
