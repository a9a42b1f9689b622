//! What a benchmark judges with: a sandbox, limits, and verdicts that are known already.

use super::{
    EvalError, Judgement, VerdictCache,
    sandbox::{Limits, Runner},
    verdict::{self, Calls, Checked, HARNESS},
    verify::{self, Verifier},
};
use std::{sync::OnceLock, time::Duration};

/// Address space of a program whose calls are judged: what evalplus gives.
pub(super) const CALLS_MEMORY: u64 = 4 << 30;
/// Time on the clock beyond that of the calls: for the program's start, and evalplus' own two seconds.
const STARTING: Duration = Duration::from_secs(3);

/// A sandbox with its limits and, if wanted, a cache.
pub struct Judge<'a> {
    /// Runs programs.
    pub runner: &'a dyn Runner,
    /// What each program may use.
    pub limits: &'a Limits,
    /// Verdicts of earlier runs.
    pub cache: Option<&'a VerdictCache>,
    /// The harness, compiled when it is first needed.
    harness: OnceLock<String>,
    /// Likewise.
    verifier: OnceLock<Verifier>,
}

impl<'a> Judge<'a> {
    /// Without a cache.
    pub fn new(runner: &'a dyn Runner, limits: &'a Limits) -> Self {
        Self {
            runner,
            limits,
            cache: None,
            harness: OnceLock::new(),
            verifier: OnceLock::new(),
        }
    }

    /// The same with a cache.
    pub fn with_cache(self, cache: Option<&'a VerdictCache>) -> Self {
        Self { cache, ..self }
    }

    /// Runs a candidate and its checks, after having seen whether they hold for its answers alone; or finds the
    /// verdict. In this order: where the checks run beside it, a candidate can read them, and by the time that it
    /// takes or the files that it reads could tell itself what they expect.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub fn check(&self, checked: &Checked<'_>) -> Result<Judgement, EvalError> {
        let names = &checked.names;
        let parts = [
            "asserts",
            HARNESS,
            verify::ANSWER,
            verify::CHECK,
            names.entry_point.unwrap_or_default(),
            names.reference,
            names.given,
            checked.code,
        ];
        self.known(parts.into_iter().chain(checked.checks.iter().copied()), || {
            let unverified = self.verifier().asserts(self.runner, self.limits, checked)?;
            let verdict = verdict::check_by(self.harness(), self.runner, self.limits, checked)?;
            Ok(Judgement::of_pair(verdict, unverified))
        })
    }

    fn harness(&self) -> &str {
        self.harness
            .get_or_init(|| verdict::compiled(HARNESS, self.runner, self.limits))
    }

    fn verifier(&self) -> &Verifier {
        self.verifier
            .get_or_init(|| Verifier::compiled(self.runner, self.limits))
    }

    /// The same of a candidate's calls. Each call has a time limit of its own; all of them
    /// together have `calls.seconds` or this judge's time on the clock, whichever is less. No cache is looked at.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub(super) fn calls(&self, calls: &Calls<'_>) -> Result<Judgement, EvalError> {
        let most = Duration::try_from_secs_f64(calls.seconds).unwrap_or(self.limits.wall);
        let wall = most.min(self.limits.wall) + STARTING;
        let limits = Limits {
            wall,
            cpu: wall,
            memory_bytes: CALLS_MEMORY,
            ..*self.limits
        };
        let how = format!("calls {} {} {:?}", calls.dataset, calls.function, calls.tolerance);
        let unverified = self.verifier().calls(self.runner, &limits, calls)?;
        let verdict = verdict::judge_by(self.harness(), self.runner, &limits, calls.code, &how, &[calls.data])?;
        Ok(Judgement::of_pair(verdict, unverified))
    }

    /// The verdict that `parts` decide, with the interpreter, the sandbox's level and the limits:
    /// from the cache, else by `run`.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn known<'p>(
        &self,
        parts: impl Iterator<Item = &'p str>,
        run: impl FnOnce() -> Result<Judgement, EvalError>,
    ) -> Result<Judgement, EvalError> {
        let Some(cache) = self.cache else { return run() };
        let limits = format!("{:?}", self.limits);
        let mut all: Vec<&str> = vec![self.runner.python(), self.runner.level(), &limits];
        for part in parts {
            all.push(part);
        }
        let key = VerdictCache::key(all);
        if let Some(judgement) = cache.get(&key) {
            return Ok(judgement);
        }
        let judgement = run()?;
        cache.put(&key, &judgement);
        Ok(judgement)
    }
}
