//! What a finished arm says: results, which repeat, and cost, which doesn't. Read from its directories.

use super::{
    arm::Arm,
    state::{ArmState, Eval, Train},
};
use crate::track::RunTiming;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Of one arm.
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

/// What an arm was trained from.
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

/// What an arm took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds of training: of its processes, loading and validation included. Of a process that was
    /// killed the time is lost, but it is never less than what the steps took.
    pub train_seconds: Option<f64>,
    /// Seconds of all evaluations.
    pub eval_seconds: Option<f64>,
    /// Tokens a second, in training steps.
    pub tokens_per_second: Option<f64>,
    /// Largest resident size in training, bytes.
    pub peak_memory: Option<f64>,
}

impl Cost {
    /// Seconds in all.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.train_seconds? + self.eval_seconds.unwrap_or(0.0))
    }
}

/// The figures of an arm as far as it is.
pub fn figures(arm: &Arm, state: &ArmState) -> Figures {
    let mut figures = Figures::default();
    let run = &state.run;
    if let Train::Done(trainer) | Train::Begun(Some(trainer)) = &state.train {
        figures.skipped = trainer.skipped;
        figures.rollbacks = trainer.rollbacks;
    }
    if let Train::Done(trainer) = &state.train {
        keep(&mut figures.results, "valid_loss", trainer.valid_loss);
        keep(&mut figures.results, "best_valid_loss", trainer.best_loss);
    }
    let lines = lines(&run.join("metrics.jsonl"));
    curves(&lines, &mut figures);
    if !matches!(state.train, Train::Done(_)) {
        figures.results.clear();
    }
    let timing = RunTiming::read(run);
    let of_processes = timing.map_or(0.0, |t| t.seconds);
    figures.cost.train_seconds = Some(figures.cost.train_seconds.unwrap_or(0.0).max(of_processes)).filter(|s| *s > 0.0);
    let peak = timing.and_then(|t| t.peak_memory).map(|bytes| bytes as f64);
    figures.cost.peak_memory = peak.or(figures.cost.peak_memory);
    for ((evaluation, _), eval) in arm.evaluations.iter().zip(&state.evals) {
        if let Eval::Done(dir) = eval {
            of_evaluation(evaluation.benchmark.name(), dir, &mut figures);
        }
    }
    let record = json(&run.join("run.json"));
    let text = |key: &str| record[key].as_str().unwrap_or("unknown").to_owned();
    figures.program = format!("{} ({})", text("wmtp"), text("commit"));
    figures.about = About {
        model: text("model"),
        data: text("data"),
        device: text("device"),
        started: text("started"),
    };
    figures
}

fn keep(results: &mut BTreeMap<String, f64>, name: &str, value: Option<f64>) {
    if let Some(value) = value.filter(|value| value.is_finite()) {
        results.insert(name.to_owned(), value);
    }
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line that a kill cut short is none.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Reads `metrics.jsonl`: a line a step, and a line a validation.
fn curves(lines: &[Value], figures: &mut Figures) {
    let (mut seconds, mut tokens, mut before) = (0.0, 0.0, 0.0);
    let mut peak: Option<f64> = None;
    for line in lines {
        let step = line["step"].as_u64().unwrap_or(0) as usize;
        if let Some(loss) = line["valid_loss"].as_f64() {
            figures.valid_curve.push((step, loss));
            for (k, ce) in line["valid_ce_heads"].as_array().into_iter().flatten().enumerate() {
                keep(&mut figures.results, &format!("valid_ce_head_{}", k + 1), ce.as_f64());
            }
        }
        if let Some(ce) = line["ce_head_1"].as_f64() {
            figures.train_curve.push((step, ce));
        }
        if let (Some(total), Some(rate)) = (line["tokens"].as_f64(), line["tok_s"].as_f64())
            && rate > 0.0
        {
            seconds += (total - before) / rate;
            tokens += total - before;
            before = total;
        }
        if let Some(mem) = line["mem"].as_f64() {
            peak = Some(peak.map_or(mem, |peak| peak.max(mem)));
        }
    }
    figures.cost.peak_memory = peak;
    if seconds > 0.0 {
        figures.cost.train_seconds = Some(seconds);
        figures.cost.tokens_per_second = Some(tokens / seconds);
    }
}

fn of_evaluation(name: &str, dir: &Path, figures: &mut Figures) {
    let report = json(&dir.join("eval.json"));
    if let Some(problems) = report["tasks"].as_u64().and_then(|n| usize::try_from(n).ok()) {
        figures.problems.insert(name.to_owned(), problems);
    }
    for (k, value) in report["pass_at_k"].as_object().into_iter().flatten() {
        keep(&mut figures.results, &format!("{name}.pass_at_{k}"), value.as_f64());
    }
    if let Some(seconds) = json(&dir.join("timing.json"))["seconds"].as_f64() {
        *figures.cost.eval_seconds.get_or_insert(0.0) += seconds;
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
