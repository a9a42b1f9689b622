//! What happens when a step fails, in the order that docs/training.md gives, through the built program.

mod common;

use common::{lines, wmtp};
use serde_json::Value;
use std::{fs, path::Path, process::Output};

/// Trains in `home/runs/r`, without a warm-up, so that the first step has the whole learning rate.
fn train(home: &Path, pipeline: &str, steps: usize, set: &[&str]) -> Output {
    let mut command = wmtp(home);
    command.args(["train", pipeline, "--plain", "--output", "runs", "--run-name", "r"]);
    command.args(["--max-steps", &steps.to_string()]);
    let small = [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "data.seq_len=256",
        "batching.micro_batch=1",
        "model.mtp.n_heads=1",
        "optim.warmup=0",
        "optim.min_lr_ratio=1",
        "train.record.documents=0",
        "train.checkpoint.last_every=1",
    ];
    command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
    command.output().expect("the program starts")
}

/// The run's events as `name step`, with `saved` for a checkpoint.
fn events(home: &Path) -> Vec<String> {
    let events = lines(&home.join("runs/r/events.jsonl"));
    let short = |event: &Value| {
        let name = event["event"].as_str().expect("a name");
        let name = if name == "checkpoint" { "saved" } else { name };
        format!("{name} {}", event["step"])
    };
    events.iter().map(short).collect()
}

fn reason(home: &Path, name: &str) -> String {
    let events = lines(&home.join("runs/r/events.jsonl"));
    let event = events.iter().find(|event| event["event"] == name).expect("the event");
    event["reason"].as_str().expect("a reason").to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The step of a checkpoint, all of whose weights are finite.
fn finite(home: &Path, name: &str) -> u64 {
    let dir = home.join("runs/r/checkpoints").join(name);
    let bytes = fs::read(dir.join("model.safetensors")).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    for number in bytes[8 + header..].chunks_exact(4) {
        let number = f32::from_le_bytes(number.try_into().expect("4 bytes"));
        assert!(number.is_finite(), "{name} holds {number}");
    }
    let state: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("trainer.json")).expect("a state")).expect("JSON");
    state["step"].as_u64().expect("a step")
}

/// A learning rate that leaves finite weights of no use: the step is applied and saved, and every later one fails.
const USELESS: &str = "optim.lr=1e30";

