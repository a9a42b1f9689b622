//! Evaluations of a run's checkpoints: kept in the run's directory, and shown with their intervals.

use super::{
    plot::{Bar, BarChart, Chart, PlotError},
    run::{Evaluation, Run, visible},
    summary::percent,
};
use crate::{eval::passk::with_width, text::duration};
use serde::Serialize;
use serde_json::Value;

/// One line of the table: a benchmark at a temperature.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Benchmark, set and number of problems.
    pub benchmark: String,
    /// Which checkpoint, of which step.
    pub checkpoint: String,
    /// Sampling settings.
    pub sampling: String,
    /// pass@k with its interval, for every k.
    pub scores: String,
    /// The same of verified passes; empty where all are.
    pub verified: String,
    /// Passes that are not verified.
    pub not_verified: u64,
    /// Shares of failed samples by kind of failure.
    pub failures: String,
    /// Equal to the reference solution.
    pub exact: String,
    /// Duration and tokens.
    pub cost: String,
    /// Place of the samples.
    pub run_dir: String,
    /// Why the score is not one on unseen problems; empty if there is no known reason.
    pub seen: Vec<String>,
}

/// A score for charts and comparisons.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// `mbpp, 500 problems, temperature 0.2`: must be equal for scores to be comparable.
    pub label: String,
    /// pass@1.
    pub value: f64,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
}

/// The table of a run.
pub fn rows(run: &Run) -> Vec<Row> {
    run.evaluations.iter().flat_map(rows_of).collect()
}

fn rows_of(evaluation: &Evaluation) -> Vec<Row> {
    let report = &evaluation.report;
    let text = |key: &str| report[key].as_str().map(visible);
    let temperatures = report["temperatures"].as_array().cloned().unwrap_or_default();
    let step = report["step"]
        .as_u64()
        .map_or(String::new(), |step| format!(", step {step}"));
    let seconds = report["seconds"].as_f64().map_or("–".into(), duration);
    temperatures
        .iter()
        .map(|at| {
            let exact = at["exact"].as_f64().map_or("–".into(), percent);
            Row {
                benchmark: benchmark(report),
                checkpoint: format!("{}{step}", text("checkpoint").unwrap_or_else(|| "–".into())),
                sampling: sampling(report, at),
                scores: scores(&at["pass_at_k"], |k| interval(report, at, k)),
                verified: match at["not_verified"].as_u64() {
                    Some(n) if n > 0 => scores(&at["verified_pass_at_k"], |_| None),
                    _ => String::new(),
                },
                not_verified: at["not_verified"].as_u64().unwrap_or(0),
                failures: failures(&at["shares"]),
                exact,
                cost: format!("{seconds}, {} tokens", at["tokens"].as_u64().unwrap_or(0)),
                run_dir: text("run_dir").unwrap_or_else(|| evaluation.name.clone()),
                seen: seen(report),
            }
        })
        .collect()
}

pub(super) fn benchmark(report: &Value) -> String {
    let name = visible(report["benchmark"].as_str().unwrap_or("?"));
    let variant = match report["variant"].as_str() {
        None | Some("full") => String::new(),
        Some(variant) => format!(" ({})", visible(variant)),
    };
    let altered = if report["origin"]["altered_data"] == "true" {
        ", altered data"
    } else {
        ""
    };
    format!(
        "{name}{variant}, {} problems{altered}",
        report["tasks"].as_u64().unwrap_or(0)
    )
}

pub(super) fn sampling(report: &Value, at: &Value) -> String {
    let prompt = report["prompt"]
        .as_str()
        .map_or(String::new(), |prompt| format!(", {}", visible(prompt)));
    match at["temperature"].as_f64() {
        None => format!("given{prompt}"),
        Some(0.0) => format!("greedy{prompt}"),
        Some(temperature) => {
            let samples = report["samples"].as_u64().unwrap_or(0);
            let each = if samples == 1 { "sample" } else { "samples" };
            format!("temperature {temperature}, {samples} {each} each{prompt}")
        }
    }
}

