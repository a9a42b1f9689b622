//! A process of the program: started, disturbed, waited for, and what it said.

use crate::{problem::Problem, system};
use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// A run takes some seconds, and on a busy machine some more; a process that takes longer hangs.
pub const LONGEST: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(2);

/// A process that runs. On drop it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
    started: Instant,
    /// Largest address space that was seen, in bytes.
    pub address_space: u64,
}

/// A process that ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub said: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Running {
    /// Starts the command with standard error in the file `log`, unless the caller has put it elsewhere
    /// (`own_streams`).
    pub fn start(command: &mut Command, log: PathBuf, own_streams: bool) -> Result<Self, Problem> {
        if !own_streams {
            let file = File::create(&log).map_err(Problem::io("making", &log))?;
            command.stdout(Stdio::null()).stderr(file);
        }
        system::tie(command.stdin(Stdio::null()));
        let program = PathBuf::from(command.get_program());
        Ok(Self {
            child: command.spawn().map_err(Problem::io("starting", &program))?,
            log,
            started: Instant::now(),
            address_space: 0,
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&mut self, signal: i32) -> Result<(), Problem> {
        if self.has_ended()?.is_none() {
            system::signal(self.pid(), signal).map_err(Problem::io("sending a signal to", &self.log))?;
        }
        Ok(())
    }

    fn has_ended(&mut self) -> Result<Option<ExitStatus>, Problem> {
        self.child.try_wait().map_err(Problem::io("waiting for", &self.log))
    }

    /// Lets it run until `moment` after its start, or until `reached` says so; true if it ended before that.
    pub fn until(&mut self, moment: Duration, mut reached: impl FnMut() -> bool) -> Result<bool, Problem> {
        while self.started.elapsed() < moment && !reached() {
            if self.has_ended()?.is_some() {
                return Ok(true);
            }
            self.look();
            sleep(POLL);
        }
        Ok(self.has_ended()?.is_some())
    }

    fn look(&mut self) {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        let kib = peak.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        self.address_space = self.address_space.max(kib.unwrap_or_default() << 10);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It hangs: it is killed then.
    pub fn wait(mut self) -> Result<Ended, Problem> {
        let until = self.started.elapsed() + LONGEST;
        if !self.until(until, || false)? {
            return Problem::wrong(format!(
                "it did not end within {} s{}",
                LONGEST.as_secs(),
                last_words(&self.said())
            ));
        }
        self.end()
    }

    /// Kills it, if it has not ended yet.
    pub fn kill(mut self) -> Result<Ended, Problem> {
        self.signal(libc::SIGKILL)?;
        self.end()
    }

    fn end(&mut self) -> Result<Ended, Problem> {
        let status = self.child.wait().map_err(Problem::io("waiting for", &self.log))?;
        Ok(Ended {
            status,
            said: self.said(),
            seconds: self.started.elapsed().as_secs_f64(),
        })
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Whether it ended as one that did what it was asked to.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Its error in words; empty if it said none.
    pub fn error(&self) -> &str {
        let is_error = |line: &&str| line.starts_with("error: ");
        self.said.lines().rfind(is_error).unwrap_or_default()
    }

    /// Ended by this signal.
    pub fn is_by(&self, signal: i32) -> bool {
        self.status.signal() == Some(signal)
    }

    /// Checks that it neither panicked nor crashed.
    ///
    /// # Errors
    /// The last words of one that did.
    pub fn check_sound(&self) -> Result<(), Problem> {
        let crashed = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGABRT].map(|signal| self.is_by(signal));
        if self.status.code() == Some(101) || self.said.contains("panicked at") || crashed.contains(&true) {
            return Problem::wrong(format!("it crashed ({}){}", self.status, last_words(&self.said)));
        }
        Ok(())
    }

    /// Checks that it ended with success.
    ///
    /// # Errors
    /// Its last words, if it did not.
    pub fn check_success(&self, what: &str) -> Result<(), Problem> {
        self.check_sound()?;
        if self.is_success() {
            return Ok(());
        }
        Problem::wrong(format!("{what} ended with {}{}", self.status, last_words(&self.said)))
    }

    /// Checks that it failed with a sentence that names one of the causes.
    ///
    /// # Errors
    /// It succeeded, crashed, or said something else.
    pub fn check_refusal(&self, causes: &[String]) -> Result<(), Problem> {
        self.check_sound()?;
        let is_exit = matches!(self.status.code(), Some(1 | 2));
        let error = self.error();
        if is_exit && causes.iter().any(|cause| error.contains(cause.as_str())) {
            return Ok(());
        }
        Problem::wrong(format!(
            "it ended with {} and none of {causes:?} in its error{}",
            self.status,
            last_words(&self.said)
        ))
    }
}

/// The end of what it said, as the end of a sentence.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().rev().take(4).collect();
    let words: Vec<&str> = lines.into_iter().rev().collect();
    let words: String = words.join(" | ").chars().take(900).collect();
    if words.is_empty() {
        " and said nothing".into()
    } else {
        format!("; it said: {words}")
    }
}

/// Lines of a file; 0 if there is none.
pub fn lines(path: &Path) -> usize {
    let text = fs::read(path).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(&mut command, dir.join("log"), false).expect("a shell")
    }

    #[test]
    fn a_refusal_is_one_sentence_with_the_cause_and_no_crash() {
        let dir = tempfile::tempdir().expect("a directory");
        let causes = ["disk is full".to_owned()];
        let refused = |script: &str| shell(dir.path(), script).wait().expect("an end").check_refusal(&causes);
        assert!(refused("echo 'error: the disk is full' >&2; exit 1").is_ok());
        assert!(
            refused("echo 'error: the disk is full' >&2").is_err(),
            "success is none"
        );
        assert!(refused("echo 'the disk is full' >&2; exit 1").is_err(), "no error");
        assert!(refused("echo 'error: something' >&2; exit 1").is_err(), "another cause");
        assert!(refused("echo 'error: disk is full, panicked at x' >&2; exit 1").is_err());
        assert!(refused("echo 'error: the disk is full' >&2; kill -SEGV $$").is_err());
    }

    #[test]
    fn moments_conditions_and_kills() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut running = shell(dir.path(), "sleep 60");
        assert!(!running.until(Duration::from_millis(20), || false).expect("a look"));
        assert!(!running.until(LONGEST, || true).expect("a look"));
        assert!(running.address_space > 0);
        assert!(running.kill().expect("an end").is_by(libc::SIGKILL));
        let mut running = shell(dir.path(), "exit 3");
        assert!(running.until(LONGEST, || false).expect("a look"));
        let ended = running.wait().expect("an end");
        assert_eq!(ended.status.code(), Some(3));
        let error = ended.check_success("a shell").expect_err("it failed").to_string();
        assert!(error.contains("said nothing"), "{error}");
    }
}
