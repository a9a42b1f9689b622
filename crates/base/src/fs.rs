//! Files that are replaced atomically, and locks between processes.

use serde::de::DeserializeOwned;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufWriter, Seek, Write},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::SystemTime,
};
use tempfile::NamedTempFile;

/// Whether a replaced file is on the disk before it gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// `fsync` before the rename: after a power failure the file is the old one or the new one.
    Yes,
    /// No `fsync`: survives the end of the process only. For what can be computed again.
    No,
}

/// Replaces `path` by `bytes`, with `fsync`: see [`replace`].
///
/// # Errors
/// What the file system says; the temporary file is removed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, Fsync::Yes, |out| out.write_all(bytes))
}

/// Replaces `path` by what `fill` writes: to a temporary file `.NAME.tmp-XXXXXX` in the same folder,
/// which is then renamed. Readers see the old content or the new one, never a part.
///
/// # Errors
/// What `fill` or the file system says; the temporary file is removed.
pub fn replace(path: &Path, fsync: Fsync, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    temporary(path, fsync, fill)?.persist(path)?;
    Ok(())
}

/// Writes `path` unless it exists; an existing file is kept.
///
/// # Errors
/// As for [`replace`].
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match temporary(path, Fsync::Yes, |out| out.write_all(bytes))?.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

fn temporary(
    path: &Path,
    fsync: Fsync,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let prefix = format!(".{name}.tmp-");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    // As any other file: the umask decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
    let mut out = BufWriter::new(file.as_file_mut());
    fill(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if fsync == Fsync::Yes {
        file.as_file().sync_all()?;
    }
    Ok(file)
}

/// Brings a folder's entries to the disk: after this a renamed file keeps its name.
///
/// # Errors
/// What the file system says.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The paths of a directory's entries, sorted.
///
/// # Errors
/// What the file system says.
pub fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Reads a JSON file.
///
/// # Errors
/// What the file system or the parser says.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Takes the exclusive lock of an open file; false while another process holds it. The kernel releases
/// it when the last handle is closed, however its process ends.
///
/// # Errors
/// What the file system says.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// An open file whose exclusive lock is released on drop: at once, even while a process that another
/// thread has forked still has a copy of the handle, which it loses when it executes its program.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// None while another process holds the lock: see [`try_lock`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        Ok(try_lock(&file)?.then(|| Self(file)))
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // closing releases it too, a little later
    }
}

/// A lock file; the lock is released on drop.
#[derive(Debug)]
pub struct Lock {
    file: LockedFile,
    path: PathBuf,
}

impl Lock {
    /// Waits until no other process holds it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock().map(|()| true)).and_then(|lock| lock.ok_or_else(gone))
    }

    /// Waits until no process holds it exclusively.
    ///
    /// # Errors
    /// What the file system says.
    pub fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock_shared().map(|()| true)).and_then(|lock| lock.ok_or_else(gone))
    }

    /// None while another process holds it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::take(path, try_lock)
    }

    fn take(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            if !lock(&file)? {
                return Ok(None);
            }
            // The previous holder may have removed the file: then this lock guards nothing.
            if is_at(&file, path)? {
                return Ok(Some(Self {
                    file: LockedFile(file),
                    path: path.to_owned(),
                }));
            }
        }
    }

    /// Sets the file's modification time to now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn touch(&self) -> io::Result<()> {
        self.file.set_modified(SystemTime::now())
    }

    /// Makes `text` the file's content.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_text(&self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        let mut file = &*self.file;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }

    /// Removes the file and releases the lock, which must be exclusive.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn gone() -> io::Error {
    io::Error::other("the lock was not taken")
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Elsewhere an open file can't be removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_copy_of_the_handle_does_not_hold_a_lock_that_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // What a process has between fork and exec.
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(lock);
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        drop((copy, lock));
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"old").unwrap();
        let error = replace(&path, Fsync::No, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("full"))
        });
        assert_eq!(error.unwrap_err().to_string(), "full");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.json"]);
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_new(&path, b"first").unwrap();
        write_new(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let (plain, replaced) = (dir.path().join("plain"), dir.path().join("replaced"));
        std::fs::write(&plain, "").unwrap();
        write(&replaced, b"").unwrap();
        assert_eq!(mode(&replaced), mode(&plain));
    }

    #[test]
    fn one_holds_it_or_many_share_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::shared(&path).unwrap();
        let second = Lock::shared(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((first, second));
        let alone = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(alone);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn who_waited_for_a_removed_lock_gets_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::exclusive(&path).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::exclusive(&path).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        lock.remove().unwrap();
        let held = waiting.join().unwrap();
        assert!(path.exists(), "the lock that is held can be seen by others");
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
    }
}
