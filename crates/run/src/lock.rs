//! One process at a time works on a run.
//!
//! The lock is the kernel's, on the file `.lock` of the run's directory: it ends with its process, however that ends.
//! The file's text names its holder (process, host, the host's boot), for messages. A text that is still there when
//! the kernel gives the lock to another process was left by one that was killed: the lock is taken over, and that is
//! said.
//!
//! On NFS the kernel's lock holds among machines where the server has locks (NFS 4 has, NFS 3 needs `lockd`). A file
//! system without locks leaves the text alone: a holder on this host that is alive is respected, one on another host
//! can't be asked, and two processes that start in the same instant are not told apart. [`RunLock::note`] says so.

use crate::RunError;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};
use wmtp_base::fs::Lock;

/// The name of the file.
pub(crate) const NAME: &str = ".lock";

/// How often the text of a lock that is held is read again, where it names nobody yet: its holder writes it right
/// after it has the lock.
const READINGS: usize = 25;
/// The time between two of these readings.
const BETWEEN: Duration = Duration::from_millis(10);

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// The machine's boot: after another, no process of this number is the holder.
    boot: String,
}

impl Holder {
    fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).map_or(String::new(), |text| text.trim().to_owned());
        Self {
            pid: std::process::id(),
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// What the lock's file says; None if it names nobody.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    fn name(&self) -> String {
        let here = Self::here();
        let host = match self.host.as_str() {
            "" => "an unknown host",
            host => host,
        };
        match self.host == here.host && self.boot != here.boot {
            true => format!("process {} on {host}, before that was started anew,", self.pid),
            false => format!("process {} on {host}", self.pid),
        }
    }

    /// Whether it is certain that the process is gone: one of this host, which has no such process or was started
    /// anew since.
    fn is_gone(&self) -> bool {
        let here = Self::here();
        let asked = Path::new("/proc/self").exists() && self.host == here.host;
        asked && (self.boot != here.boot || !PathBuf::from(format!("/proc/{}", self.pid)).exists())
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The right to work on a run; given back on drop.
#[derive(Debug)]
pub struct RunLock {
    held: Held,
    /// What whoever takes it should be told: it was taken over from a process that was killed, or the file system
    /// has no locks.
    pub note: Option<String>,
}

/// What stands for the lock.
#[derive(Debug)]
enum Held {
    /// The kernel's lock.
    Kernel(Lock),
    /// The text of the file, on a file system without locks.
    Text(PathBuf),
}

impl RunLock {
    /// Takes the lock of the run in `dir`, without waiting.
    ///
    /// # Errors
    /// [`RunError::Locked`] while another process holds it; what the file system says.
    pub fn take(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(NAME);
        let lock = match Lock::try_exclusive(&path) {
            Ok(lock) => lock,
            Err(error) if has_no_locks(&error) => return Self::without_locks(dir, &error),
            Err(error) => return Err(RunError::io("locking", &path)(error)),
        };
        let Some(lock) = lock else {
            return Err(locked(dir, holder_of(&path).as_ref()));
        };
        let note = Holder::read(&path).map(|before| taken_over(dir, &before));
        // Only for others' messages.
        let _ = lock.set_text(&Holder::here().text());
        Ok(Self {
            held: Held::Kernel(lock),
            note,
        })
    }

    /// The same by the file's text alone.
    fn without_locks(dir: &Path, error: &io::Error) -> Result<Self, RunError> {
        let path = dir.join(NAME);
        let before = Holder::read(&path);
        if let Some(holder) = before.as_ref().filter(|holder| !holder.is_gone()) {
            let here = Holder::here();
            if (&holder.host, &holder.boot) == (&here.host, &here.boot) {
                return Err(locked(dir, Some(holder)));
            }
        }
        crate::write_atomically(&path, Holder::here().text().as_bytes())?;
        let before = before.map_or(String::new(), |holder| format!("{}; ", taken_over(dir, &holder)));
        Ok(Self {
            held: Held::Text(path),
            note: Some(format!(
                "{before}the file system of `{}` has no locks ({error}): take care that no process on another machine works on the run",
                dir.display()
            )),
        })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        match &self.held {
            Held::Kernel(lock) => drop(lock.set_text("")),
            Held::Text(path) => drop(fs::write(path, "")),
        }
    }
}

fn locked(dir: &Path, holder: Option<&Holder>) -> RunError {
    RunError::Locked {
        dir: dir.to_owned(),
        holder: holder.map_or("another process".to_owned(), Holder::name),
    }
}

/// Who holds a lock that is held: the text may still be that of a killed process before the present holder, or empty.
fn holder_of(path: &Path) -> Option<Holder> {
    for _ in 0..READINGS {
        if let Some(holder) = Holder::read(path).filter(|holder| !holder.is_gone()) {
            return Some(holder);
        }
        sleep(BETWEEN);
    }
    None
}

fn taken_over(dir: &Path, before: &Holder) -> String {
    format!(
        "took over the lock of `{}` from {}, which ended without giving it back",
        dir.display(),
        before.name()
    )
}

fn has_no_locks(error: &io::Error) -> bool {
    const NO_LOCKS_LEFT: i32 = 37; // Linux's ENOLCK
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(NO_LOCKS_LEFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that no process has: Linux's are at most 2^22.
    const NOBODY: u32 = 99_999_999;

    fn leave(dir: &Path, holder: &Holder) {
        fs::write(dir.join(NAME), holder.text()).unwrap();
    }

    #[test]
    fn one_at_a_time_and_the_holder_is_named_with_its_host() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path()).unwrap();
        assert_eq!(first.note, None);
        let error = RunLock::take(dir.path()).unwrap_err().to_string();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let holder = format!("process {} on {} works on the run", std::process::id(), host.trim());
        assert!(error.contains(&holder), "{error}");
        drop(first);
        assert_eq!(RunLock::take(dir.path()).unwrap().note, None);
    }

    #[test]
    fn the_lock_of_a_process_that_was_killed_is_taken_over_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = Holder {
            pid: NOBODY,
            ..Holder::here()
        };
        let note = |holder: &Holder| {
            leave(dir.path(), holder);
            RunLock::take(dir.path()).unwrap().note.clone().unwrap()
        };
        let said = note(&holder);
        assert!(said.starts_with("took over the lock of `"), "{said}");
        let from = format!(
            "from process {NOBODY} on {}, which ended without giving it back",
            holder.host
        );
        assert!(said.ends_with(&from), "{said}");
        holder.boot = "another".into();
        assert!(note(&holder).contains(", before that was started anew,"));
        holder.host = "elsewhere".into();
        assert!(note(&holder).contains("process 99999999 on elsewhere, which ended"));
    }

    #[test]
    fn who_has_just_taken_the_lock_is_named_and_not_the_killed_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        let killed = Holder {
            pid: NOBODY,
            ..Holder::here()
        };
        lock.set_text(&killed.text()).unwrap();
        let asked = std::thread::spawn({
            let dir = dir.path().to_owned();
            move || RunLock::take(&dir).unwrap_err().to_string()
        });
        sleep(BETWEEN * 5);
        lock.set_text(&Holder::here().text()).unwrap();
        let said = asked.join().unwrap();
        assert!(said.contains(&format!("process {} on", std::process::id())), "{said}");
    }

    #[test]
    fn without_locks_a_process_that_lives_here_is_respected_and_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let none = io::Error::from(io::ErrorKind::Unsupported);
        let take = || RunLock::without_locks(dir.path(), &none);
        let first = take().unwrap();
        assert!(
            first.note.as_ref().unwrap().contains("has no locks"),
            "{:?}",
            first.note
        );
        assert!(matches!(take(), Err(RunError::Locked { .. })));
        drop(first);
        let gone = Holder {
            pid: NOBODY,
            ..Holder::here()
        };
        leave(dir.path(), &gone);
        let note = take().unwrap().note.clone().unwrap();
        assert!(
            note.starts_with("took over the lock") && note.contains("has no locks"),
            "{note}"
        );
        let elsewhere = Holder {
            host: "elsewhere".into(),
            ..Holder::here()
        };
        leave(dir.path(), &elsewhere);
        assert!(take().unwrap().note.clone().unwrap().contains("on elsewhere"));
    }
}
