//! The figures of an arm, read from its directories: results (reproducible) and cost (not reproducible).

use super::{
    arm::Arm,
    state::{ArmState, Eval, Train},
};
use crate::{
    fs::read_json,
    run::{MetricsLine, RunDir, file},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The figures of one arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// By name; losses in nats, pass@k from 0 to 1. Only finite numbers.
    pub results: BTreeMap<String, f64>,
    /// Time and memory.
    pub cost: Cost,
    /// Validation losses by step.
    #[serde(skip)]
    pub valid_curve: Vec<(usize, f64)>,
    /// Head 1's unweighted cross-entropy in training, by step.
    #[serde(skip)]
    pub train_curve: Vec<(usize, f64)>,
    /// Steps that were not applied.
    pub skipped: usize,
    /// Returns to a checkpoint.
    pub rollbacks: usize,
    /// The program that trained it: version and commit.
    pub program: String,
    /// Problems of each benchmark.
    #[serde(skip)]
    pub problems: BTreeMap<String, usize>,
    /// Model, data, device and start, as `run.json` has them.
    #[serde(skip)]
    pub about: About,
}

/// Origin of an arm's training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// URI of the model.
    pub model: String,
    /// URI of the data.
    pub data: String,
    /// The device's name.
    pub device: String,
    /// When it began, RFC 3339.
    pub started: String,
}

/// Cost of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Wall-clock seconds of training, loading and validation included. The time of a killed process is
    /// unknown; the sum of its steps is the lower bound.
    pub train_seconds: Option<f64>,
    /// Seconds of all evaluations.
    pub eval_seconds: Option<f64>,
    /// Throughput of training steps in tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Peak resident set size of training in bytes.
    pub peak_memory: Option<f64>,
}

impl Cost {
    /// Seconds of training and evaluation.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.train_seconds? + self.eval_seconds.unwrap_or(0.0))
    }
}

/// The figures of an arm in its present state.
pub fn figures(arm: &Arm, state: &ArmState) -> Figures {
    let mut figures = Figures::default();
    let run = RunDir::at(&state.run);
    if let Train::Done(trainer) | Train::Begun(Some(trainer)) = &state.train {
        figures.skipped = trainer.skipped;
        figures.rollbacks = trainer.rollbacks;
    }
    if let Train::Done(trainer) = &state.train {
        keep(&mut figures.results, "valid_loss", trainer.valid_loss);
        keep(&mut figures.results, "best_valid_loss", trainer.best_loss);
    }
    let lines = lines(&run.file(file::METRICS));
    curves(&lines, &mut figures);
    if !matches!(state.train, Train::Done(_)) {
        figures.results.clear();
    }
    let timing = run.timing();
    let of_processes = timing.map_or(0.0, |t| t.seconds);
    figures.cost.train_seconds = Some(figures.cost.train_seconds.unwrap_or(0.0).max(of_processes)).filter(|s| *s > 0.0);
    let peak = timing.and_then(|t| t.peak_memory).map(|bytes| bytes as f64);
    figures.cost.peak_memory = peak.or(figures.cost.peak_memory);
    for ((evaluation, _), eval) in arm.evaluations.iter().zip(&state.evals) {
        if let Eval::Done(dir) = eval {
            of_evaluation(evaluation.benchmark.name(), dir, &mut figures);
        }
    }
    let record = run.record().unwrap_or_default();
    let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
    figures.program = format!("{} ({})", known(record.wmtp), known(record.commit.flatten()));
    figures.about = About {
        model: known(record.model),
        data: known(record.data),
        device: known(record.device),
        started: known(record.started),
    };
    figures
}

fn keep(results: &mut BTreeMap<String, f64>, name: &str, value: Option<f64>) {
    if let Some(value) = value.filter(|value| value.is_finite()) {
        results.insert(name.to_owned(), value);
    }
}

/// Null where there is no such file, or where it is not JSON.
fn json(path: &Path) -> Value {
    read_json(path).unwrap_or_default()
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line that a kill truncated is skipped.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Reads `metrics.jsonl`: one line per step and one per validation.
fn curves(lines: &[Value], figures: &mut Figures) {
    let (mut seconds, mut tokens, mut before) = (0.0, 0.0, 0.0);
    let mut peak: Option<f64> = None;
    for line in lines.iter().filter_map(|line| MetricsLine::parse(line.clone()).ok()) {
        let line = match line {
            MetricsLine::Valid(line) => {
                if let Some(loss) = line.valid_loss {
                    figures.valid_curve.push((line.step, loss));
                    for (k, &ce) in line.valid_ce_heads.iter().enumerate() {
                        keep(&mut figures.results, &format!("valid_ce_head_{}", k + 1), ce);
                    }
                }
                continue;
            }
            MetricsLine::Step(line) => line,
        };
        if let Some(ce) = line.ce(1) {
            figures.train_curve.push((line.step, ce));
        }
        if line.tok_s > 0.0 {
            let total = line.tokens as f64;
            seconds += (total - before) / line.tok_s;
            tokens += total - before;
            before = total;
        }
        if let Some(mem) = line.mem {
            peak = Some(peak.map_or(mem as f64, |peak| peak.max(mem as f64)));
        }
    }
    figures.cost.peak_memory = peak;
    if seconds > 0.0 {
        figures.cost.train_seconds = Some(seconds);
        figures.cost.tokens_per_second = Some(tokens / seconds);
    }
}

fn of_evaluation(name: &str, dir: &Path, figures: &mut Figures) {
    let report = json(&dir.join(file::EVAL));
    if let Some(problems) = report["tasks"].as_u64().and_then(|n| usize::try_from(n).ok()) {
        figures.problems.insert(name.to_owned(), problems);
    }
    for (k, value) in report["pass_at_k"].as_object().into_iter().flatten() {
        keep(&mut figures.results, &format!("{name}.pass_at_{k}"), value.as_f64());
    }
    if let Some(timing) = RunDir::at(dir).timing() {
        *figures.cost.eval_seconds.get_or_insert(0.0) += timing.seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_and_validations_are_told_apart_and_time_is_of_steps() {
        let lines = [
            json!({"step": 1, "tokens": 100, "loss": 7.5, "ce_head_1": 7.0, "tok_s": 50.0, "mem": 10}),
            json!({"step": 1, "valid_loss": 6.5, "valid_ce_heads": [6.0, 7.0]}),
            json!({"step": 2, "tokens": 300, "loss": null, "ce_head_1": null, "tok_s": 100.0, "mem": 30}),
            json!({"step": 2, "valid_loss": 6.0, "valid_ce_heads": [5.5, 6.5]}),
        ];
        let mut figures = Figures::default();
        curves(&lines, &mut figures);
        assert_eq!(figures.valid_curve, [(1, 6.5), (2, 6.0)]);
        assert_eq!(figures.train_curve, [(1, 7.0)]);
        assert_eq!(figures.results["valid_ce_head_1"], 5.5, "the newest");
        assert_eq!(figures.results["valid_ce_head_2"], 6.5);
        // 100 tokens in 2 seconds, 200 in 2.
        assert_eq!(figures.cost.train_seconds, Some(4.0));
        assert_eq!(figures.cost.tokens_per_second, Some(75.0));
        assert_eq!(figures.cost.peak_memory, Some(30.0));
    }

    #[test]
    fn what_is_not_finite_or_not_there_is_no_result() {
        let mut results = BTreeMap::new();
        keep(&mut results, "a", Some(f64::NAN));
        keep(&mut results, "b", None);
        assert!(results.is_empty());
    }
}
