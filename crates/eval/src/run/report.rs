//! From judged samples to the report.

use super::part::SampleLine;
use crate::{
    Benchmark, EvalError, EvalRequest, Verdict,
    passk::{Interval, IntervalMethod, Tally, interval95, mean_pass_at_k},
    sandbox::Runner,
    training_tasks::TrainingTasks,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use wmtp_data::PromptStyle;

/// Passes that are not verified and that a report names.
const NAMED: usize = 10;

/// Samples by class of verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ResultCounts(
    /// One entry for each of [`Verdict::CLASSES`], also where it is 0.
    pub BTreeMap<String, usize>,
);

impl Default for ResultCounts {
    fn default() -> Self {
        Self(Verdict::CLASSES.map(|class| (class.to_owned(), 0)).into())
    }
}

/// Samples counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    by_task: BTreeMap<u32, TaskCount>,
    results: ResultCounts,
    errors: BTreeMap<String, usize>,
    samples: usize,
    exact: usize,
    /// Passes that are not verified, by problem and number of the sample.
    not_verified: BTreeSet<(String, usize)>,
    tokens: usize,
    /// The samples have a verdict on the original tests alone.
    stages: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct TaskCount {
    samples: usize,
    passed: usize,
    verified: usize,
    /// Passed the original benchmark's tests, where others were added.
    base: usize,
}

impl Counts {
    pub fn add(&mut self, task: u32, sample: &SampleLine) -> Result<(), EvalError> {
        let verdict: Verdict = sample.result.parse().map_err(EvalError::Request)?;
        let count = self.by_task.entry(task).or_default();
        count.samples += 1;
        count.passed += usize::from(verdict.passed());
        count.verified += usize::from(sample.verified);
        if let Some(base) = &sample.base_result {
            let base: Verdict = base.parse().map_err(EvalError::Request)?;
            count.base += usize::from(base.passed());
            self.stages = true;
        }
        *self.results.0.entry(verdict.class().to_owned()).or_default() += 1;
        if let Verdict::Error(what) = verdict {
            *self.errors.entry(what).or_default() += 1;
        }
        self.samples += 1;
        self.exact += usize::from(sample.exact);
        if sample.passed && !sample.verified {
            self.not_verified.insert((sample.task_id.clone(), sample.sample));
        }
        self.tokens += sample.tokens;
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        for (class, count) in &other.results.0 {
            *self.results.0.entry(class.clone()).or_default() += count;
        }
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        self.samples += other.samples;
        self.exact += other.exact;
        self.not_verified.extend(other.not_verified.iter().cloned());
        self.tokens += other.tokens;
    }

    /// Over the problems, with what counts as a pass.
    fn tallies(&self, passes: impl Fn(&TaskCount) -> usize) -> Vec<Tally> {
        let tally = |count: &TaskCount| Tally {
            samples: count.samples,
            passed: passes(count),
        };
        self.by_task.values().map(tally).collect()
    }

    /// Over the problems that are not flagged as seen; None where none is flagged, or all are.
    fn unseen_tallies(&self, seen: &TrainingTasks) -> Option<Vec<Tally>> {
        let unseen = self.by_task.iter().filter(|(task, _)| !seen.contains(**task));
        let tallies: Vec<Tally> = unseen
            .map(|(_, count)| Tally {
                samples: count.samples,
                passed: count.passed,
            })
            .collect();
        (!tallies.is_empty() && tallies.len() < self.by_task.len()).then_some(tallies)
    }

    /// By the original benchmark's tests alone; None where there are no others.
    fn base_tallies(&self) -> Option<Vec<Tally>> {
        self.stages.then(|| self.tallies(|count| count.base))
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / self.samples.max(1) as f64
    }

    fn shares(&self) -> Shares {
        let class = |name: &str| self.share(self.results.0.get(name).copied().unwrap_or(0));
        Shares {
            parse: 1.0 - class("syntax_error"),
            timeout: class("timeout"),
            crash: class("killed"),
            wrong: class("wrong"),
            error: class("error"),
            output_limit: class("output_limit"),
        }
    }
}

