//! Locks between processes: the kernel lets go of them when their holder ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(in crate::storage) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits until nobody else holds it.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock().map(|()| true)).and_then(|lock| lock.ok_or_else(gone))
    }

    /// Waits until nobody holds it exclusively.
    pub fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock_shared().map(|()| true)).and_then(|lock| lock.ok_or_else(gone))
    }

    /// None if somebody holds it.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::take(path, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        })
    }

    fn take(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            if !lock(&file)? {
                return Ok(None);
            }
            // Whoever held it may have removed the file: then this lock guards nothing.
            if is_at(&file, path)? {
                let path = path.to_owned();
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// Notes the time in the lock's file.
    pub fn touch(&self) -> io::Result<()> {
        self.file.set_modified(SystemTime::now())
    }

    /// Removes the file and lets go; only for who holds it exclusively.
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
