//! One process of an arm: start, poll, graceful stop, last error.

use super::SweepError;
use crate::{fs::try_lock, stop::STOP_AT_EOF};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The log of an arm, locked by the sweep that runs it.
///
/// The child writes to the same open file description: the lock is held while the child lives, even if the
/// sweep was killed. No other sweep runs the arm meanwhile.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens and locks it; None while another process has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn take(path: &Path) -> Result<Option<Self>, SweepError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(SweepError::io("making", parent))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(SweepError::io("opening", path))?;
        let path = path.to_owned();
        let locked = try_lock(&file).map_err(SweepError::io("locking", &path))?;
        Ok(locked.then_some(Self { file, path }))
    }

    fn share(&self) -> Result<Stdio, SweepError> {
        let file = self.file.try_clone().map_err(SweepError::io("opening", &self.path))?;
        Ok(file.into())
    }

    fn say(&mut self, line: &str) -> Result<(), SweepError> {
        writeln!(self.file, "{line}").map_err(SweepError::io("writing", &self.path))
    }
}

/// The last `error: …` of a log, without that word.
pub fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    // Output before the last start is another process's.
    let last = text.rsplit("\n$ wmtp ").next().unwrap_or(&text);
    let line = last.lines().rev().find_map(|line| line.strip_prefix("error: "))?;
    Some(line.to_owned())
}

/// This program: the same file even if another has replaced it since.
pub fn program() -> PathBuf {
    let own = Path::new("/proc/self/exe");
    if own.exists() {
        return own.to_owned();
    }
    std::env::current_exe().unwrap_or_else(|_| "wmtp".into())
}

/// A process of an arm.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Closing it requests a graceful stop; the system closes it if the sweep dies.
    stdin: Option<ChildStdin>,
    asked: Option<Instant>,
    log: Log,
}

impl Process {
    /// Time allowed for saving a checkpoint after a stop request.
    const GRACE: Duration = Duration::from_secs(120);

    /// Starts `wmtp` with these arguments; `threads` limits its number of threads.
    ///
    /// # Errors
    /// The program can't be started, the log can't be written.
    pub fn start(args: &[String], threads: Option<usize>, mut log: Log) -> Result<Self, SweepError> {
        log.say(&format!("\n$ wmtp {}", super::jobs::shell_line(args)))?;
        let mut command = Command::new(program());
        command
            .args(args)
            .env(STOP_AT_EOF, "1")
            .stdin(Stdio::piped())
            .stdout(log.share()?)
            .stderr(log.share()?);
        if let Some(threads) = threads.filter(|_| std::env::var_os("RAYON_NUM_THREADS").is_none()) {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // A terminal's Ctrl-C reaches the sweep alone, which then stops its children.
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(SweepError::io("starting", &program()))?;
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            asked: None,
            log,
        })
    }

    /// Its status once it has ended. Kills it if a stop request has timed out.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>, SweepError> {
        if self.asked.is_some_and(|at| at.elapsed() > Self::GRACE) {
            // It may have ended meanwhile.
            let _ = self.child.kill();
        }
        self.child
            .try_wait()
            .map_err(SweepError::io("waiting for", &self.log.path))
    }

    /// Requests a graceful stop: save a checkpoint and exit.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
        self.asked.get_or_insert_with(Instant::now);
    }

    /// The log, still locked, for the arm's next process.
    pub fn into_log(self) -> Log {
        self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_held_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/a.log");
        let held = Log::take(&path).unwrap().unwrap();
        assert!(Log::take(&path).unwrap().is_none());
        // A child's output keeps the lock, as a clone of the file does here.
        let shared = held.file.try_clone().unwrap();
        drop(held);
        assert!(Log::take(&path).unwrap().is_none());
        drop(shared);
        assert!(Log::take(&path).unwrap().is_some());
    }

    #[test]
    fn the_last_error_is_that_of_the_last_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "\n$ wmtp train\nerror: one\nerror: two\n").unwrap();
        assert_eq!(last_error(&path).as_deref(), Some("two"));
        std::fs::write(&path, "\n$ wmtp train\nerror: one\n\n$ wmtp train\nstep 1\n").unwrap();
        assert_eq!(last_error(&path), None);
        assert_eq!(last_error(&dir.path().join("none.log")), None);
    }
}
