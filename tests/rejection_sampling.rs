//! The loop of `docs/rejection-sampling.md` with the smallest model: sample, label, train.

mod common;

use common::{json, lines, succeed, wmtp};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Three tasks, each with a right and a wrong program.
fn tasks() -> String {
    let task = |(name, right, wrong): (&str, &str, &str)| {
        let code = |body: &str| format!("def {name}(x):\n    return {body}\n");
        let row = json!({
            "task_id": name,
            "prompt": format!("Write {name}(x).\n"),
            "completions": [code(right), code(wrong)],
            "tests": [format!("assert {name}(3) == {right}").replace('x', "3")],
        });
        format!("{row}\n")
    };
    [
        ("double", "2 * x", "x"),
        ("negate", "-x", "x"),
        ("square", "x * x", "2 * x"),
    ]
    .map(task)
    .concat()
}

fn train(home: &Path, name: &str, data: &str, sets: &[&str]) -> Value {
    let mut command = wmtp(home);
    command.args(["train", "critic", "--plain", "--max-steps", "2", "--run-name", name]);
    command.args([
        "--data",
        data,
        "--set",
        "scorer.max_steps=2",
        "--set",
        "train.record.documents=0",
    ]);
    command.args(["--set", "batching.micro_batch=1"]);
    for set in sets {
        command.args(["--set", set]);
    }
    succeed(&mut command);
    let run = fs::read(home.join("runs").join(name).join("run.json")).expect("a record");
    serde_json::from_slice(&run).expect("JSON")
}

#[test]
fn what_is_sampled_is_labelled_and_what_is_labelled_trains() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    fs::write(path.join("tasks.jsonl"), tasks()).unwrap();

    let sample = |output: &str, more: &[&str]| {
        let mut command = wmtp(path);
        command.args([
            "sample",
            "tasks.jsonl",
            "--model",
            "builtin:micro",
            "--max-new-tokens",
            "8",
            "--json",
        ]);
        json(&succeed(command.args(["--output", output]).args(more)))
    };
    let report = sample("drawn.jsonl", &["--n", "3"]);
    assert_eq!(
        (&report["prompts"], &report["rows"], &report["resumed"]),
        (&json!(3), &json!(3), &json!(0))
    );
    let drawn = fs::read_to_string(path.join("drawn.jsonl")).unwrap();
    // The same seed gives the same samples, also where a part of them is there.
    let first: String = drawn.lines().take(1).map(|line| format!("{line}\n")).collect();
    fs::write(path.join("begun.jsonl"), &first).unwrap();
    let report = sample("begun.jsonl", &["--n", "3"]);
    assert_eq!((&report["rows"], &report["resumed"]), (&json!(2), &json!(1)));
    assert_eq!(fs::read_to_string(path.join("begun.jsonl")).unwrap(), drawn);
    let other = sample("other.jsonl", &["--n", "3", "--seed", "7"]);
    assert_eq!(other["rows"], json!(3));
    assert_ne!(
        lines(&path.join("other.jsonl"))[0]["completions"],
        lines(&path.join("drawn.jsonl"))[0]["completions"]
    );

    // What a model with random weights writes is no program.
    let label = |file: &str| json(&succeed(wmtp(path).args(["label", file, "--json"])));
    let report = label("drawn.jsonl");
    assert_eq!((&report["rows"], &report["right"]), (&json!(3), &json!(0)));
    let labelled = lines(&path.join("drawn.labelled.jsonl"));
    let texts = labelled[0]["completions"].as_array().unwrap().len();
    assert_eq!(labelled[0]["labels"], json!(vec![false; texts]));
    let report = label("tasks.jsonl");
    assert_eq!((&report["right"], &report["wrong"]), (&json!(3), &json!(3)));

    // Labels from the file, and the same labels found before training.
    let given = train(path, "given", "tasks.labelled.jsonl", &[]);
    let found = train(path, "found", "tasks.jsonl", &["scorer.reward=tests"]);
    assert_eq!(given["data_sha256"], found["data_sha256"]);
    let report = |name: &str| fs::read_to_string(path.join("runs").join(name).join("critic/report.json")).unwrap();
    assert_eq!(report("given"), report("found"));
}
