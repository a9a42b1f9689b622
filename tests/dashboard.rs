//! The dashboard on a terminal: what keys do to a run of the built program. Needs python3, whose
//! `pty` module is the terminal.
#![cfg(unix)]

mod common;

use common::{lines, succeed, weights, wmtp};
use std::{
    path::Path,
    process::{Command, Output},
};

/// More than any test waits for.
const ENDLESS: &str = "100000";

/// What is trained.
fn arguments<'a>(name: &'a str, steps: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["train", "baseline", "--output", "runs", "--run-name", name];
    arguments.extend(["--max-steps", steps, "--set", "train.checkpoint.last_every=0"]);
    arguments.extend(["--set", "data.seq_len=256", "--set", "batching.micro_batch=1"]);
    arguments.extend(["--set", "train.validate_every=1000000"]);
    arguments
}

/// Trains on a terminal to which the script `fixture` does `what` after the first step.
fn train(home: &Path, name: &str, fixture: &str, what: &str, steps: &str) -> Output {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
    let run = home.join("runs").join(name);
    let program = wmtp(home);
    let mut command = Command::new("python3");
    command
        .current_dir(home)
        .arg(fixtures.join(fixture))
        .arg(run.join("weights.jsonl"))
        .arg(what)
        .arg(program.get_program())
        .args(arguments(name, steps));
    for (key, value) in program.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.output().expect("python3 starts")
}

#[test]
fn keys_interrupt_a_run_as_the_signal_does() {
    let home = tempfile::tempdir().expect("a temporary directory");
    for (name, keys, saved) in [
        ("interrupt", "\u{3}", true),
        ("stop", "qs", true),
        ("kill", "qk", false),
    ] {
        let output = train(home.path(), name, "in_terminal.py", keys, ENDLESS);
        let screen = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {screen}");
        let Some((_, after)) = screen.rsplit_once("\u{1b}[?1049l") else {
            let log = String::from_utf8_lossy(&output.stderr);
            panic!("{name}: the screen is not given back: {screen}{log}");
        };
        for said in [
            "interrupted after",
            "asked to stop after step",
            "continue with --resume",
            name,
        ] {
            assert!(after.contains(said), "{name}: `{said}` is missing in {after}");
        }
        assert_eq!(after.contains("a checkpoint is saved"), saved, "{name}: {after}");

        let run = home.path().join("runs").join(name);
        let report = std::fs::read_to_string(run.join("report.html")).expect("a report");
        assert!(report.contains("interrupted"), "{name}");
        let events = lines(&run.join("events.jsonl"));
        assert!(
            events.iter().any(|event| event["event"] == "interrupted"),
            "{name}: {events:?}"
        );
        let state = std::fs::read_to_string(run.join("checkpoints/last/trainer.json")).expect("a checkpoint");
        let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
        let steps = lines(&run.join("metrics.jsonl"))
            .iter()
            .filter_map(|line| line["loss"].as_f64().and(line["step"].as_u64()))
            .max();
        assert_eq!(
            state["step"].as_u64() == steps,
            saved,
            "{name}: {state} after {steps:?}"
        );
    }
}

/// Under nohup a run ends as if its terminal were still there; otherwise it stops with a checkpoint, and ends so once
/// it is resumed.
#[test]
fn a_terminal_that_is_closed_changes_no_weight() {
    const STEPS: &str = "60";
    let home = tempfile::tempdir().expect("a temporary directory");
    let runs = home.path().join("runs");
    succeed(wmtp(home.path()).args(arguments("undisturbed", STEPS)));
    let expected = weights(&runs.join("undisturbed"), "last");

    let output = train(home.path(), "nohup", "closed_terminal.py", "nohup", STEPS);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(weights(&runs.join("nohup"), "last") == expected);

    let output = train(home.path(), "closed", "closed_terminal.py", "hangup", STEPS);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let state = std::fs::read_to_string(runs.join("closed/checkpoints/last/trainer.json")).expect("a checkpoint");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    assert!((1..60).contains(&state["step"].as_u64().unwrap_or(0)), "{state}");
    let mut resumed = arguments("closed", STEPS);
    resumed.splice(4..6, ["--resume", "closed"]);
    succeed(wmtp(home.path()).args(resumed));
    assert!(weights(&runs.join("closed"), "last") == expected);
}
