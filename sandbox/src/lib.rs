//! Runs untrusted Python programs, each by itself under limits, and says how it ended. Linux only.
//!
//! The interface knows nothing of what the programs are for: a source text and standard input go
//! in, an exit status and two capped byte strings come out. [`Sandbox`] is the one implementation.
//! What holds a program, from the outside in:
//!
//! | layer | what it takes away |
//! |---|---|
//! | process | environment, open files, the caller's session and process group; it dies with the caller |
//! | `rlimits` | address space, processor, size of a file, number of open files, core dumps; all capabilities |
//! | `landlock-N` | every file but the interpreter's own (read-only) and one temporary directory; N is the kernel's version of Landlock |
//! | `seccomp` | every system call that Python's standard library can do without: sockets, processes, signals to others, namespaces, `ptrace`, ... |
//! | `tmpfs` | files and bytes beyond the limits: the temporary directory is a file system of its own, where the host lets one be mounted |
//! | watching | clock, output, threads, locks; where there is no `tmpfs`, files and bytes in the temporary directory |
//!
//! A host that lacks a layer is refused ([`SandboxError::Layer`]), unless the caller says
//! [`Policy::UnsafeExec`]; [`Runner::level`] then says what is missing. What none of this promises
//! is in `docs/sandbox.md`: a flaw of the kernel, timing, and that a program can ask whether a path
//! exists, though not read it. `tmpfs` is not required.

use std::time::Duration;

mod pool;
pub use pool::{map_bounded, run_all};

#[cfg(target_os = "linux")]
mod bpf;
#[cfg(target_os = "linux")]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod interpreter;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod runner;
#[cfg(target_os = "linux")]
mod scratch;
mod starts;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod volume;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(target_os = "linux")]
pub use runner::Sandbox;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::Sandbox;

/// What one program may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Wall-clock time from start to kill.
    pub wall: Duration,
    /// CPU time of all threads together, rounded up to whole seconds. Under load it ends late, which is why
    /// `wall` limits the program as well.
    pub cpu: Duration,
    /// Address space in bytes. A program has one process, so this is all of its memory.
    pub memory_bytes: u64,
    /// Bytes kept of standard output and of standard error, each; one more ends the program.
    pub output_bytes: usize,
    /// Size of any one file that the program writes, in bytes; the kernel holds it exactly.
    pub file_bytes: u64,
    /// Bytes in the temporary directory, all files together, in pages of 4096. The kernel holds them where
    /// [`Runner::layers`] has `tmpfs`, with one page more; elsewhere they are looked at every few milliseconds, and
    /// what is written between two looks comes on top.
    pub disk_bytes: u64,
    /// Files and directories that the program may make in the temporary directory, held or looked at like `disk_bytes`.
    pub files: u64,
    /// Threads alive at once, looked at every few milliseconds.
    pub threads: u64,
    /// Locks on files held at once, looked at like `threads`.
    pub locks: u64,
}

impl Default for Limits {
    /// 10 s of wall-clock time, 5 s of CPU time, 1 GiB, 1 MiB of output, files of 16 MiB and 64 MiB
    /// together, 4096 files, 256 threads, 1024 locks.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(5),
            memory_bytes: 1 << 30,
            output_bytes: 1 << 20,
            file_bytes: 16 << 20,
            disk_bytes: 64 << 20,
            files: 4096,
            threads: 256,
            locks: 1024,
        }
    }
}

/// A Python program and what it finds on its standard input.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Python source. The program can read it back, so no secret belongs here.
    pub source: &'a str,
    /// Standard input, given as a regular file without a name (programs may ask for its size) that
    /// cannot be written; empty means `/dev/null`.
    pub stdin: &'a [u8],
}

/// A file that a program finds in its working directory.
#[derive(Clone, Copy, Debug)]
pub struct ExtraFile<'a> {
    /// A plain name, without `/`; `main.py` is the program itself.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// Two programs that talk with each other: what each writes to standard output is the other's standard input. There is
/// nothing else between them. Both begin without Python's module `site`, that is without the packages that are
/// installed, for the time that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// It is killed when the second ends.
    pub first: PairSide<'a>,
    /// Both are over when it ends.
    pub second: PairSide<'a>,
}

