//! The samples of a run, in the order of `samples.jsonl`.

use super::Source;
use crate::{Benchmark, EvalError, EvalRequest};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// One sample to draw and judge.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Index of the temperature, 0 where completions are given.
    pub group: usize,
    pub task: u32,
    pub task_id: Arc<str>,
    /// Number among the samples of this problem and temperature.
    pub sample: usize,
    pub seed: u64,
}

/// The seed of one sample: it depends on the run's seed, the problem and the number of the sample,
/// and on nothing else, so neither the batch size, nor the other problems, nor the temperatures of
/// a run change it.
pub fn sample_seed(seed: u64, task_id: &str, sample: usize) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((sample as u64).to_le_bytes());
    hash.update(task_id.as_bytes());
    hash.finalize()
        .iter()
        .take(8)
        .fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

/// Temperature after temperature, problem after problem.
pub(super) fn jobs(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    source: &Source<'_>,
) -> Result<Vec<Job>, EvalError> {
    let groups = match source {
        Source::Generator(_) => request.temperatures.len(),
        Source::Given(_) => 1,
    };
    let mut jobs = Vec::new();
    for group in 0..groups {
        for &task in &request.tasks {
            benchmark.prompt(task)?;
            let task_id: Arc<str> = benchmark.task_id(task).into();
            let samples = match source {
                Source::Generator(_) => request.samples,
                Source::Given(answers) => answers.of(task).len(),
            };
            jobs.extend((0..samples).map(|sample| Job {
                group,
                task,
                seed: sample_seed(request.seed, &task_id, sample),
                task_id: task_id.clone(),
                sample,
            }));
        }
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn seeds_differ_by_every_part_and_stay_what_they_are() {
        let seeds = [
            sample_seed(42, "Mbpp/11", 0),
            sample_seed(42, "Mbpp/11", 1),
            sample_seed(42, "Mbpp/12", 0),
            sample_seed(43, "Mbpp/11", 0),
        ];
        assert_eq!(BTreeSet::from(seeds).len(), 4);
        // hashlib.sha256(struct.pack("<QQ", 42, 0) + b"Mbpp/11").digest()[:8], big-endian
        assert_eq!(seeds.first().copied(), Some(11377621565921911034));
    }
}
