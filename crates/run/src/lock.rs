//! One process at a time works on a run.
//!
//! The lock is the kernel's, on the file `.lock` of the run's directory: it ends with its process, however that ends.
//! What is in the file tells others who it is. On NFS the lock holds among machines where the server has locks (NFS
//! 4 has); a file system without locks is named, and the work goes on.

use crate::RunError;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};
use wmtp_base::fs::Lock;

/// The name of the file.
const NAME: &str = ".lock";

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
        let read = |path: &str| std::fs::read_to_string(path).map_or(String::new(), |text| text.trim().to_owned());
        Self {
            pid: std::process::id(),
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
        }
    }

    fn name(&self) -> String {
        let here = Self::here();
        match (self.host == here.host, self.boot == here.boot) {
            (true, true) => format!("process {}", self.pid),
            (true, false) => format!("process {} before the machine was started anew", self.pid),
            (false, _) => format!("process {} on {}", self.pid, self.host),
        }
    }
}

/// The right to work on a run; given back on drop.
#[derive(Debug)]
pub struct RunLock {
    lock: Option<Lock>,
    /// What whoever takes it should be told: a process that held it ended without giving it back, or there are no
    /// locks.
    pub note: Option<String>,
}

impl RunLock {
    /// Takes the lock of the run in `dir`.
    ///
    /// # Errors
    /// [`RunError::Locked`] while another process holds it; what the file system says.
    pub fn take(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(NAME);
        let lock = match Lock::try_exclusive(&path) {
            Ok(lock) => lock,
            Err(error) if has_no_locks(&error) => {
                return Ok(Self {
                    lock: None,
                    note: Some(format!(
                        "the file system of `{}` has no locks ({error}): take care that one process alone works on the run",
                        dir.display()
                    )),
                });
            }
            Err(error) => return Err(RunError::io("locking", &path)(error)),
        };
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let holder = serde_json::from_str::<Holder>(&before).ok();
        let Some(lock) = lock else {
            return Err(RunError::Locked {
                dir: dir.to_owned(),
                holder: holder.map_or("another process".to_owned(), |holder| holder.name()),
            });
        };
        let note = holder.map(|holder| format!("{} worked on this run and ended without an end", holder.name()));
        let here = serde_json::to_string(&Holder::here()).unwrap_or_default();
        // Only for others' messages.
        let _ = lock.set_text(&here);
        Ok(Self { lock: Some(lock), note })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _ = lock.set_text("");
        }
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    const NO_LOCKS_LEFT: i32 = 37; // Linux's ENOLCK
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(NO_LOCKS_LEFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path()).unwrap();
        assert_eq!(first.note, None);
        let error = RunLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert_eq!(RunLock::take(dir.path()).unwrap().note, None);
    }

    #[test]
    fn who_ended_without_an_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = Holder::here();
        holder.pid = 7;
        let leave = |holder: &Holder| {
            std::fs::write(dir.path().join(NAME), serde_json::to_string(holder).unwrap()).unwrap();
            RunLock::take(dir.path()).unwrap().note.clone().unwrap()
        };
        assert_eq!(leave(&holder), "process 7 worked on this run and ended without an end");
        holder.boot = "another".into();
        assert!(leave(&holder).contains("started anew"));
        holder.host = "elsewhere".into();
        assert!(leave(&holder).contains("process 7 on elsewhere"));
    }
}