/// One of two programs that talk.
#[derive(Clone, Copy, Debug)]
pub struct PairSide<'a> {
    /// Python source, as of [`Program`].
    pub source: &'a str,
    /// What it finds in its working directory.
    pub files: &'a [ExtraFile<'a>],
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exit(i32),
    /// It was ended by this signal; ours (SIGKILL) only if [`Outcome::breach`] says so.
    Signal(i32),
    /// It used up its wall-clock or CPU time.
    TimedOut,
    /// It wrote more than [`Limits::output_bytes`].
    OutputLimit,
}

/// The watched limit for which a program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// More than [`Limits::disk_bytes`].
    Disk,
    /// More than [`Limits::files`], or directories nested beyond use.
    Files,
    /// More than [`Limits::threads`].
    Threads,
    /// More than [`Limits::locks`].
    Locks,
}

/// What came out of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Set where the status is [`Status::Signal`] because a watched limit was passed.
    pub breach: Option<Breach>,
    /// Standard output, at most [`Limits::output_bytes`].
    pub stdout: Vec<u8>,
    /// Standard error, at most [`Limits::output_bytes`].
    pub stderr: Vec<u8>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Runs programs. One runner serves many threads at once.
pub trait Runner: Send + Sync {
    /// Runs `program` to its end or to its first limit.
    ///
    /// # Errors
    /// Only when the sandbox itself fails (no temporary directory, no process); what
    /// the program does wrong is in the [`Outcome`].
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError>;

    /// Runs two programs, each behind layers of its own and under `limits`. The outputs of the outcomes are empty but
    /// for standard error.
    ///
    /// # Errors
    /// As [`Runner::run`].
    fn run_pair(&self, pair: &Pair<'_>, limits: &Limits) -> Result<[Outcome; 2], SandboxError>;

    /// How strong the isolation is, such as `landlock-7+seccomp+rlimits`; it begins with `unsafe:`
    /// where a required layer is missing.
    fn level(&self) -> &str;

    /// The layers of [`Runner::level`], one by one.
    fn layers(&self) -> &[String] {
        &[]
    }

    /// Version of the interpreter, such as `3.11.7`.
    fn python(&self) -> &str;
}

/// What keeps the program from the file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Landlock where the kernel has it, else bubblewrap where that works.
    #[default]
    Auto,
    /// Landlock or nothing.
    Landlock,
    /// `bwrap`, found on the PATH: a file system, network, process table and IPC of its own.
    Bubblewrap,
}

/// What to do on a host that lacks a required layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Refuse with [`SandboxError::Layer`].
    #[default]
    Refuse,
    /// Run with the layers that there are. Programs may then read, write and reach whatever the
    /// caller may: only for programs that the caller trusts or a machine that nobody will miss.
    UnsafeExec,
}

/// How a [`Sandbox`] is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interpreter, a path or a name to look up on the PATH. What is started later is the
    /// executable that it names itself, so that a wrapper such as pyenv's runs once, with its environment.
    pub python: std::path::PathBuf,
    /// What keeps programs from the file system.
    pub isolation: Isolation,
    /// What to do where a layer is missing.
    pub policy: Policy,
    /// Files and directories that programs may read, in addition to the interpreter's own.
    pub readable: Vec<std::path::PathBuf>,
    /// Where the temporary directories are made.
    pub temp: std::path::PathBuf,
    /// Whether the temporary directories are file systems of their own where the host lets them be mounted;
    /// otherwise they are watched.
    pub mount: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            python: "python3".into(),
            isolation: Isolation::Auto,
            policy: Policy::Refuse,
            readable: Vec::new(),
            temp: std::env::temp_dir(),
            mount: true,
        }
    }
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
    /// The host does not give a layer without which untrusted programs must not run.
    #[error("sandbox layer `{layer}` is unavailable on this host: {reason}; {advice}")]
    Layer {
        /// Which one.
        layer: &'static str,
        /// What the system said, or what was not held.
        reason: String,
        /// What can be done.
        advice: &'static str,
    },
    /// Something that cannot be run as asked for.
    #[error("the sandbox cannot run this: {0}")]
    Request(String),
    /// A system call around the program failed.
    #[error("the sandbox could not {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

#[cfg(target_os = "linux")]
fn io_error(action: &'static str) -> impl Fn(std::io::Error) -> SandboxError {
    move |source| SandboxError::Io { action, source }
}
