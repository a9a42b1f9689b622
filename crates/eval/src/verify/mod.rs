//! Whether a pass holds where the candidate can't reach: in a second interpreter.
//!
//! One interpreter can't be made safe from the program that it runs: frames, a replaced built-in or an object that
//! calls itself equal to everything satisfy any check. So its checks are tried in two processes first, each in a sandbox of
//! its own, with two pipes and nothing else between them:
//!
//! * `answer.py` holds the candidate. It gets calls (a name, arguments) and answers with results as plain data. No
//!   check, no expected value and no verdict is ever there.
//! * `check.py` runs the published checks. What the reference defines is a stand-in that passes calls on; every other
//!   name is Python's own. It compares values that it decoded itself (`codec.py`), all of built-in types.
//!
//! A check whose outcome hangs on anything else, such as the equality of an object of the candidate's own class, can't
//! be verified. Where results of calls are compared with a reference's (evalplus), the same comparison runs here.

use super::{
    sandbox::{ExtraFile, Limits, Pair, PairSide, Runner, SandboxError, Status},
    verdict::{self, Calls, Checked},
};
use serde::Serialize;

/// Answers for the candidate.
pub(super) const ANSWER: &str = concat!(include_str!("codec.py"), "\n\n", include_str!("answer.py"));

/// Runs the checks.
pub(super) const CHECK: &str = concat!(
    include_str!("codec.py"),
    "\n\n",
    include_str!("check.py"),
    "\n\n",
    include_str!("../calls.py"),
    "\n\ncheck()\n"
);

/// Time on the clock and of the processor beside that of one interpreter, which has judged the time: all that is
/// passed on and compared takes longer.
const SLACK: u32 = 2;

/// What `check.py` says where nothing more comes from the program.
const ENDED: &str = "the program ended";

/// Room in a process's directory for its program of ours.
const OWN_BYTES: usize = 1 << 20;

/// Why a pass is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unverified {
    /// For people.
    pub reason: String,
    /// Whether that is so the next time, however busy the machine is.
    pub repeats: bool,
}

impl Unverified {
    fn of(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            repeats: true,
        }
    }

    fn once(reason: impl Into<String>) -> Self {
        Self {
            repeats: false,
            ..Self::of(reason)
        }
    }
}

/// Both programs, compiled once.
#[derive(Debug)]
pub(super) struct Verifier {
    answer: String,
    check: String,
}

/// What `check.py` reads.
#[derive(Serialize)]
struct Job<'a> {
    names: Vec<&'a str>,
    reference: &'a str,
    given: &'a str,
    checks: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<(&'a str, &'a str, f64)>,
}

impl Verifier {
    /// As this runner's interpreter compiles them.
    pub fn compiled(runner: &dyn Runner, limits: &Limits) -> Self {
        Self {
            answer: verdict::compiled(ANSWER, runner, limits),
            check: verdict::compiled(CHECK, runner, limits),
        }
    }

