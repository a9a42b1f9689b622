//! The dashboard on a terminal: what keys do to a run of the built program. Needs python3, whose
//! `pty` module is the terminal.
#![cfg(unix)]

mod common;

use common::{lines, wmtp};
use std::{
    path::Path,
    process::{Command, Output},
};

const STEPS: &str = "100000";

/// Trains on a terminal and types `keys` after the first step.
fn train(home: &Path, name: &str, keys: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/in_terminal.py");
    let run = home.join("runs").join(name);
    let program = wmtp(home);
    let mut command = Command::new("python3");
    command
        .current_dir(home)
        .arg(script)
        .arg(run.join("weights.jsonl"))
        .arg(keys)
        .arg(program.get_program())
        .args(["train", "baseline", "--output", "runs", "--run-name", name])
        .args(["--max-steps", STEPS, "--set", "train.checkpoint.last_every=0"])
        .args(["--set", "data.seq_len=256", "--set", "batching.micro_batch=1"])
        .args(["--set", "train.validate_every=1000000"]);
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
        let output = train(home.path(), name, keys);
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
