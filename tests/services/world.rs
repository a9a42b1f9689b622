//! The servers, the program and MLflow's own client, as the tests need them.

use crate::common::wmtp;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

pub const MLFLOW: &str = "WMTP_TEST_MLFLOW_URI";
pub const S3: &str = "WMTP_TEST_S3_ENDPOINT";

/// A variable that `tests/services/run.sh` sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run bash tests/services/run.sh"))
}

/// The server under test.
pub fn mlflow() -> String {
    variable(MLFLOW)
}

/// A name that no other run of the tests has.
pub fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{name}-{now:x}")
}

/// What MLflow's own Python client says.
pub fn read_back(what: &str, uri: &str, name: &str) -> Value {
    let python = std::env::var("WMTP_TEST_PYTHON").unwrap_or_else(|_| "target/services-venv/bin/python".into());
    let output = Command::new(&python)
        .args(["tests/services/read_back.py", what, uri, name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("MLFLOW_S3_ENDPOINT_URL", variable(S3))
        .output()
        .unwrap_or_else(|e| panic!("{python} can't be started: {e}"));
    assert!(
        output.status.success(),
        "read_back.py {what} {uri} {name}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A short training run of the micro model, tracked by the experiment's name.
pub fn train(home: &Path, uri: &str, experiment: &str, name: &str, steps: usize) -> Command {
    let mut command = wmtp(home);
    command
        .args([
            "train",
            "critic",
            "--plain",
            "--json",
            "--output",
            "runs",
            "--run-name",
            name,
        ])
        .args(["--max-steps", &steps.to_string()])
        .args(["--set", "scorer.max_steps=3", "--set", "data.train_tasks=[601,640]"])
        .args([
            "--set",
            "data.valid_tasks=[511,515]",
            "--set",
            "tracking.kinds=[mlflow]",
        ])
        .args(["--set", &format!("tracking.mlflow.uri={uri}")])
        .args(["--set", &format!("tracking.experiment={experiment}")])
        .args(["--set", "tracking.interval_seconds=0.05"]);
    command
}

/// What the run's directory says of its run at a tracker.
pub fn kept(run: &Path, tracker: &str) -> Value {
    let text = std::fs::read_to_string(run.join(format!("tracking/{tracker}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Each metric's steps and values as `metrics.jsonl` has them.
pub fn written_metrics(run: &Path) -> std::collections::BTreeMap<String, Vec<(i64, f64)>> {
    let mut written = std::collections::BTreeMap::<String, Vec<(i64, f64)>>::new();
    for line in std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for (key, value) in wmtp::track::values(&line) {
            written
                .entry(key)
                .or_default()
                .push((line["step"].as_i64().unwrap(), value));
        }
    }
    written
}

/// A run's directory below `home`.
pub fn run_dir(home: &Path, name: &str) -> PathBuf {
    home.join("runs").join(name)
}
