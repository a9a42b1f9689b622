//! What leaves a cache, and in which order.

use super::layout::{Layout, Reference, cache_error};
use crate::{
    StorageError,
    fs::{Lock, read_json},
};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// A file or directory in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// What it was asked for by; several URIs may be the same thing. Of tokenised data, their sources.
    pub uris: Vec<String>,
    /// Where it lies.
    pub path: PathBuf,
    /// Files in it.
    pub files: usize,
    /// Bytes in them; what two entries share is counted in both.
    pub bytes: u64,
    /// Last use, in seconds since 1970.
    pub used: u64,
    /// Whether a process uses it now.
    pub in_use: bool,
    /// The same as the file system has it: several uses may fall into one second.
    #[serde(skip)]
    pub(super) time: SystemTime,
    #[serde(skip)]
    pub(super) tree: String,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Entries.
    pub removed: usize,
    /// Downloads and tokenised data that had broken off.
    pub partial: usize,
    /// Bytes that this freed.
    pub freed_bytes: u64,
    /// Bytes that stay.
    pub kept_bytes: u64,
    /// Entries that stay because a process uses them.
    pub in_use: usize,
}

impl std::ops::AddAssign for Cleaned {
    fn add_assign(&mut self, other: Self) {
        self.removed += other.removed;
        self.partial += other.partial;
        self.freed_bytes += other.freed_bytes;
        self.kept_bytes += other.kept_bytes;
        self.in_use += other.in_use;
    }
}

/// What may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// So many bytes, what was used last before the rest.
    Bytes(u64),
    /// Everything that is complete.
    Complete,
}

/// What lies in the cache, the last used first.
pub(crate) fn entries(layout: &Layout) -> Result<Vec<CacheEntry>, StorageError> {
    let mut references: HashMap<String, Vec<Reference>> = HashMap::new();
    for path in files(&layout.references())? {
        if let Ok(reference) = read_json::<Reference>(&path) {
            references.entry(reference.tree.clone()).or_default().push(reference);
        }
    }
    let mut entries = Vec::new();
    for path in files(&layout.trees())? {
        let tree = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_dir() || tree.starts_with('.') {
            continue;
        }
        let lock = layout.tree_lock(&tree);
        let of = references.remove(&tree).unwrap_or_default();
        let used = fs::metadata(&lock).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
        let mut uris: Vec<String> = of.iter().map(|r| r.uri.clone()).collect();
        uris.sort();
        entries.push(CacheEntry {
            path: of.first().map_or(path.clone(), |r| path.join(&r.name)),
            files: of.first().map_or(0, |r| r.files),
            bytes: of.first().map_or(0, |r| r.bytes),
            used: used.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            time: used,
            in_use: Lock::try_exclusive(&lock).is_ok_and(|lock| lock.is_none()),
            uris,
            tree,
        });
    }
    entries.sort_by(|a, b| (b.time, &b.tree).cmp(&(a.time, &a.tree)));
    Ok(entries)
}

/// Removes what was used least recently, until what stays is no more than may; nothing that a process
/// uses. None if somebody adds to the cache just now.
pub(crate) fn clean(layout: &Layout, keep: Keep, dry_run: bool) -> Result<Option<Cleaned>, StorageError> {
    if !layout.root.is_dir() {
        return Ok(Some(Cleaned::default()));
    }
    let path = layout.lock();
    let Some(_alone) = Lock::try_exclusive(&path).map_err(|e| cache_error(&path, &e))? else {
        return Ok(None);
    };
    let mut cleaner = Cleaner {
        layout,
        dry_run,
        cleaned: Cleaned::default(),
    };
    let mut size = size_of(layout)?;
    let mut users = Users::count(layout)?;
    let most = match keep {
        Keep::Bytes(most) => most,
        Keep::Complete => u64::MAX,
    };
    if size > most || most == 0 || keep == Keep::Complete {
        cleaner.partials()?;
        size -= cleaner.orphans(&users)?.min(size);
    }
    for entry in entries(layout)?.into_iter().rev() {
        // Without a byte to keep, empty entries go too.
        if size <= most && most > 0 {
            break;
        }
        if let Some(freed) = cleaner.tree(&entry, &mut users)? {
            size -= freed.min(size);
        }
    }
    cleaner.cleaned.kept_bytes = size;
    Ok(Some(cleaner.cleaned))
}

/// Bytes of all downloads.
pub(crate) fn size_of(layout: &Layout) -> Result<u64, StorageError> {
    Ok(files(&layout.blobs())?.iter().map(|blob| bytes(blob)).sum())
}

