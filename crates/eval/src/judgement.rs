//! What is known of an answer when it is judged.

use super::{Verdict, verify::Unverified};
use serde::{Deserialize, Serialize};

/// A judged answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The benchmark's verdict.
    pub verdict: Verdict,
    /// Why a pass is not verified (the module `verify`).
    pub unverified: Option<String>,
    /// Whether it is the same the next time, however busy the machine is.
    pub repeats: bool,
    /// Tests one by one, where the benchmark runs them apart.
    pub tests: Option<TestCount>,
    /// The verdicts on the original and on the added tests, where the benchmark has both; `verdict` is then
    /// the first of them that is no pass.
    pub stages: Option<Stages>,
}

impl Judgement {
    /// A verdict and nothing more.
    pub fn of(verdict: Verdict, unverified: Option<String>) -> Self {
        Self {
            repeats: verdict.repeats(),
            verdict,
            unverified,
            tests: None,
            stages: None,
        }
    }

    /// A verdict, and what the second interpreter says of a pass.
    pub(super) fn of_pair(verdict: Verdict, unverified: Option<Unverified>) -> Self {
        let unverified = unverified.filter(|_| verdict.passed());
        let repeats = verdict.repeats() && unverified.as_ref().is_none_or(|unverified| unverified.repeats);
        Self {
            repeats,
            ..Self::of(verdict, unverified.map(|unverified| unverified.reason))
        }
    }

    /// Whether it passed, in the candidate's own interpreter and in one that has nothing of it.
    pub fn verified(&self) -> bool {
        self.verdict.passed() && self.unverified.is_none()
    }
}

/// The verdicts on two sets of tests, each run by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages {
    /// On the tests of the original benchmark.
    pub base: Verdict,
    /// On the tests that were added.
    pub plus: Verdict,
}

/// How far an answer came through tests that run apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCount {
    /// Tests that it passed.
    pub passed: usize,
    /// Tests that were run.
    pub run: usize,
    /// The first that it failed: `private 2`.
    pub first_failed: Option<String>,
}
