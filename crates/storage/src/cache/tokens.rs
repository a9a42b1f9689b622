//! Tokenised data in the cache, listed and removed like downloads ([`TokenDir`]).

use super::{
    clean::{CacheEntry, Cleaned, Keep},
    layout::cache_error,
};
use crate::{
    StorageError,
    fs::{Lock, entries, read_json},
};
use std::{fs, path::Path, time::UNIX_EPOCH};
use wmtp_base::token_cache::{Label, META, TokenDir};

/// The complete token caches below `paths.cache`, the last used first.
pub(crate) fn list(cache: &Path) -> Result<Vec<CacheEntry>, StorageError> {
    let dir = TokenDir::below(cache);
    let mut found = Vec::new();
    for key in keys(&dir)? {
        let path = dir.complete(&key);
        if !path.is_dir() {
            continue;
        }
        let lock = dir.lock(&key);
        let label: Label = read_json(&path.join(META)).unwrap_or_default();
        let used = fs::metadata(&lock).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
        let files = entries(&path).map_err(|e| cache_error(&path, &e))?;
        found.push(CacheEntry {
            uris: label
                .sources
                .iter()
                .map(|source| format!("tokens of {source}"))
                .collect(),
            files: files.len(),
            bytes: bytes(&path)?,
            used: used.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            time: used,
            in_use: Lock::try_exclusive(&lock).is_ok_and(|lock| lock.is_none()),
            tree: key,
            path,
        });
    }
    found.sort_by(|a, b| (b.time, &b.tree).cmp(&(a.time, &a.tree)));
    Ok(found)
}

/// Removes token caches that were used least recently until at most `keep` bytes stay, and what processes that
/// were killed left. What a process reads or writes stays.
pub(crate) fn clean(cache: &Path, keep: Keep, dry_run: bool) -> Result<Cleaned, StorageError> {
    let dir = TokenDir::below(cache);
    let mut cleaned = Cleaned::default();
    for key in keys(&dir)? {
        let partial = dir.partial(&key);
        let lock = dir.lock(&key);
        if !partial.is_dir() {
            continue;
        }
        // Who writes it holds the lock.
        if let Some(alone) = Lock::try_exclusive(&lock).map_err(|e| cache_error(&lock, &e))? {
            cleaned.partial += 1;
            cleaned.freed_bytes += bytes(&partial)?;
            if !dry_run {
                dir.remove_partial(&key, &alone)
                    .map_err(|e| cache_error(&partial, &e))?;
                if !dir.complete(&key).is_dir() {
                    alone.remove().map_err(|e| cache_error(&lock, &e))?;
                }
            }
        }
    }
    let most = match keep {
        Keep::Bytes(most) => most,
        Keep::Complete => u64::MAX,
    };
    let listed = list(cache)?;
    let mut size: u64 = listed.iter().map(|entry| entry.bytes).sum();
    for entry in listed.into_iter().rev() {
        if size <= most && most > 0 {
            break;
        }
        let lock = dir.lock(&entry.tree);
        let Some(alone) = Lock::try_exclusive(&lock).map_err(|e| cache_error(&lock, &e))? else {
            cleaned.in_use += 1;
            continue;
        };
        cleaned.removed += 1;
        cleaned.freed_bytes += entry.bytes;
        size -= entry.bytes;
        if !dry_run {
            dir.remove(&entry.tree, &alone)
                .map_err(|e| cache_error(&entry.path, &e))?;
            alone.remove().map_err(|e| cache_error(&lock, &e))?;
        }
    }
    if most == 0 && !dry_run {
        let hashes = dir.hashes();
        match fs::remove_dir_all(&hashes) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cache_error(&hashes, &error)),
            _ => {}
        }
    }
    cleaned.kept_bytes = size;
    Ok(cleaned)
}

fn keys(dir: &TokenDir) -> Result<Vec<String>, StorageError> {
    dir.keys().map_err(|e| cache_error(dir.path(), &e))
}

/// Bytes of a directory's files.
fn bytes(dir: &Path) -> Result<u64, StorageError> {
    let files = entries(dir).map_err(|e| cache_error(dir, &e))?;
    Ok(files.iter().map(|file| fs::metadata(file).map_or(0, |m| m.len())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// A complete token cache of ten bytes and its description, used some seconds ago.
    fn tokens(cache: &Path, key: &str, seconds: u64) {
        let dir = TokenDir::below(cache);
        fs::create_dir_all(dir.complete(key)).unwrap();
        fs::write(dir.complete(key).join("train.data"), "0123456789").unwrap();
        let label = format!("{{\"sources\": [\"{key}.parquet\"], \"format\": 1}}");
        fs::write(dir.complete(key).join(META), label).unwrap();
        let lock = fs::File::create(dir.lock(key)).unwrap();
        lock.set_modified(SystemTime::now() - Duration::from_secs(seconds))
            .unwrap();
    }

    fn names(cache: &Path) -> Vec<String> {
        list(cache)
            .unwrap()
            .into_iter()
            .map(|entry| entry.uris.join(" "))
            .collect()
    }

    #[test]
    fn token_caches_are_listed_by_their_data_and_the_oldest_leave_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path();
        assert_eq!(names(cache), Vec::<String>::new());
        for (key, seconds) in [("a", 30), ("b", 10), ("c", 20)] {
            tokens(cache, key, seconds);
        }
        let all = ["tokens of b.parquet", "tokens of c.parquet", "tokens of a.parquet"];
        assert_eq!(names(cache), all);
        let entry = &list(cache).unwrap()[0];
        assert_eq!((entry.files, entry.bytes), (2, 10 + 39));
        let reader = Lock::shared(&TokenDir::below(cache).lock("a")).unwrap();
        assert!(list(cache).unwrap()[2].in_use);
        // The oldest is in use, so the next one goes.
        let tried = clean(cache, Keep::Bytes(110), true).unwrap();
        assert_eq!((tried.removed, tried.in_use, tried.kept_bytes), (1, 1, 98));
        assert_eq!(names(cache), all);
        assert_eq!(clean(cache, Keep::Bytes(110), false).unwrap(), tried);
        assert_eq!(names(cache), [all[0], all[2]]);
        drop(reader);
        fs::create_dir_all(TokenDir::below(cache).hashes()).unwrap();
        assert_eq!(clean(cache, Keep::Bytes(0), false).unwrap().removed, 2);
        assert_eq!(fs::read_dir(TokenDir::below(cache).path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_one_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path();
        let tokens_dir = TokenDir::below(cache);
        tokens(cache, "whole", 1);
        for key in ["left", "written"] {
            fs::create_dir_all(tokens_dir.partial(key)).unwrap();
            fs::write(tokens_dir.partial(key).join("train.data"), "0123").unwrap();
        }
        let writer = Lock::exclusive(&tokens_dir.lock("written")).unwrap();
        let cleaned = clean(cache, Keep::Complete, false).unwrap();
        assert_eq!((cleaned.partial, cleaned.removed, cleaned.freed_bytes), (1, 0, 4));
        assert!(!tokens_dir.partial("left").exists() && tokens_dir.partial("written").exists());
        assert!(!tokens_dir.lock("left").exists() && tokens_dir.lock("written").exists());
        assert_eq!(names(cache), ["tokens of whole.parquet"]);
        drop(writer);
    }
}