/// How many trees use each blob: by their files' numbers, where the system has them.
struct Users(HashMap<String, HashSet<String>>);

impl Users {
    /// Reads which blobs each tree is made of off the file numbers.
    fn count(layout: &Layout) -> Result<Self, StorageError> {
        let mut by_number = HashMap::new();
        for blob in files(&layout.blobs())? {
            let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(number) = number(&blob) {
                by_number.insert(number, name);
            }
        }
        let mut users: HashMap<String, HashSet<String>> = HashMap::new();
        for tree in files(&layout.trees())? {
            let name = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut stack = vec![tree];
            while let Some(path) = stack.pop() {
                if path.is_dir() {
                    stack.extend(files(&path)?);
                } else if let Some(blob) = number(&path).and_then(|n| by_number.get(&n)) {
                    users.entry(blob.clone()).or_default().insert(name.clone());
                }
            }
        }
        Ok(Self(users))
    }
}

struct Cleaner<'a> {
    layout: &'a Layout,
    dry_run: bool,
    cleaned: Cleaned,
}

impl Cleaner<'_> {
    /// Downloads that nobody works on, and what a killed process left of a tree.
    fn partials(&mut self) -> Result<(), StorageError> {
        for path in files(&self.layout.partials())?
            .into_iter()
            .chain(files(&self.layout.trees())?)
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let of_a_tree = path.starts_with(self.layout.trees());
            if !path.is_dir() || (of_a_tree && !name.starts_with('.')) {
                continue;
            }
            let lock = self.layout.partial_lock(&name);
            // Whoever makes a tree holds the lock that is held here.
            let guard = if of_a_tree {
                None
            } else {
                match Lock::try_exclusive(&lock).map_err(|e| cache_error(&lock, &e))? {
                    None => continue,
                    guard => guard,
                }
            };
            self.cleaned.partial += 1;
            if !of_a_tree {
                self.cleaned.freed_bytes += files(&path)?.iter().map(|p| bytes(p)).sum::<u64>();
            }
            if !self.dry_run {
                fs::remove_dir_all(&path).map_err(|e| cache_error(&path, &e))?;
                if let Some(guard) = guard {
                    guard.remove().map_err(|e| cache_error(&lock, &e))?;
                }
            }
        }
        Ok(())
    }

    /// Blobs of no tree. Returns their bytes.
    fn orphans(&mut self, users: &Users) -> Result<u64, StorageError> {
        let mut freed = 0;
        for blob in files(&self.layout.blobs())? {
            let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !users.0.contains_key(&name) {
                freed += self.remove_blob(&blob)?;
            }
        }
        Ok(freed)
    }

    /// Removes a tree and the blobs that it alone used, unless a process uses it. Returns their bytes.
    fn tree(&mut self, entry: &CacheEntry, users: &mut Users) -> Result<Option<u64>, StorageError> {
        let lock = self.layout.tree_lock(&entry.tree);
        let Some(guard) = Lock::try_exclusive(&lock).map_err(|e| cache_error(&lock, &e))? else {
            self.cleaned.in_use += 1;
            return Ok(None);
        };
        let path = self.layout.tree(&entry.tree);
        if !self.dry_run {
            for uri in &entry.uris {
                remove(&self.layout.reference(uri))?;
            }
            fs::remove_dir_all(&path).map_err(|e| cache_error(&path, &e))?;
            guard.remove().map_err(|e| cache_error(&lock, &e))?;
        }
        self.cleaned.removed += 1;
        let mut freed = 0;
        let mut unused = Vec::new();
        for (blob, trees) in &mut users.0 {
            if trees.remove(&entry.tree) && trees.is_empty() {
                unused.push(blob.clone());
            }
        }
        for blob in unused {
            freed += self.remove_blob(&self.layout.blob(&blob))?;
        }
        Ok(Some(freed))
    }

    fn remove_blob(&mut self, blob: &Path) -> Result<u64, StorageError> {
        let freed = bytes(blob);
        self.cleaned.freed_bytes += freed;
        if !self.dry_run {
            remove(blob)?;
        }
        Ok(freed)
    }
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

#[cfg(unix)]
fn number(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|m| m.ino())
}

/// Elsewhere trees are not told apart from copies: blobs go as soon as room is needed.
#[cfg(not(unix))]
fn number(_: &Path) -> Option<u64> {
    None
}

fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(cache_error(path, &e)),
        _ => Ok(()),
    }
}

/// What lies in a directory, in order of names; nothing if it is not there.
fn files(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    match crate::fs::entries(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        done => done.map_err(|e| cache_error(dir, &e)),
    }
}
