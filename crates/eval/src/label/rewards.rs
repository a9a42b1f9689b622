//! Rewards of records, found by running: `scorer.reward: tests`.

use super::{Candidate, LabelCounts, LabelProgress, Pool, tests_of};
use crate::{
    EvalError, Judge, Judgement, VerdictCache,
    sandbox::{Limits, Sandbox},
};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};
use wmtp_base::stop::Stop;
use wmtp_data::Record;

/// Verdicts and why a pass is not verified, by what decides them: kept with a run, so that it has the same labels when it
/// is resumed.
pub type FoundVerdicts = BTreeMap<String, (String, Option<String>)>;

/// Finds rewards by running, each once: asked again for the same records, it gives the same rewards, also where a
/// verdict does not repeat.
pub struct Labeller {
    sandbox: Sandbox,
    limits: Limits,
    cache: Option<VerdictCache>,
    known: Mutex<HashMap<String, Judgement>>,
}

impl Labeller {
    /// In this sandbox, under these limits, with verdicts of earlier runs in `cache`.
    pub fn new(sandbox: Sandbox, limits: Limits, cache: Option<&Path>) -> Self {
        Self {
            sandbox,
            limits,
            cache: cache.map(VerdictCache::new),
            known: Mutex::default(),
        }
    }

    /// The verdicts found so far.
    pub fn found(&self) -> FoundVerdicts {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = |(key, judgement): (&String, &Judgement)| {
            let found = (judgement.verdict.to_string(), judgement.unverified.clone());
            (key.clone(), found)
        };
        known.iter().map(verdict).collect()
    }

    /// Takes these verdicts as found; what is no verdict is found again.
    pub fn know(&self, found: FoundVerdicts) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, (result, unverified)) in found {
            if let Ok(verdict) = result.parse() {
                known.insert(key, Judgement::of(verdict, unverified));
            }
        }
    }

    /// Gives every sample of `records` the reward 1 where its program passes the tests of its record, verified, else 0; on
    /// all cores.
    ///
    /// # Errors
    /// Before anything runs: a record without tests, in another language, or with tests that are no Python. Then: a
    /// sandbox that fails, or a stop.
    pub fn label(
        &self,
        records: &mut [Record],
        stop: &Stop,
        progress: &(dyn Fn(&LabelProgress) + Sync),
    ) -> Result<LabelCounts, EvalError> {
        let judge = Judge::new(&self.sandbox, &self.limits).with_cache(self.cache.as_ref());
        let pool = Pool {
            judge: &judge,
            threads: thread::available_parallelism().map_or(1, usize::from),
            stop,
        };
        let mut candidates = Vec::new();
        for record in &*records {
            let tests = tests_of(record)?;
            candidates.extend(record.samples.iter().map(|sample| Candidate::new(sample, tests)));
        }
        let keys: Vec<String> = candidates.iter().map(key).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<(&String, &Candidate<'_>)> = keys
            .iter()
            .zip(&candidates)
            .filter(|(key, _)| !known.contains_key(*key))
            .collect();
        if !new.is_empty() {
            pool.check_tests(records.iter())?;
        }
        let far = Mutex::new(LabelProgress {
            total: new.len(),
            ..LabelProgress::default()
        });
        for slab in new.chunks(pool.slab()) {
            let slab_of: Vec<Candidate<'_>> = slab.iter().map(|(_, candidate)| (*candidate).clone()).collect();
            let judged = pool.judge_all(&slab_of, &|judgement| {
                let mut far = far.lock().unwrap_or_else(PoisonError::into_inner);
                far.done += 1;
                far.passed += usize::from(judgement.verified());
                progress(&far);
            })?;
            for ((key, _), judgement) in slab.iter().zip(judged) {
                known.insert((*key).clone(), judgement);
            }
        }
        drop(candidates);
        let mut counts = LabelCounts::default();
        let samples = records.iter_mut().flat_map(|record| &mut record.samples);
        for (sample, key) in samples.zip(&keys) {
            let Some(judgement) = known.get(key) else { continue };
            counts.add(judgement, sample.reward);
            sample.reward = Some(f32::from(u8::from(judgement.verified())));
        }
        Ok(counts)
    }
}

/// A name for everything that decides a verdict in one process.
fn key(candidate: &Candidate<'_>) -> String {
    let tests = format!("{:?}", candidate.tests);
    VerdictCache::key([&*candidate.program, candidate.given, &tests])
}
