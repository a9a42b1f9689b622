//! Two evaluations compared problem by problem, arms found in sweeps, and problems that were trained on.

mod common;

use common::{json, lines, succeed, wmtp};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A short run of the micro model.
fn train(home: &Path, pipeline: &str, name: &str, set: &[&str]) -> Output {
    let mut command = wmtp(home);
    command.args([
        "train",
        pipeline,
        "--run-name",
        name,
        "--output",
        "runs",
        "--plain",
        "--max-steps",
        "12",
    ]);
    let short = ["data.seq_len=256", "batching.micro_batch=1", "train.validate_every=6"];
    command.args(short.iter().chain(set).flat_map(|set| ["--set", set]));
    succeed(&mut command)
}

fn report(home: &Path, args: &[&str]) -> Command {
    let mut command = wmtp(home);
    command.arg("report").args(args).args(["--set", "paths.runs=runs"]);
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The page as a browser reads it: it is XML, too.
fn page(html: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(html, options).unwrap_or_else(|e| panic!("{e}"))
}

/// Judges MBPP's tasks from 11 on, of which the references of those in `passes` are given, and returns the
/// evaluation's name.
fn evaluated(home: &Path, passes: &[bool]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mbpp/mbpp.jsonl");
    let problems = lines(&file);
    let answers = passes.iter().zip(11..).map(|(&passes, task)| {
        let problem = problems
            .iter()
            .find(|problem| problem["task_id"] == task)
            .expect("the task");
        let code = if passes { problem["code"].clone() } else { "pass".into() };
        serde_json::json!({"task_id": task, "solution": code}).to_string() + "\n"
    });
    fs::write(home.join("answers.jsonl"), answers.collect::<String>()).expect("a file");
    let mut command = wmtp(home);
    let tasks = format!("11-{}", 10 + passes.len());
    command.args([
        "eval",
        "mbpp",
        "--predictions",
        "answers.jsonl",
        "--tasks",
        &tasks,
        "--json",
    ]);
    let report = json(&succeed(command.args(["--output", "runs"])));
    let name = Path::new(report["run_dir"].as_str().expect("a directory")).file_name();
    name.expect("a name").to_string_lossy().into_owned()
}

#[test]
fn two_evaluations_are_compared_problem_by_problem_as_scipy_does() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/paired.json")).expect("the fixture");
    let cases = fixture["cases"].as_array().expect("cases");
    let case = cases
        .iter()
        .find(|case| case["name"] == "one sample, 7 problems")
        .expect("the case");
    let side = |i: usize| -> Vec<bool> {
        let pairs = case["pairs"].as_array().expect("pairs");
        pairs.iter().map(|pair| pair[i] == 1).collect()
    };
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let (a, b) = (evaluated(home, &side(1)), evaluated(home, &side(3)));
    let output = succeed(&mut report(home, &[&a, &b, "--output", "out", "--json"]));
    let document = json(&output);
    let comparison = &document["paired"][0];
    let ours = &comparison["differences"][0];
    for key in ["difference", "p_value"] {
        let (ours, theirs) = (ours[key].as_f64().expect(key), case[key].as_f64().expect(key));
        assert!((ours - theirs).abs() < 1e-12, "{key}: {ours}, {theirs}");
    }
    for i in 0..2 {
        let (ours, theirs) = (
            ours["ci95"][i].as_f64().expect("an end"),
            case["ci95"][i].as_f64().expect("an end"),
        );
        assert!((ours - theirs).abs() < 1e-12, "{ours}, {theirs}");
    }
    assert_eq!((&ours["only_a"], &ours["only_b"]), (&1.into(), &4.into()));
    let text = String::from_utf8_lossy(&succeed(&mut report(home, &[&a, &b, "--output", "out"])).stdout).into_owned();
    let said = "+42.9 points (95% paired bootstrap \u{2212}14.3 to +85.7), p = 0.38 (McNemar's exact test: B alone passes 4 problems, A alone 1)";
    assert!(text.contains(said), "{text}");
    let html = read(&home.join("out/comparison.html"));
    page(&html);
    assert!(
        html.contains("+42.9") && html.contains("McNemar, exact: 4 against 1 problems"),
        "the page has the figures"
    );
    assert!(read(&home.join("out/comparison.md")).contains("| +42.9 |"));
    // One of them alone is no training run.
    let refused = report(home, &[&a]).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn arms_are_found_in_their_sweeps() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "baseline", "arm-s1", &[]);
    fs::create_dir_all(home.join("runs/sweep-a")).expect("a directory");
    fs::rename(home.join("runs/arm-s1"), home.join("runs/sweep-a/arm-s1")).expect("a run in a sweep");
    let document = json(&succeed(&mut report(home, &["arm-s1", "--json"])));
    assert_eq!(document["runs"][0]["name"], "arm-s1");
    fs::create_dir_all(home.join("runs/sweep-b/arm-s1")).expect("a directory");
    fs::copy(
        home.join("runs/sweep-a/arm-s1/run.json"),
        home.join("runs/sweep-b/arm-s1/run.json"),
    )
    .expect("a run");
    let refused = report(home, &["arm-s1"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(2) && said.contains("several sweeps"),
        "{said}"
    );
}

#[test]
fn problems_that_the_run_trained_on_are_flagged() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "baseline", "seen", &[]);
    let mut command = wmtp(home);
    command.args([
        "eval",
        "mbpp",
        "--model",
        "runs/seen/checkpoints/last",
        "--tasks",
        "600-602,608",
        "--output",
        "runs",
    ]);
    command.args(["--max-new-tokens", "4", "--temperature", "0", "--json"]);
    let report = json(&succeed(&mut command));
    let seen = &report["training_tasks"];
    assert_eq!(seen["trained_on"]["tasks"], "601-602", "608 is left out of training");
    assert_eq!(seen["validated_on"]["tasks"], "600");
    assert_eq!(seen["mbpp_training_split"]["tasks"], "601-602, 608");
    let html = read(&home.join("runs/seen/report.html"));
    assert!(
        html.contains("2 problems (601-602) were trained on"),
        "flagged on the page"
    );
}