    /// Why a candidate that passes its checks is not verified, if it is not.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub fn asserts(
        &self,
        runner: &dyn Runner,
        limits: &Limits,
        checked: &Checked<'_>,
    ) -> Result<Option<Unverified>, SandboxError> {
        let names = &checked.names;
        let job = Job {
            names: names.entry_point.into_iter().collect(),
            reference: names.reference,
            given: names.given,
            checks: checked.checks,
            calls: None,
        };
        self.verify(runner, limits, checked.code, &job, &[])
    }

    /// The same of a candidate whose calls are judged; under the limits that its calls had.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub fn calls(
        &self,
        runner: &dyn Runner,
        limits: &Limits,
        calls: &Calls<'_>,
    ) -> Result<Option<Unverified>, SandboxError> {
        let job = Job {
            names: Vec::new(),
            reference: "",
            given: "",
            checks: &[],
            calls: Some((calls.dataset, calls.function, calls.tolerance)),
        };
        self.verify(runner, limits, calls.code, &job, calls.data)
    }

    fn verify(
        &self,
        runner: &dyn Runner,
        limits: &Limits,
        code: &str,
        job: &Job<'_>,
        data: &[u8],
    ) -> Result<Option<Unverified>, SandboxError> {
        let job = serde_json::to_vec(job).map_err(|error| SandboxError::Io {
            action: "write down the checks",
            source: error.into(),
        })?;
        let largest = code.len().max(job.len() + data.len()) + OWN_BYTES;
        if largest as u64 > limits.disk_bytes {
            return Ok(Some(Unverified::of("program and checks are too large")));
        }
        let limits = Limits {
            wall: limits.wall * SLACK,
            cpu: limits.cpu * SLACK,
            ..*limits
        };
        let file = |name, bytes| ExtraFile { name, bytes };
        let pair = Pair {
            first: PairSide {
                source: &self.answer,
                files: &[file("candidate", code.as_bytes())],
            },
            second: PairSide {
                source: &self.check,
                files: &[file("job", &job), file("data", data)],
            },
        };
        let [_, checking] = runner.run_pair(&pair, &limits)?;
        Ok(read(checking.status, &checking.stderr))
    }
}

/// Why the checks' side did not verify, from its end and the line that it wrote.
fn read(status: Status, said: &[u8]) -> Option<Unverified> {
    let said = String::from_utf8_lossy(said);
    let said = said.trim_end();
    match status {
        Status::Exit(0) if said == "verified" => None,
        Status::Exit(0) => Some(match (said.strip_prefix("unclear "), said.strip_prefix("failed ")) {
            // Either side may have ended for lack of time or memory.
            (Some(why), _) if why.starts_with(ENDED) => Unverified::once(format!("the outcome hangs on {why}")),
            (Some(why), _) => Unverified::of(format!("the outcome hangs on {why}")),
            (_, Some(why)) => Unverified {
                reason: format!("the checks do not hold for its answers alone ({why})"),
                repeats: why != "MemoryError",
            },
            _ => Unverified::of("the checks said nothing"),
        }),
        Status::TimedOut => Some(Unverified::once(format!(
            "the checks took more than {SLACK} times the time"
        ))),
        status => Some(Unverified::once(format!("the checks ended otherwise ({status:?})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_a_process_that_ended_well_verifies() {
        assert_eq!(read(Status::Exit(0), b"verified\n"), None);
        for (status, said) in [
            (Status::Exit(1), &b"verified\n"[..]),
            (Status::Exit(0), b"verified\nx"),
            (Status::Exit(0), b""),
            (Status::Signal(9), b"verified\n"),
            (Status::OutputLimit, b"verified\n"),
        ] {
            assert!(read(status, said).is_some(), "{status:?} {said:?}");
        }
        assert_eq!(
            read(Status::Exit(0), b"unclear __eq__ of an object\n"),
            Some(Unverified::of("the outcome hangs on __eq__ of an object"))
        );
        assert_eq!(
            read(Status::Exit(0), b"failed AssertionError\n"),
            Some(Unverified::of(
                "the checks do not hold for its answers alone (AssertionError)"
            ))
        );
        assert!(read(Status::TimedOut, b"").is_some_and(|why| why.reason.contains("2 times")));
    }

    #[test]
    fn what_a_busy_machine_may_change_does_not_repeat() {
        let repeats = |status, said: &str| read(status, said.as_bytes()).unwrap().repeats;
        assert!(!repeats(Status::TimedOut, ""));
        assert!(!repeats(Status::Signal(9), ""));
        assert!(!repeats(Status::Exit(0), "failed MemoryError\n"));
        assert!(CHECK.contains(&format!("cannot(\"{ENDED}")));
        assert!(!repeats(
            Status::Exit(0),
            "unclear the program ended, or its answer is too long\n"
        ));
        assert!(repeats(Status::Exit(0), "failed KeyError\n"));
    }
}
