//! What a sampling run is asked for, checked before anything is drawn or written.

use super::{Benchmark, EvalError, lengths::TooLong, sandbox::Limits, training_tasks::TrainingTasks};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// What to evaluate and how. How prompts are written is the benchmark's.
#[derive(Clone, Debug)]
pub struct EvalRequest {
    /// Problem numbers, each once.
    pub tasks: Vec<u32>,
    /// Completions drawn for each problem, n.
    pub samples: usize,
    /// The k of pass@k, each at most `samples`; 1 is always reported.
    pub k: Vec<usize>,
    /// Sampling temperatures, 0 for greedy: `samples` completions at each. Empty where completions
    /// are given, not drawn.
    pub temperatures: Vec<f64>,
    /// Top-p (nucleus) sampling threshold, in (0, 1]. The generator applies it, here it is checked
    /// and reported.
    pub top_p: f64,
    /// Every sample's seed follows from this one, and so does the bootstrap's.
    pub seed: u64,
    /// Longest completion in tokens. As `top_p`.
    pub max_new_tokens: usize,
    /// What becomes of problems whose prompt is longer than the model takes.
    pub too_long: TooLong,
    /// What each program may use.
    pub limits: Limits,
    /// Where the run's files go; made if absent.
    pub output: PathBuf,
    /// Resume the run that `output` holds.
    pub resume: bool,
    /// What else decides the samples: the model and its hash, the precision. Reported, and a resumed
    /// run must have the same.
    pub origin: BTreeMap<String, String>,
    /// Which problems are no unseen ones; reported.
    pub training: TrainingTasks,
    /// Texts that are kept with the result, by file name: the settings.
    pub files: Vec<(String, String)>,
    /// A directory of verdicts to look in and add to.
    pub verdict_cache: Option<PathBuf>,
    /// Programs judged at once; None for as many as there are cores.
    pub judges: Option<usize>,
}

impl EvalRequest {
    /// One sample a problem at the default temperature 0.2 and top-p 0.95, seed 42.
    pub fn new(tasks: Vec<u32>, output: PathBuf) -> Self {
        Self {
            tasks,
            samples: 1,
            k: vec![1],
            temperatures: vec![0.2],
            top_p: 0.95,
            seed: 42,
            max_new_tokens: 512,
            too_long: TooLong::Refuse,
            limits: Limits::default(),
            output,
            resume: false,
            origin: BTreeMap::new(),
            training: TrainingTasks::default(),
            files: Vec::new(),
            verdict_cache: None,
            judges: None,
        }
    }

