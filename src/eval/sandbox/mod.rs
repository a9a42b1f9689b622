//! Runs one untrusted Python program under limits and says how it ended.
//!
//! The interface knows nothing of benchmarks: a source text and standard input go in, an exit
//! status and two capped byte strings come out. [`ProcessRunner`] is the "process" level: a
//! process, session and group of its own, resource limits, an environment without anything of
//! the caller's, a temporary working directory.
//!
//! What the process level does **not** protect against: the program can use the network, can read
//! (and, with the caller's rights, write) the file system, can see other processes of the same
//! user, and a descendant that opens a session of its own survives the group kill. It bounds what
//! a careless program costs; it does not contain a hostile one. Whoever evaluates a model that
//! they do not trust should do it in a container or a virtual machine.

mod process;

pub use process::ProcessRunner;

use std::time::Duration;

/// What one program may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Time on the clock from start to kill.
    pub wall: Duration,
    /// Processor time of one process, rounded up to whole seconds; under load it ends late, which
    /// is why `wall` is there as well.
    pub cpu: Duration,
    /// Address space of one process, in bytes. A program that forks has this much each time.
    pub memory_bytes: u64,
    /// Bytes kept of standard output and of standard error, each; one more ends the program.
    pub output_bytes: usize,
    /// Size of any file that the program writes, in bytes.
    pub file_bytes: u64,
    /// Processes and threads. The kernel counts all of the *user's* against it, not the program's
    /// alone, and does not bind root.
    pub processes: u64,
}

impl Default for Limits {
    /// 10 s on the clock, 5 s of processor, 1 GiB, 1 MiB of output, files of 16 MiB, 1024 tasks.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(5),
            memory_bytes: 1 << 30,
            output_bytes: 1 << 20,
            file_bytes: 16 << 20,
            processes: 1024,
        }
    }
}

/// A Python program and what it finds on its standard input.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Python source. The program can read it back, so no secret belongs here.
    pub source: &'a str,
    /// Standard input, given as a regular file without a name (programs may ask for its size);
    /// empty means `/dev/null`.
    pub stdin: &'a [u8],
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exit(i32),
    /// It was ended by this signal, which was not ours.
    Signal(i32),
    /// It used up its time, on the clock or on the processor.
    TimedOut,
    /// It wrote more than [`Limits::output_bytes`].
    OutputLimit,
}

/// What came out of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Standard output, at most [`Limits::output_bytes`].
    pub stdout: Vec<u8>,
    /// Standard error, at most [`Limits::output_bytes`].
    pub stderr: Vec<u8>,
    /// Seconds on the clock.
    pub seconds: f64,
}

/// Runs programs. One runner serves many threads at once.
pub trait Runner: Send + Sync {
    /// Runs `program` to its end or to its first limit.
    ///
    /// # Errors
    /// Only when the sandbox itself fails (no temporary directory, no process to be had); what
    /// the program does wrong is in the [`Outcome`].
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError>;

    /// How strong the isolation is, one word: `process` for [`ProcessRunner`].
    fn level(&self) -> &str;

    /// Version of the interpreter, such as `3.11.7`.
    fn python(&self) -> &str;
}

/// The sandbox itself failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No usable interpreter.
    #[error("cannot run Python as `{command}`: {reason}; install Python 3 or put python3 on the PATH")]
    NoPython {
        /// What was tried.
        command: String,
        /// What happened.
        reason: String,
    },
    /// A system call around the program failed.
    #[error("the sandbox could not {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}
