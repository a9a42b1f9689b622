//! What a benchmark judges with: a sandbox, limits, and verdicts that are known already.

use super::{
    EvalError, Judgement, VerdictCache,
    sandbox::{Limits, Runner},
    verdict::{self, Checked, HARNESS},
};
use std::sync::OnceLock;

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
}

impl<'a> Judge<'a> {
    /// Without a cache.
    pub fn new(runner: &'a dyn Runner, limits: &'a Limits) -> Self {
        Self {
            runner,
            limits,
            cache: None,
            harness: OnceLock::new(),
        }
    }

    /// The same with a cache.
    pub fn with_cache(self, cache: Option<&'a VerdictCache>) -> Self {
        Self { cache, ..self }
    }

    /// Runs a candidate and its checks, or finds the verdict.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub fn check(&self, checked: &Checked<'_>) -> Result<Judgement, EvalError> {
        let parts = ["asserts", HARNESS, checked.expected, checked.given, checked.code];
        self.known(parts.into_iter().chain(checked.checks.iter().copied()), || {
            let harness = self.harness.get_or_init(|| verdict::compiled(self.runner, self.limits));
            let (verdict, suspicion) = verdict::check_by(harness, self.runner, self.limits, checked)?;
            Ok(Judgement {
                verdict,
                suspicion,
                tests: None,
            })
        })
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