/// `pass@1 7.0% (2.0% to 12%), pass@10 …`, in the order of k.
fn scores(values: &Value, interval: impl Fn(&str) -> Option<[f64; 2]>) -> String {
    let mut all: Vec<(u64, String)> = values
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, value)| {
            let interval = interval(k).map_or(String::new(), |[low, high]| {
                format!(" ({} to {})", percent(low), percent(high))
            });
            Some((
                k.parse().ok()?,
                format!("pass@{k} {}{interval}", percent(value.as_f64()?)),
            ))
        })
        .collect();
    all.sort();
    all.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

/// The 95% interval of pass@k at a temperature; its width is never 0.
fn interval(report: &Value, at: &Value, k: &str) -> Option<[f64; 2]> {
    let ends = &at["ci95_at_k"][k];
    let problems = usize::try_from(report["tasks"].as_u64()?).ok()?;
    let ends = [ends[0].as_f64()?, ends[1].as_f64()?];
    Some(with_width(ends, at["pass_at_k"][k].as_f64()?, problems))
}

/// The problems that were trained on, a sentence for each reason.
pub fn seen(report: &Value) -> Vec<String> {
    let set = |key: &str, what: &str| {
        let set = &report["training_tasks"][key];
        let (count, tasks) = (set["count"].as_u64()?, visible(set["tasks"].as_str()?));
        Some(format!("{count} problems ({tasks}) {what}"))
    };
    [
        set("trained_on", "were trained on"),
        set("validated_on", "were validation problems"),
        set("mbpp_training_split", "are of MBPP's training split"),
        set("in_prompt", "have their solution in the prompt"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn failures(shares: &Value) -> String {
    let share = |key: &str| shares[key].as_f64();
    let all = [
        ("no Python", share("parse").map(|parse| 1.0 - parse)),
        ("wrong", share("wrong")),
        ("error", share("error")),
        ("timeout", share("timeout")),
        ("crash", share("crash")),
        ("too much output", share("output_limit")),
    ];
    let seen = all.iter().filter_map(|(name, share)| Some((name, (*share)?)));
    let seen = seen.filter(|(_, share)| *share > 0.0);
    let texts: Vec<String> = seen.map(|(name, share)| format!("{name} {}", percent(share))).collect();
    if texts.is_empty() {
        "none".into()
    } else {
        texts.join(", ")
    }
}

/// pass@1 of every evaluation at every temperature; of those with the same label the newest.
pub fn pass_at_1(run: &Run) -> Vec<Score> {
    let mut all: Vec<Score> = Vec::new();
    for evaluation in &run.evaluations {
        let report = &evaluation.report;
        for at in report["temperatures"].as_array().into_iter().flatten() {
            let Some(value) = at["pass_at_k"]["1"].as_f64() else {
                continue;
            };
            let score = Score {
                label: format!("{}, {}", benchmark(report), sampling(report, at)),
                value,
                interval: interval(report, at, "1"),
            };
            all.retain(|other| other.label != score.label);
            all.push(score);
        }
    }
    all
}

/// pass@1 as bars: a group for each evaluation, with one bar per run.
pub fn chart(runs: &[(String, Vec<Score>)]) -> Result<Option<String>, PlotError> {
    let mut labels: Vec<&str> = Vec::new();
    for score in runs.iter().flat_map(|(_, scores)| scores) {
        if !labels.contains(&score.label.as_str()) {
            labels.push(&score.label);
        }
    }
    if labels.is_empty() {
        return Ok(None);
    }
    let bar = |label: &str, series: usize, scores: &[Score]| {
        let score = scores.iter().find(|score| score.label == label);
        Bar {
            label: label.into(),
            series,
            value: score.map_or(f64::NAN, |score| 100.0 * score.value),
            interval: score
                .and_then(|score| score.interval)
                .map(|ends| ends.map(|end| 100.0 * end)),
            shown: score.map_or("not evaluated".into(), |score| percent(score.value)),
        }
    };
    let bars = labels
        .iter()
        .flat_map(|label| runs.iter().enumerate().map(|(i, (_, scores))| bar(label, i, scores)));
    let names = runs.iter().map(|(name, _)| name.clone());
    let chart = BarChart {
        title: "pass@1".into(),
        unit: "% of the problems, with 95% intervals over problems".into(),
        series: if runs.len() > 1 { names.collect() } else { Vec::new() },
        bars: bars.collect(),
        includes: Some(10.0),
    };
    chart.html().map(Some)
}

/// What the critic's value stage learned, as rows of a table.
pub fn value_stage(run: &Run) -> Vec<(String, String)> {
    let Some(report) = &run.value_stage else {
        return Vec::new();
    };
    let number = |value: &Value| value.as_f64().map(|value| format!("{value:.4}"));
    let held_out = &report["held_out"];
    let count = |value: &Value| value.as_u64().map(|n| n.to_string());
    let rows = [
        ("Steps", count(&report["steps"])),
        ("Loss of the first step", number(&report["first_loss"])),
        ("Loss of the last tenth", number(&report["last_loss"])),
        ("Held-out solutions", count(&held_out["documents"])),
        ("Loss on them", number(&held_out["value_loss"])),
        ("Explained variance", number(&held_out["explained_variance"])),
        ("AUROC of the response's mean value", number(&held_out["auroc_mean"])),
        ("AUROC of the last value", number(&held_out["auroc_last"])),
        ("AUROC of minus the model's own CE", number(&held_out["auroc_ce"])),
        (
            "Pairs of one problem in order, by the mean value",
            number(&held_out["within_mean"]),
        ),
        ("The same, by minus the model's own CE", number(&held_out["within_ce"])),
        (
            "Better than the model's own likelihood",
            report["beats_likelihood"]
                .as_bool()
                .map(|beats| if beats { "yes" } else { "no" }.to_owned()),
        ),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    rows.collect()
}

/// An `eval.json` for tests.
#[cfg(test)]
pub fn example() -> Value {
    serde_json::json!({
        "benchmark": "mbpp", "variant": "full", "tasks": 100, "samples": 2, "prompt": "few-shot",
        "ci95": [0.02, 0.12], "not_verified": 1, "seconds": 71.0, "run_dir": "runs/eval-mbpp-1", "shares": {"parse": 0.9},
        "temperatures": [
            {"temperature": 0.0, "pass_at_k": {"1": 0.07}, "ci95_at_k": {"1": [0.02, 0.12]}, "not_verified": 0,
             "verified_pass_at_k": {"1": 0.07}, "exact": 0.01, "tokens": 1234,
             "shares": {"parse": 0.9, "wrong": 0.5, "error": 0.33, "timeout": 0.0, "crash": 0.0, "output_limit": 0.0}},
            {"temperature": 0.8, "pass_at_k": {"10": 0.2, "1": 0.05}, "ci95_at_k": {"1": [0.01, 0.1], "10": [0.1, 0.3]},
             "not_verified": 1, "verified_pass_at_k": {"1": 0.04, "10": 0.19}, "exact": 0.0, "tokens": 4321, "shares": {"parse": 1.0}}
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let mut report = example();
        report["checkpoint"] = "best".into();
        report["step"] = 84.into();
        Run {
            evaluations: vec![Evaluation {
                name: "eval-mbpp-1".into(),
                report,
            }],
            ..Run::default()
        }
    }

    #[test]
    fn every_temperature_is_a_row_with_its_intervals_and_failures() {
        let rows = rows(&run());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].benchmark, "mbpp, 100 problems");
        assert_eq!(rows[0].checkpoint, "best, step 84");
        assert_eq!(rows[0].sampling, "greedy, few-shot");
        assert_eq!(rows[0].scores, "pass@1 7.0% (2.0% to 12%)");
        assert_eq!(rows[0].failures, "no Python 10%, wrong 50%, error 33%");
        assert_eq!(rows[1].scores, "pass@1 5.0% (1.0% to 10%), pass@10 20% (10% to 30%)");
        assert_eq!(
            (rows[1].not_verified, rows[1].verified.as_str()),
            (1, "pass@1 4.0%, pass@10 19%")
        );
        assert_eq!(rows[1].failures, "none");
    }

    #[test]
    fn of_equal_evaluations_the_newest_counts() {
        let mut run = run();
        let mut newer = run.evaluations[0].clone();
        newer.report["temperatures"][0]["pass_at_k"]["1"] = 0.5.into();
        run.evaluations.push(newer);
        let scores = pass_at_1(&run);
        assert_eq!(scores.len(), 2);
        assert!(scores.iter().any(|score| score.value == 0.5) && !scores.iter().any(|score| score.value == 0.07));
    }
}