    /// Says in one sentence what cannot be carried out.
    ///
    /// # Errors
    /// [`EvalError::Request`]. An unknown task is found later, by the benchmark.
    pub fn check(&self) -> Result<(), EvalError> {
        let fail = |what: String| Err(EvalError::Request(what));
        if self.tasks.is_empty() {
            return fail("there is nothing to evaluate: name at least one task".into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.tasks.iter().find(|&&task| !seen.insert(task)) {
            return fail(format!("task {twice} is named twice; name each task once"));
        }
        for (name, value) in [("samples", self.samples), ("max_new_tokens", self.max_new_tokens)] {
            if value == 0 {
                return fail(format!("{name} is 0; it has to be at least 1"));
            }
        }
        if let Some(k) = self.k.iter().find(|&&k| k == 0 || k > self.samples) {
            return fail(format!(
                "pass@{k} cannot be had from {} samples a task; k goes from 1 to the number of samples",
                self.samples
            ));
        }
        for (index, &temperature) in self.temperatures.iter().enumerate() {
            if !(temperature.is_finite() && temperature >= 0.0) {
                return fail(format!("temperature is {temperature}; it has to be 0 (greedy) or more"));
            }
            if temperature == 0.0 && self.samples > 1 {
                return fail(format!(
                    "temperature 0 draws the same completion {} times; use 1 sample or temperatures above 0",
                    self.samples
                ));
            }
            if self.temperatures.iter().take(index).any(|other| *other == temperature) {
                return fail(format!("temperature {temperature} is named twice; name each once"));
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail(format!("top_p is {}; it has to be above 0 and at most 1", self.top_p));
        }
        Ok(())
    }
}

/// Reads task numbers as the command line gives them: `11-110`, `7`, `2,5-8`; ends inclusive.
///
/// # Errors
/// [`EvalError::Request`] for what is no number, no range, or runs backwards.
pub fn parse_tasks(text: &str) -> Result<Vec<u32>, EvalError> {
    let wrong = |part: &str| {
        EvalError::Request(format!(
            "`{part}` is no task number or range; write tasks as `11-110` or `2,5-8`"
        ))
    };
    let mut tasks = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |digits: &str| digits.trim().parse::<u32>().map_err(|_| wrong(part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(EvalError::Request(format!(
                "`{part}` ends before it starts; write tasks as `11-110`"
            )));
        }
        if last - first > 100_000 {
            return Err(wrong(part));
        }
        tasks.extend(first..=last);
    }
    Ok(tasks)
}

/// The same where a part may also be a problem's name: `HumanEval/7`, `1277_E`, `Mbpp/11`.
///
/// # Errors
/// [`EvalError::Request`] for a part that is neither.
pub fn parse_task_names(text: &str, benchmark: &dyn Benchmark) -> Result<Vec<u32>, EvalError> {
    if let Some(task) = benchmark.task_named(text.trim()) {
        return Ok(vec![task]); // a name with a comma in it
    }
    let mut tasks = Vec::new();
    for part in text.split(',').map(str::trim) {
        match benchmark.task_named(part) {
            Some(task) => tasks.push(task),
            None => tasks.extend(parse_tasks(part).map_err(|error| {
                EvalError::Request(format!(
                    "{error}; `{part}` is no name of a problem of {} either",
                    benchmark.name()
                ))
            })?),
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_as_ranges_and_numbers() {
        assert_eq!(parse_tasks("11-13").unwrap(), [11, 12, 13]);
        assert_eq!(parse_tasks("2, 5-6,9").unwrap(), [2, 5, 6, 9]);
        for wrong in ["", "a", "5-", "-5", "9-7", "1-2-3", "1,,2", "0-4294967295"] {
            let error = parse_tasks(wrong).unwrap_err().to_string();
            assert!(error.contains("write tasks as"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_carried_out_says_why() {
        let request = || EvalRequest::new(vec![11, 12], PathBuf::from("nowhere"));
        assert!(request().check().is_ok());
        let cases: [(EvalRequest, &str); 10] = [
            (
                EvalRequest {
                    tasks: vec![],
                    ..request()
                },
                "name at least one task",
            ),
            (
                EvalRequest {
                    tasks: vec![11, 12, 11],
                    ..request()
                },
                "task 11 is named twice",
            ),
            (
                EvalRequest {
                    samples: 0,
                    ..request()
                },
                "samples is 0",
            ),
            (
                EvalRequest {
                    max_new_tokens: 0,
                    ..request()
                },
                "max_new_tokens is 0",
            ),
            (
                EvalRequest {
                    k: vec![1, 10],
                    samples: 5,
                    ..request()
                },
                "pass@10 cannot be had from 5 samples",
            ),
            (
                EvalRequest {
                    temperatures: vec![f64::NAN],
                    ..request()
                },
                "temperature is NaN",
            ),
            (
                EvalRequest {
                    temperatures: vec![0.2, -0.1],
                    ..request()
                },
                "temperature is -0.1",
            ),
            (
                EvalRequest {
                    temperatures: vec![0.0],
                    samples: 2,
                    ..request()
                },
                "the same completion 2 times",
            ),
            (
                EvalRequest {
                    temperatures: vec![0.2, 0.8, 0.2],
                    ..request()
                },
                "temperature 0.2 is named twice",
            ),
            (
                EvalRequest {
                    top_p: 0.0,
                    ..request()
                },
                "top_p is 0",
            ),
        ];
        for (request, expected) in cases {
            let error = request.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