/// Samples of a kind, as shares of all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// Is Python.
    pub parse: f64,
    /// Ran out of time.
    pub timeout: f64,
    /// Ended by a signal.
    pub crash: f64,
    /// Failed a check.
    pub wrong: f64,
    /// Ended with an exception, or before its checks.
    pub error: f64,
    /// Wrote too much.
    pub output_limit: f64,
}

/// Scores by the original benchmark's tests alone, as HumanEval+ has those of HumanEval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BaseScores {
    /// pass@k for each k, 1 included.
    pub pass_at_k: BTreeMap<usize, f64>,
    /// Their 95% intervals.
    pub ci95_at_k: BTreeMap<usize, [f64; 2]>,
}

/// The scores of the samples of one temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TemperatureReport {
    /// Sampling temperature, 0 for greedy, null where completions were given.
    pub temperature: Option<f64>,
    /// pass@k for each k, 1 included.
    pub pass_at_k: BTreeMap<usize, f64>,
    /// 95% intervals over problems.
    pub ci95_at_k: BTreeMap<usize, [f64; 2]>,
    /// How each interval was made: `bootstrap`, or `wilson` where all problems have the same estimate.
    pub ci95_method_at_k: BTreeMap<usize, IntervalMethod>,
    /// pass@k of the passes that are verified.
    pub verified_pass_at_k: BTreeMap<usize, f64>,
    /// pass@k over the problems that `training_tasks` does not flag, where it flags some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k_unseen: Option<BTreeMap<usize, f64>>,
    /// pass@k by the original benchmark's tests alone, where others were added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseScores>,
    /// Passes that are not verified.
    pub not_verified: usize,
    /// Samples equal to the reference solution, as a share.
    pub exact: f64,
    /// Samples of a kind.
    pub shares: Shares,
    /// Samples by class of verdict.
    pub results: ResultCounts,
    /// Tokens generated.
    pub tokens: usize,
}

/// The result of a run, as `eval.json` has it. Nothing in it depends on time: a run that was killed
/// and went on has the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// The benchmark's name.
    pub benchmark: String,
    /// Which of its sets.
    pub variant: String,
    /// Number of problems.
    pub tasks: usize,
    /// Samples of each at each temperature; of the problem with most where they were given.
    pub samples: usize,
    /// Sampling temperature, 0 for greedy: the one with the best pass@1 if there are several. Null
    /// where completions were given.
    pub temperature: Option<f64>,
    /// Top-p (nucleus) sampling threshold.
    pub top_p: Option<f64>,
    /// The run's seed.
    pub seed: u64,
    /// Longest completion in tokens.
    pub max_new_tokens: Option<usize>,
    /// How prompts were written.
    pub prompt: Option<PromptStyle>,
    /// pass@1, between 0 and 1; of the best temperature.
    pub pass_at_1: f64,
    /// 95% interval of `pass_at_1` over problems.
    pub ci95: [f64; 2],
    /// pass@k for each k, 1 included, each at its best temperature.
    pub pass_at_k: BTreeMap<usize, f64>,
    /// Their 95% intervals.
    pub ci95_at_k: BTreeMap<usize, [f64; 2]>,
    /// How each interval was made.
    pub ci95_method_at_k: BTreeMap<usize, IntervalMethod>,
    /// The temperature with the best pass@k for each k: chosen by the score itself, as Gloeckle et
    /// al. 2024 do, so that with several temperatures pass@k is an optimistic figure.
    pub best_temperature: BTreeMap<usize, Option<f64>>,
    /// Passes that a second interpreter does not verify, which `pass_at_k` counts as the benchmark does.
    pub not_verified: usize,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_verified_samples: Vec<String>,
    /// pass@1 of the passes that are verified.
    pub verified_pass_at_1: f64,
    /// The same for each k, at the temperature that is best for `pass_at_k`.
    pub verified_pass_at_k: BTreeMap<usize, f64>,
    /// pass@k over the problems that `training_tasks` does not flag, where it flags some; each k at the
    /// temperature that is best for `pass_at_k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k_unseen: Option<BTreeMap<usize, f64>>,
    /// pass@k by the original benchmark's tests alone, where others were added; each k at the temperature
    /// that is best for `pass_at_k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseScores>,
    /// Samples equal to the reference solution, as a share of all samples. Its name is
    /// `<benchmark>_exact` in the output, with `_plus` for a `+`.
    #[serde(skip)]
    pub exact: f64,
    /// Samples of a kind, as shares of all.
    pub shares: Shares,
    /// Samples by class of verdict.
    pub results: ResultCounts,
    /// The class `error` by what was raised.
    pub errors: BTreeMap<String, usize>,
    /// Each temperature by itself.
    pub temperatures: Vec<TemperatureReport>,
    /// Problems that the model was trained on, or that are no unseen ones for another reason.
    #[serde(skip_serializing_if = "TrainingTasks::is_empty")]
    pub training_tasks: TrainingTasks,
    /// Tokens generated.
    pub tokens: usize,
    /// The sandbox's level.
    pub sandbox: String,
    /// Version of the Python that judged.
    pub python: String,
    /// Wall-clock timeout per program, in seconds.
    pub timeout_seconds: f64,
    /// Where the samples came from: the model, its hash, the precision.
    pub origin: BTreeMap<String, String>,
}

