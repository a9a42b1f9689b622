//! Labels by running: candidates for the problem of a row are judged by the row's own tests, and the verdicts
//! become its labels.
//!
//! * `candidate`: the program in a row's answer;
//! * `file`: a data file with labels, for `wmtp label`;
//! * `rewards`: records with rewards, for training.
//!
//! Verdicts are those of [`Judge`], as for every benchmark, and are kept in the same cache.

mod candidate;
mod file;
mod rewards;

pub use candidate::Candidate;
pub use file::{LabelReport, label_file};
pub use rewards::{FoundVerdicts, Labeller};

use super::{
    EvalError, Judge, Judgement, Verdict,
    compile::{self, NotPython},
    sandbox::map_bounded,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};
use wmtp_base::stop::Stop;
use wmtp_data::{DataError, Record, Tests};

/// Candidates that are judged at once, for each thread: enough that none is idle, few enough to see progress.
const FOR_EACH_THREAD: usize = 32;

/// How far labelling is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelProgress {
    /// Candidates judged.
    pub done: usize,
    /// Candidates in all.
    pub total: usize,
    /// Candidates that passed.
    pub passed: usize,
}

/// How candidates are judged.
pub struct Pool<'a> {
    /// The sandbox, the limits and the cache.
    pub judge: &'a Judge<'a>,
    /// Programs that run at once.
    pub threads: usize,
    /// Ends the work at the next candidate.
    pub stop: &'a Stop,
}

impl Pool<'_> {
    /// The verdicts on all of them, in their order; equal ones are run once. `done` gets each as it comes.
    fn judge_all(
        &self,
        candidates: &[Candidate<'_>],
        done: &(dyn Fn(&Judgement) + Sync),
    ) -> Result<Vec<Judgement>, EvalError> {
        let mut numbers = HashMap::new();
        let mut unique: Vec<&Candidate<'_>> = Vec::new();
        let mut of: Vec<usize> = Vec::with_capacity(candidates.len());
        let mut repeated: Vec<usize> = Vec::new();
        for candidate in candidates {
            let number = *numbers.entry(candidate).or_insert(unique.len());
            if number == unique.len() {
                unique.push(candidate);
                repeated.push(0);
            }
            if let Some(count) = repeated.get_mut(number) {
                *count += 1;
            }
            of.push(number);
        }
        let work: Vec<(&Candidate<'_>, usize)> = unique.into_iter().zip(repeated).collect();
        let failed = AtomicUsize::new(0);
        let judged = map_bounded(&work, self.threads, |(candidate, count)| {
            if self.stop.is_asked() || failed.load(Ordering::Relaxed) > 0 {
                return Err(EvalError::Stopped);
            }
            let judgement = candidate.judge(self.judge);
            match &judgement {
                Ok(judgement) => (0..*count).for_each(|_| done(judgement)),
                Err(_) => _ = failed.fetch_add(1, Ordering::Relaxed),
            }
            judgement
        });
        let mut found = Vec::with_capacity(judged.len());
        let mut failure = None;
        for judged in judged {
            match judged {
                Ok(judgement) => found.push(judgement),
                // The cause of the end, not that the others ended because of it.
                Err(error) if matches!(failure, None | Some(EvalError::Stopped)) => failure = Some(error),
                Err(_) => {}
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(of.into_iter().filter_map(|number| found.get(number).cloned()).collect()),
        }
    }

    /// Candidates to hand over at once.
    fn slab(&self) -> usize {
        self.threads.max(1) * FOR_EACH_THREAD
    }

    /// Checks that the asserts of all records compile.
    ///
    /// # Errors
    /// The first test that is no Python, with file and row.
    fn check_tests<'r>(&self, records: impl Iterator<Item = &'r Record>) -> Result<(), EvalError> {
        let mut places = Vec::new();
        let mut pieces: Vec<Vec<&str>> = Vec::new();
        for record in records {
            if let Some(Tests::Asserts { setup, asserts, .. }) = &record.tests {
                places.push(&record.place);
                pieces.push(
                    std::iter::once(setup.as_str())
                        .chain(asserts.iter().map(String::as_str))
                        .collect(),
                );
            }
        }
        let file = places.first().map_or("", |place| &place.file);
        let found = compile::first_that_is_not_python(file, &pieces, self.judge)?;
        let Some(NotPython { list, piece, why }) = found else {
            return Ok(());
        };
        let text = pieces.get(list).and_then(|pieces| pieces.get(piece)).copied();
        let line = text.and_then(|text| text.lines().next()).unwrap_or_default();
        match places.get(list) {
            Some(place) => Err(DataError::BadRow {
                place: (*place).clone(),
                problem: format!("the test `{line}` is not Python: {why}; correct it"),
            }
            .into()),
            None => Ok(()),
        }
    }
}

/// The tests that a record's candidates are judged by.
///
/// # Errors
/// With file and row: no tests, a language that is not run, labels that the row's schema has.
fn tests_of(record: &Record) -> Result<&Tests, EvalError> {
    let wrong = |problem: String| {
        Err(EvalError::Data(DataError::BadRow {
            place: record.place.clone(),
            problem,
        }))
    };
    if let Some(language) = record.language.as_deref().filter(|language| !is_python(language)) {
        return wrong(format!("is in `{language}`, and only Python is run; leave the row out"));
    }
    match &record.tests {
        Some(tests) => Ok(tests),
        None => wrong("has no tests to find labels by; give `tests`, or leave the row out".into()),
    }
}

fn is_python(language: &str) -> bool {
    matches!(language, "python" | "python3" | "py")
}

/// Candidates by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// All.
    pub candidates: usize,
    /// Passed.
    pub right: usize,
    /// Failed a check, or ended otherwise.
    pub wrong: usize,
    /// Ran out of time.
    pub timed_out: usize,
    /// Nothing, or no Python.
    pub no_program: usize,
    /// Passed their tests, but not where these could not be reached; counted in `wrong` as well.
    pub not_verified: usize,
    /// Have another label than the data gave them.
    pub changed: usize,
}

impl LabelCounts {
    /// Counts a verdict on a candidate that had the reward `before`.
    fn add(&mut self, judgement: &Judgement, before: Option<f32>) {
        self.candidates += 1;
        let right = judgement.verified();
        let count = match judgement.verdict {
            Verdict::Passed if right => &mut self.right,
            Verdict::Timeout => &mut self.timed_out,
            Verdict::Syntax => &mut self.no_program,
            _ => &mut self.wrong,
        };
        *count += 1;
        self.not_verified += usize::from(judgement.verdict.passed() && !right);
        self.changed += usize::from(before.is_some_and(|reward| (reward > 0.5) != right));
    }
}

impl fmt::Display for LabelCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} candidates: {} right, {} wrong, {} timed out, {} no program",
            self.candidates, self.right, self.wrong, self.timed_out, self.no_program
        )?;
        if self.not_verified > 0 {
            write!(
                f,
                "; {} wrong ones passed their tests without being verified: read them",
                self.not_verified
            )?;
        }
        if self.changed > 0 {
            write!(f, "; {} had another label before", self.changed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