#[test]
fn failed_steps_are_skipped_then_the_run_returns_and_its_data_go_on() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let output = train(home, "baseline", 6, &[USELESS, "train.checkpoint.last_every=2"]);
    // Step 1 is applied, 2 to 4 fail, the run is back at step 0's weights, step 5 is applied, 6 fails.
    let expected = ["saved 0", "skip 1", "skip 2", "skip 3", "rollback 4", "skip 5", "not"];
    let found = events(home);
    assert_eq!(found[..6], expected[..6], "{found:?}");
    let back = reason(home, "rollback");
    assert!(
        back.contains("back to the weights of step 0 after 3 failed steps in a row") && back.contains("now 5e29"),
        "{back}"
    );
    // A step has one line, and documents of its own, whether it was applied or not.
    let metrics = lines(&home.join("runs/r/metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|line| line.get("applied").is_some()).collect();
    let numbers: Vec<u64> = steps.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let applied: Vec<bool> = steps.iter().filter_map(|line| line["applied"].as_bool()).collect();
    assert_eq!(applied, [true, false, false, false, true, false]);
    let rates: Vec<f64> = steps.iter().filter_map(|line| line["lr"].as_f64()).collect();
    for (rate, expected) in rates.iter().zip([1e30, 1e30, 1e30, 1e30, 5e29, 5e29]) {
        assert!((rate / expected - 1.0).abs() < 1e-12, "{rates:?}");
    }
    let documents = lines(&home.join("runs/r/steps.jsonl"));
    let documents: Vec<&Value> = documents.iter().filter_map(|line| line.get("documents")).collect();
    for (n, one) in documents.iter().enumerate() {
        assert!(documents[..n].iter().all(|other| other != one), "{one} twice");
    }
    assert!(home.join("runs/r/skipped-step-000001.json").is_file());
    // One failure at the end is what a run survives on its way, too.
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn only_finite_weights_are_saved_and_a_return_leaves_the_good_checkpoint_there() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    // An update that no f32 can hold: the applied step itself leaves weights that are not finite.
    let output = train(home, "baseline", 30, &["optim.lr=1e39"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let found = events(home);
    assert!(found.contains(&"not-saved 1".to_owned()), "{found:?}");
    let returns = found.iter().filter(|event| event.starts_with("rollback ")).count();
    assert_eq!(returns, 3, "{found:?}");
    assert_eq!(
        found.iter().filter(|event| event.starts_with("saved ")).count(),
        1,
        "{found:?}"
    );
    assert_eq!(finite(home, "last"), 0);
    assert!(reason(home, "rollback").contains("the weights of step 0"));
    assert!(said(&output).contains("not finite 3 times in a row, after 3 returns"));
}

#[test]
fn a_failed_step_is_no_fault_of_the_scorer() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let output = train(
        home,
        "critic",
        20,
        &["optim.lr=1e6", "scorer.max_steps=2", "model.mtp.n_heads=4"],
    );
    let text = said(&output);
    assert!(!text.contains("weights.max_fallback_share"), "{text}");
    let found = events(home);
    assert!(
        found.iter().any(|event| event.starts_with("rollback ")),
        "{found:?}\n{text}"
    );
}

#[test]
fn nothing_is_saved_between_failures_nor_right_after_a_return() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    train(home, "baseline", 9, &[USELESS]);
    let found = events(home);
    // Step 1 is applied and saved; from its weights no other is.
    let expected = [
        "saved 0",
        "saved 1",
        "skip 1",
        "skip 2",
        "skip 3",
        "rollback 4",
        "skip 4",
        "skip 5",
        "skip 6",
        "rollback 7",
        "skip 7",
        "skip 8",
    ];
    assert_eq!(found[..expected.len()], expected, "{found:?}");
    assert_eq!(
        (finite(home, "last"), finite(home, "previous")),
        (9, 0),
        "the run's end pushes the good one out"
    );
}

#[test]
fn a_checkpoint_comes_after_the_validation_that_is_due() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let set = ["optim.lr=1e-3", "train.validate_every=1", "train.checkpoint.every=1"];
    let output = train(home, "baseline", 3, &set);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let metrics = lines(&home.join("runs/r/metrics.jsonl"));
    for step in 1..3 {
        let mut at = metrics.iter().filter(|line| line["step"] == step);
        let valid_loss = at.find_map(|line| line["valid_loss"].as_f64());
        let state = home.join(format!("runs/r/checkpoints/step-{step:06}/trainer.json"));
        let state: Value = serde_json::from_str(&fs::read_to_string(state).expect("a state")).expect("JSON");
        assert_eq!(state["step"], step);
        assert!(
            valid_loss.is_some() && state["valid_loss"].as_f64() == valid_loss,
            "{state}"
        );
    }
}

#[test]
fn a_run_without_an_applied_step_fails() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    // The micro model with one weight that is no number.
    let output = train(home, "baseline", 1, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let model = home.join("model");
    fs::rename(home.join("runs/r/checkpoints/last"), &model).expect("moved");
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).expect("written");
    fs::remove_dir_all(home.join("runs")).expect("removed");
    let base = format!("model.base={}", model.display());
    let output = train(home, "baseline", 10, &[&base]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("training failed: none of the 10 steps was applied"),
        "{text}"
    );
    assert!(events(home).contains(&"failed 10".to_owned()), "{:?}", events(home));
}

#[test]
fn a_run_whose_last_steps_failed_fails_although_its_weights_are_good() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let output = train(home, "baseline", 4, &[USELESS, "train.checkpoint.last_every=2"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("training failed: the last 3 of 4 steps were not applied") && text.contains("lower `optim.lr`"),
        "{text}"
    );
    assert!(events(home).contains(&"rollback 4".to_owned()), "{:?}", events(home));
    finite(home, "last");
    // Resuming it says the same.
    let mut resume = wmtp(home);
    resume.args(["train", "baseline", "--plain", "--output", "runs", "--resume", "r"]);
    let again = resume.output().expect("the program starts");
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(
        said(&again).contains("the last 3 of 4 steps were not applied"),
        "{}",
        said(&again)
    );
}