impl EvalReport {
    /// The report as one JSON object, with `exact` under the benchmark's name (`mbpp_exact`).
    ///
    /// # Errors
    /// None that can be foreseen: all keys are texts.
    pub fn to_json(&self) -> Result<serde_json::Value, EvalError> {
        let mut json = serde_json::to_value(self)
            .map_err(|error| EvalError::Request(format!("the report cannot be written as JSON: {error}")))?;
        if let Some(object) = json.as_object_mut() {
            object.insert(format!("{}_exact", plain_name(&self.benchmark)), self.exact.into());
        }
        Ok(json)
    }
}

/// A benchmark's name for places that take no `+`: names of fields, metrics and directories.
pub fn plain_name(benchmark: &str) -> String {
    benchmark.replace('+', "_plus")
}

/// The report over the counts of each temperature.
pub(super) fn report(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    runner: &dyn Runner,
    groups: &[Counts],
) -> EvalReport {
    let drawn = !request.temperatures.is_empty();
    let temperatures: Vec<TemperatureReport> = groups
        .iter()
        .enumerate()
        .map(|(index, counts)| of_temperature(counts, request.temperatures.get(index).copied(), request))
        .collect();
    let mut all = Counts::default();
    groups.iter().for_each(|counts| all.merge(counts));
    let ks = all_k(request);
    let best = |k: usize| {
        // Equal scores: the lowest temperature, the first named.
        let score = |t: &&TemperatureReport| t.pass_at_k.get(&k).copied().unwrap_or(0.0);
        temperatures.iter().rev().max_by(|a, b| score(a).total_cmp(&score(b)))
    };
    let of_best =
        |k: usize, value: &dyn Fn(&TemperatureReport) -> Option<f64>| (k, best(k).and_then(value).unwrap_or(0.0));
    let interval = |k: usize| best(k).and_then(|t| t.ci95_at_k.get(&k).copied()).unwrap_or([0.0; 2]);
    let has_base = temperatures.iter().any(|t| t.base.is_some());
    let base = has_base.then(|| {
        let of = |k: usize| best(k).and_then(|t| t.base.as_ref());
        BaseScores {
            pass_at_k: ks
                .iter()
                .filter_map(|&k| Some((k, *of(k)?.pass_at_k.get(&k)?)))
                .collect(),
            ci95_at_k: ks
                .iter()
                .filter_map(|&k| Some((k, *of(k)?.ci95_at_k.get(&k)?)))
                .collect(),
        }
    });
    EvalReport {
        benchmark: benchmark.name().to_owned(),
        variant: benchmark.variant().to_owned(),
        tasks: request.tasks.len(),
        samples: request.samples,
        temperature: best(1).and_then(|t| t.temperature),
        top_p: drawn.then_some(request.top_p),
        seed: request.seed,
        max_new_tokens: drawn.then_some(request.max_new_tokens),
        prompt: drawn.then(|| benchmark.prompt_style()),
        pass_at_1: of_best(1, &|t| t.pass_at_k.get(&1).copied()).1,
        ci95: interval(1),
        pass_at_k: ks
            .iter()
            .map(|&k| of_best(k, &|t| t.pass_at_k.get(&k).copied()))
            .collect(),
        ci95_at_k: ks.iter().map(|&k| (k, interval(k))).collect(),
        ci95_method_at_k: ks
            .iter()
            .filter_map(|&k| Some((k, *best(k)?.ci95_method_at_k.get(&k)?)))
            .collect(),
        best_temperature: ks.iter().map(|&k| (k, best(k).and_then(|t| t.temperature))).collect(),
        not_verified: temperatures.iter().map(|t| t.not_verified).sum(),
        not_verified_samples: all
            .not_verified
            .iter()
            .take(NAMED)
            .map(|(task, sample)| format!("{task} sample {sample}"))
            .collect(),
        verified_pass_at_1: of_best(1, &|t| t.verified_pass_at_k.get(&1).copied()).1,
        verified_pass_at_k: ks
            .iter()
            .map(|&k| of_best(k, &|t| t.verified_pass_at_k.get(&k).copied()))
            .collect(),
        pass_at_k_unseen: temperatures.iter().any(|t| t.pass_at_k_unseen.is_some()).then(|| {
            let of = |k: usize| best(k)?.pass_at_k_unseen.as_ref()?.get(&k).copied();
            ks.iter().filter_map(|&k| Some((k, of(k)?))).collect()
        }),
        base,
        exact: all.share(all.exact),
        shares: all.shares(),
        results: all.results,
        errors: all.errors,
        temperatures,
        training_tasks: request.training.clone(),
        tokens: all.tokens,
        sandbox: runner.level().to_owned(),
        python: runner.python().to_owned(),
        timeout_seconds: request.limits.wall.as_secs_f64(),
        origin: request.origin.clone(),
    }
}

