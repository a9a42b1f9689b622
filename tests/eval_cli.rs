//! `wmtp eval` as a user runs it, with the built-in model: killed and resumed, repeated, estimated,
//! fed with completions from elsewhere. Needs `python3`.

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A home of its own: runs, cache, nothing of the user's.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmtp"));
        command
            .arg("eval")
            .args(args)
            .arg("--json")
            .current_dir(self.path())
            .env("HOME", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The document of a run that succeeds.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn only_run(&self) -> PathBuf {
        let runs: Vec<PathBuf> = std::fs::read_dir(self.path().join("runs"))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.into_iter().next().unwrap()
    }
}

const DRAWN: &[&str] = &[
    "mbpp",
    "--model",
    "builtin:micro",
    "--tasks",
    "11-22",
    "--samples",
    "2",
    "--temperature",
    "0.3,0.9",
    "--k",
    "1,2",
    "--max-new-tokens",
    "24",
    "--prompt",
    "zero-shot",
    "--set",
    "eval.batch=2",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [DRAWN, more].concat()
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// Kills the run once so many samples are judged.
fn kill_at(mut child: Child, home: &Home, samples: usize) {
    let started = Instant::now();
    loop {
        let part = std::fs::read_dir(home.path().join("runs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|run| lines(&run.path().join("samples.jsonl.part")))
            .max();
        if part.unwrap_or(0) >= samples {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it could be killed"
        );
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "no sample in five minutes"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_evaluation_resumed_leaves_the_same_files_and_the_same_seed_the_same_samples() {
    let whole = Home::new();
    let report = whole.json(DRAWN);
    assert_eq!((&report["tasks"], &report["samples"]), (&12.into(), &2.into()));
    assert_eq!(report["temperatures"].as_array().map(Vec::len), Some(2));
    assert!(report["seconds"].as_f64().is_some() && report["resumed"] == 0);
    let whole_run = whole.only_run();
    assert_eq!(
        report["run_dir"].as_str().map(|dir| whole.path().join(dir)),
        Some(whole_run.clone())
    );

    let killed = Home::new();
    for samples in [5, 20] {
        let resume: &[&str] = if samples == 5 { &[] } else { &["--resume", "auto"] };
        kill_at(killed.command(&with(resume)).spawn().unwrap(), &killed, samples);
    }
    let killed_run = killed.only_run();
    assert!(!killed_run.join("eval.json").exists());

    // Something else than what was begun.
    let other = killed.run(&with(&["--resume", "auto", "--seed", "7"]));
    let stderr = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("with another `seed`"), "{stderr}");

    // The settings are the run's: they need not be said again.
    let report = killed.json(&["mbpp", "--resume", "auto"]);
    assert!(report["resumed"].as_u64().unwrap() >= 20);
    for name in ["samples.jsonl", "eval.json"] {
        let read = |run: &Path| std::fs::read_to_string(run.join(name)).unwrap();
        assert_eq!(read(&whole_run), read(&killed_run), "{name}");
    }

    // There is nothing left to go on with: a new run begins, and draws the same.
    let again = killed.json(&with(&["--resume", "auto"]));
    assert_eq!(again["resumed"], 0);
    let again = killed.path().join(again["run_dir"].as_str().unwrap());
    assert_ne!(again, killed_run);
    let read = |run: &Path| std::fs::read_to_string(run.join("samples.jsonl")).unwrap();
    assert_eq!(read(&again), read(&whole_run));
}

#[test]
fn a_dry_run_estimates_and_writes_nothing() {
    let home = Home::new();
    let stated = home.json(&with(&["--dry-run", "--speed", "100"]));
    assert_eq!(
        (&stated["samples"], &stated["tokens"], &stated["probe"]),
        (&48.into(), &1152.into(), &0.into())
    );
    let measured = home.json(&with(&["--dry-run"]));
    assert_eq!((&measured["samples"], &measured["probe"]), (&48.into(), &2.into()));
    assert!(measured["hours"].as_f64().unwrap() > 0.0 && measured["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(!home.path().join("runs").exists());

    let paper = home.json(&[
        "mbpp",
        "--model",
        "builtin:micro",
        "--profile",
        "paper",
        "--dry-run",
        "--speed",
        "1000",
    ]);
    assert_eq!(paper["samples"], 500 * 200 * 6);
    let less = home.json(&[
        "mbpp",
        "--model",
        "builtin:micro",
        "--profile",
        "paper",
        "--samples",
        "100",
        "--set",
        "eval.temperature=0.5",
        "--dry-run",
        "--speed",
        "1000",
    ]);
    assert_eq!(less["samples"], 500 * 100);
}

#[test]
fn every_benchmark_runs_from_the_built_in_data() {
    let home = Home::new();
    for (benchmark, task, id) in [
        ("humaneval", "HumanEval/2", "HumanEval/2"),
        ("contest", "0", "_"),
        ("mbpp", "Mbpp/12", "Mbpp/12"),
    ] {
        let report = home.json(&[
            benchmark,
            "--model",
            "builtin:micro",
            "--tasks",
            task,
            "--temperature",
            "0",
            "--max-new-tokens",
            "8",
        ]);
        assert_eq!((&report["benchmark"], &report["tasks"]), (&benchmark.into(), &1.into()));
        assert!(report[format!("{benchmark}_exact")].is_number());
        let run = home.path().join(report["run_dir"].as_str().unwrap());
        let line = std::fs::read_to_string(run.join("samples.jsonl")).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["task_id"].as_str().unwrap().contains(id), "{line}");
        assert!(run.join("recipe.yaml").is_file() && run.join("config.yaml").is_file());
    }
}

#[test]
fn given_completions_are_judged_and_our_samples_are_such_a_file() {
    let home = Home::new();
    let rows = [
        serde_json::json!({"task_id": "HumanEval/2", "completion": "    return number % 1.0\n"}),
        serde_json::json!({"task_id": "HumanEval/2", "completion": "    return number\n"}),
    ];
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(home.path().join("given.jsonl"), text).unwrap();
    let judge = |file: &str, save: &str| {
        home.json(&[
            "humaneval",
            "--predictions",
            file,
            "--tasks",
            "HumanEval/2",
            "--k",
            "1,2",
            "--timeout",
            "3",
            "--save-samples",
            save,
        ])
    };
    let report = judge("given.jsonl", "judged.jsonl");
    assert_eq!(
        (&report["pass_at_1"], &report["pass_at_k"]["2"]),
        (&0.5.into(), &1.0.into())
    );
    assert_eq!(
        (&report["samples"], &report["temperature"], &report["timeout_seconds"]),
        (&2.into(), &Value::Null, &3.0.into())
    );
    assert_eq!(report["origin"]["predictions"], "given.jsonl");
    let again = judge("judged.jsonl", "again.jsonl");
    assert_eq!(
        (&again["pass_at_1"], &again["cached_verdicts"]),
        (&0.5.into(), &2.into())
    );
    let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
    assert_eq!(read("judged.jsonl"), read("again.jsonl"));
}
