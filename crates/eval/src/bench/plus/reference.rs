//! What a problem's reference solution returns for each input, and how long it takes.

use super::Problem;
use crate::{
    EvalError, Judge, VerdictCache,
    judge::CALLS_MEMORY,
    sandbox::{Limits, Program, Status},
};
use serde::Deserialize;
use std::time::Duration;
use wmtp_data::DataError;

/// Runs a reference solution.
pub(super) const PROGRAM: &str = concat!(include_str!("../../quiet.py"), "\n\n", include_str!("reference.py"));

/// A reference solution that takes longer is a fault of the data.
const MOST_SECONDS: u64 = 600;
/// Bytes that two sets may have: reference.py hands on 32 MiB of expected values for each, and the inputs.
const MOST_BYTES: usize = 160 << 20;

/// Inputs with their expected values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Set {
    /// What `calls.py` takes.
    pub data: Vec<u8>,
    /// Time that a candidate may take for all inputs together.
    pub seconds: f64,
}

/// The base inputs and the added ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reference {
    pub base: Set,
    pub plus: Set,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    failed: Option<String>,
    #[serde(default)]
    sets: Vec<SetHeader>,
}

#[derive(Deserialize)]
struct SetHeader {
    tests: usize,
    seconds: f64,
    bytes: usize,
}

impl Reference {
    /// From the judge's cache, else by running the reference solution. The times of the first run are kept
    /// with what it returned, so that limits are the same in every evaluation that shares the cache.
    ///
    /// # Errors
    /// A reference solution that raises or takes too long, named by file and line; a sandbox that fails.
    pub fn of(problem: &Problem, dataset: &str, file: &str, judge: &Judge<'_>) -> Result<Self, EvalError> {
        let wrong = |what: String| {
            EvalError::Data(DataError::Row {
                file: file.to_owned(),
                line: problem.line,
                problem: format!("the reference solution of {} {what}", problem.task_id),
            })
        };
        let key = VerdictCache::key([
            "reference",
            PROGRAM,
            judge.runner.python(),
            judge.runner.level(),
            dataset,
            &problem.row,
        ]);
        if let Some(kept) = judge.cache.and_then(|cache| cache.bytes(&key))
            && let Ok(reference) = Self::read(&kept, problem)
        {
            return Ok(reference);
        }
        let limits = Limits {
            wall: Duration::from_secs(MOST_SECONDS),
            cpu: Duration::from_secs(MOST_SECONDS),
            memory_bytes: CALLS_MEMORY,
            output_bytes: MOST_BYTES,
            ..Limits::default()
        };
        let stdin = format!("{dataset}\n{}", problem.row);
        let program = Program {
            source: PROGRAM,
            stdin: stdin.as_bytes(),
        };
        let outcome = judge.runner.run(&program, &limits)?;
        match outcome.status {
            Status::Exit(0) => {}
            Status::TimedOut => return Err(wrong(format!("did not end within {MOST_SECONDS} s"))),
            status => {
                let said = String::from_utf8_lossy(&outcome.stderr);
                let last = said.trim_end().lines().next_back().unwrap_or_default();
                return Err(wrong(format!("could not be run ({status:?}): {last}")));
            }
        }
        let reference = Self::read(&outcome.stdout, problem).map_err(wrong)?;
        if let Some(cache) = judge.cache {
            cache.put_bytes(&key, &outcome.stdout);
        }
        Ok(reference)
    }

    /// Reads what `reference.py` wrote.
    fn read(bytes: &[u8], problem: &Problem) -> Result<Self, String> {
        let damaged = || "left damaged results".to_owned();
        let end = bytes.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
        let (header, rest) = bytes.split_at(end);
        let header: Header = serde_json::from_slice(header).map_err(|_| damaged())?;
        if let Some(failed) = header.failed {
            return Err(format!("fails on {failed}"));
        }
        let [base, plus] = header.sets.as_slice() else {
            return Err(damaged());
        };
        let rest = rest.get(1..).unwrap_or_default();
        let (first, second) = rest.split_at_checked(base.bytes).ok_or_else(damaged)?;
        if second.len() != plus.bytes || [base.tests, plus.tests] != problem.inputs {
            return Err(damaged());
        }
        let set = |header: &SetHeader, data: &[u8]| Set {
            data: data.to_owned(),
            seconds: header.seconds,
        };
        Ok(Self {
            base: set(base, first),
            plus: set(plus, second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            number: 1,
            task_id: "HumanEval/1".into(),
            prompt: String::new(),
            entry_point: "f".into(),
            canonical_solution: String::new(),
            atol: 0.0,
            inputs: [1, 2],
            row: String::new(),
            line: 1,
        }
    }

    #[test]
    fn results_are_read_whole_or_refused() {
        let header =
            r#"{"sets": [{"tests": 1, "seconds": 1.0, "bytes": 2}, {"tests": 2, "seconds": 4.5, "bytes": 3}]}"#;
        let read = |text: String| Reference::read(text.as_bytes(), &problem());
        let whole = read(format!("{header}\nabcde")).unwrap();
        assert_eq!((whole.base.data.as_slice(), whole.base.seconds), (&b"ab"[..], 1.0));
        assert_eq!((whole.plus.data.as_slice(), whole.plus.seconds), (&b"cde"[..], 4.5));
        for torn in [
            format!("{header}\nabcd"),
            format!("{header}\nabcdef"),
            header.to_owned(),
            format!("{}\nabcde", header.replace("\"tests\": 2", "\"tests\": 3")),
            "{}\n".to_owned(),
        ] {
            assert_eq!(read(torn), Err("left damaged results".into()));
        }
        let failed = read("{\"failed\": \"plus_input 3: ValueError: x\"}\n".to_owned());
        assert_eq!(failed, Err("fails on plus_input 3: ValueError: x".into()));
    }
}
