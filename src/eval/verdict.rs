//! A verdict needs proof that the checks ran: candidate and checks run inside a small Python
//! program (`harness.py`) which ends its output with a fresh random nonce and the verdict.
//!
//! A program that leaves early, prints what it likes or reads its own source never shows that
//! nonce, so it never passes. Candidate and checks share one interpreter, though: an object that
//! calls itself equal to everything satisfies `assert f(x) == y`, and code written against the
//! harness could take the interpreter apart. Both are left to whoever reads the samples.

use super::sandbox::{Limits, Outcome, Program, Runner, SandboxError, Status};
use rand::{TryRng, rngs::SysRng};
use std::fmt;

const HARNESS: &str = include_str!("harness.py");

/// How a candidate ended. Its text (`Display`) is the field `result` of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check held, and the nonce proves that all of them ran.
    Passed,
    /// An assertion of the checks failed.
    Wrong,
    /// It ended otherwise: the exception's type, or `exit code N` where it left before its checks.
    Error(String),
    /// It is not Python.
    Syntax,
    /// It ran out of time.
    Timeout,
    /// It wrote too much.
    OutputLimit,
    /// A signal ended it: the kernel's memory killer, a crash of the interpreter.
    Killed(i32),
}

impl Verdict {
    /// All classes, in the order of reports.
    pub const CLASSES: [&str; 7] = [
        "passed",
        "wrong",
        "error",
        "syntax_error",
        "timeout",
        "output_limit",
        "killed",
    ];

    /// Whether the candidate passed.
    pub fn passed(&self) -> bool {
        *self == Self::Passed
    }

    /// One of [`Verdict::CLASSES`].
    pub fn class(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Wrong => "wrong",
            Self::Error(_) => "error",
            Self::Syntax => "syntax_error",
            Self::Timeout => "timeout",
            Self::OutputLimit => "output_limit",
            Self::Killed(_) => "killed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(what) => write!(f, "error: {what}"),
            Self::Killed(signal) => write!(f, "killed: signal {signal}"),
            _ => f.write_str(self.class()),
        }
    }
}

/// Runs `code`, then each of `checks` in the namespace that it leaves behind.
///
/// The checks compile before the candidate starts. The first that raises ends the run.
///
/// # Errors
/// Only when the sandbox fails or the system has no random bytes.
pub fn check(runner: &dyn Runner, limits: &Limits, code: &str, checks: &[&str]) -> Result<Verdict, SandboxError> {
    let nonce = nonce()?;
    let stdin = message(&nonce, code, checks);
    let outcome = runner.run(
        &Program {
            source: HARNESS,
            stdin: &stdin,
        },
        limits,
    )?;
    Ok(read(&outcome, &nonce))
}

/// 128 random bits of the operating system, in hexadecimal.
fn nonce() -> Result<String, SandboxError> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| SandboxError::Io {
        action: "get random bytes from the system",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The harness's standard input: lengths, then the parts.
fn message(nonce: &str, code: &str, checks: &[&str]) -> Vec<u8> {
    let parts = || [nonce, code].into_iter().chain(checks.iter().copied());
    let lengths: Vec<String> = parts().map(|part| part.len().to_string()).collect();
    let mut text = lengths.join(" ");
    text.push('\n');
    text.extend(parts());
    text.into_bytes()
}

/// The verdict that an outcome proves. Limits come first: a program that hit one has not passed,
/// whatever it printed.
fn read(outcome: &Outcome, nonce: &str) -> Verdict {
    let code = match outcome.status {
        Status::TimedOut => return Verdict::Timeout,
        Status::OutputLimit => return Verdict::OutputLimit,
        Status::Signal(signal) => return Verdict::Killed(signal),
        Status::Exit(code) => code,
    };
    match (code, stated(&outcome.stdout, nonce).as_deref()) {
        (0, Some("passed")) => Verdict::Passed,
        (1, Some("wrong")) => Verdict::Wrong,
        (1, Some("syntax")) => Verdict::Syntax,
        (1, Some(other)) if other.starts_with("error ") => {
            Verdict::Error(other.trim_start_matches("error ").to_owned())
        }
        _ => Verdict::Error(format!("exit code {code}")),
    }
}

/// What follows the nonce on the last line of `stdout`, if the nonce is there.
fn stated(stdout: &[u8], nonce: &str) -> Option<String> {
    let line = stdout.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
    let stated = line.strip_prefix(nonce.as_bytes())?.strip_prefix(b" ")?;
    String::from_utf8(stated.to_vec()).ok()
}