fn all_k(request: &EvalRequest) -> Vec<usize> {
    let mut ks: Vec<usize> = request.k.iter().copied().chain([1]).collect();
    ks.sort_unstable();
    ks.dedup();
    ks
}

fn of_temperature(counts: &Counts, temperature: Option<f64>, request: &EvalRequest) -> TemperatureReport {
    let (tallies, verified) = (
        counts.tallies(|count| count.passed),
        counts.tallies(|count| count.verified),
    );
    let ks = all_k(request);
    let intervals: BTreeMap<usize, Interval> = ks.iter().map(|&k| (k, interval95(&tallies, k, request.seed))).collect();
    TemperatureReport {
        temperature,
        pass_at_k: ks.iter().map(|&k| (k, mean_pass_at_k(&tallies, k))).collect(),
        ci95_at_k: intervals.iter().map(|(&k, interval)| (k, interval.ends)).collect(),
        ci95_method_at_k: intervals.iter().map(|(&k, interval)| (k, interval.method)).collect(),
        verified_pass_at_k: ks.iter().map(|&k| (k, mean_pass_at_k(&verified, k))).collect(),
        pass_at_k_unseen: counts
            .unseen_tallies(&request.training)
            .map(|tallies| ks.iter().map(|&k| (k, mean_pass_at_k(&tallies, k))).collect()),
        base: counts.base_tallies().map(|tallies| BaseScores {
            pass_at_k: ks.iter().map(|&k| (k, mean_pass_at_k(&tallies, k))).collect(),
            ci95_at_k: ks
                .iter()
                .map(|&k| (k, interval95(&tallies, k, request.seed).ends))
                .collect(),
        }),
        not_verified: counts.not_verified.len(),
        exact: counts.share(counts.exact),
        shares: counts.shares(),
        results: counts.results.clone(),
        tokens: counts.tokens,
    }
}
