//! `wmtp eval` as a user runs it, with the built-in model: killed and resumed, repeated, estimated,
//! fed with completions from elsewhere. Needs `python3`.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

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
    assert_eq!(paper["samples"], 500 * 200 * 4);
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
    let share = |of: &str| report["time_shares"][of].as_f64().unwrap();
    assert!(share("judges") > 0.0 && share("judges") <= 1.0 && share("idle") < 1.0);
    assert_eq!([share("model"), share("waiting")], [0.0, 0.0], "nothing was drawn");
    let again = judge("judged.jsonl", "again.jsonl");
    assert_eq!(
        (&again["pass_at_1"], &again["cached_verdicts"]),
        (&0.5.into(), &2.into())
    );
    let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
    assert_eq!(read("judged.jsonl"), read("again.jsonl"));
}

fn plus_file(name: &str) -> String {
    format!("{}/tests/fixtures/evalplus/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn humaneval_plus_reports_base_and_all_tests() {
    let home = Home::new();
    let file = plus_file("humaneval_plus.jsonl");
    let rows: Vec<Value> = std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut predictions = String::new();
    for row in &rows {
        let text = |field: &str| row[field].as_str().unwrap().to_owned();
        // 45 knows the base tests alone.
        let completion = match text("task_id").as_str() {
            "HumanEval/45" => "    return {(5, 3): 7.5, (2, 2): 2.0, (10, 8): 40.0}.get((a, h))\n".to_owned(),
            _ => text("canonical_solution"),
        };
        let row = serde_json::json!({"task_id": row["task_id"], "completion": completion});
        predictions += &format!("{row}\n");
    }
    std::fs::write(home.path().join("answers.jsonl"), predictions).unwrap();
    let report = home.json(&["humaneval+", "--data", &file, "--predictions", "answers.jsonl"]);
    assert_eq!(
        (&report["benchmark"], &report["tasks"]),
        (&"humaneval+".into(), &15.into())
    );
    // 32 is passed by nobody, as by evalplus 0.3.1; 45 only by its base tests.
    assert_eq!(report["results"]["passed"], 13);
    assert!((report["pass_at_1"].as_f64().unwrap() - 13.0 / 15.0).abs() < 1e-12);
    assert!((report["base"]["pass_at_k"]["1"].as_f64().unwrap() - 14.0 / 15.0).abs() < 1e-12);
    assert!(report["base"]["ci95_at_k"]["1"].is_array());
    assert_eq!(report["origin"]["data"], file);
    assert_eq!(
        report["humaneval_plus_exact"].as_f64().map(|e| (e * 15.0).round()),
        Some(14.0)
    );
    let samples = std::fs::read_to_string(home.only_run().join("samples.jsonl")).unwrap();
    let of = |task: &str| -> Value {
        let line = samples
            .lines()
            .find(|line| line.contains(&format!("\"{task}\"")))
            .unwrap();
        serde_json::from_str(line).unwrap()
    };
    let line = of("HumanEval/45");
    assert_eq!(
        (
            &line["base_result"],
            &line["plus_result"],
            &line["result"],
            &line["passed"]
        ),
        (&"passed".into(), &"wrong".into(), &"wrong".into(), &false.into())
    );
    let again = home.json(&[
        "humaneval+",
        "--data",
        &file,
        "--predictions",
        "answers.jsonl",
        "--variant",
        "repaired",
    ]);
    assert_eq!(again["results"]["passed"], 14, "with task 32");
    assert!(again["cached_verdicts"].as_u64().unwrap() >= 30);
}

#[test]
fn mbpp_plus_and_own_problems_are_drawn_from_a_model() {
    let home = Home::new();
    let file = plus_file("mbpp_plus.jsonl.gz");
    let draw = [
        "--model",
        "builtin:micro",
        "--samples",
        "2",
        "--k",
        "1,2",
        "--temperature",
        "0.8",
        "--max-new-tokens",
        "8",
    ];
    let report = home.json(&[&["mbpp+", "--data", &file, "--tasks", "2,Mbpp/7,615"][..], &draw].concat());
    assert_eq!((&report["tasks"], &report["prompt"]), (&3.into(), &"zero-shot".into()));
    assert!(report["base"]["pass_at_k"]["2"].is_number());
    let split = &report["training_tasks"]["mbpp_training_split"];
    assert_eq!((&split["count"], &split["tasks"]), (&1.into(), &"615".into()));
    assert!(report["pass_at_k_unseen"]["1"].is_number());

    let mine = home.path().join("mine.jsonl");
    let rows = concat!(
        r#"{"id": "anything at all", "prompt": "Write f.\n", "tests": ["assert f() == 1"]}"#,
        "\n",
        r#"{"id": "b", "prompt": "Print 1.\n", "tests": [{"input": "", "output": "1"}]}"#,
        "\n"
    );
    std::fs::write(&mine, rows).unwrap();
    let report = home.json(&[&["jsonl", "--data", "mine.jsonl"][..], &draw].concat());
    assert_eq!(
        (&report["benchmark"], &report["variant"], &report["tasks"]),
        (&"jsonl".into(), &"mine".into(), &2.into())
    );
    let answers = concat!(
        r#"{"task_id": "b", "completion": "print(1)"}"#,
        "\n",
        r#"{"task_id": "anything at all", "solution": "def f(): return 2"}"#,
        "\n"
    );
    std::fs::write(home.path().join("answers.jsonl"), answers).unwrap();
    let report = home.json(&[
        "jsonl",
        "--data",
        "mine.jsonl",
        "--predictions",
        "answers.jsonl",
        "--all-tests",
    ]);
    assert_eq!(
        (&report["results"]["passed"], &report["results"]["wrong"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn files_of_problems_are_asked_for_and_checked() {
    let home = Home::new();
    std::fs::write(home.path().join("bad.jsonl"), "{\"id\": 1, \"prompt\": \"p\"}\n").unwrap();
    for (args, expected) in [
        (
            &["humaneval+"][..],
            "humaneval+ is not built in: give its published file",
        ),
        (&["mbpp+", "--data", "builtin:mbpp"][..], "mbpp+ is not built in"),
        (&["jsonl"][..], "give their file, --data FILE"),
        (
            &["jsonl", "--data", "bad.jsonl"][..],
            "bad.jsonl, line 1: there is neither `tests`",
        ),
        (
            &["mbpp+", "--data", "bad.jsonl"][..],
            "bad.jsonl, line 1: not a row of MbppPlus.jsonl.gz",
        ),
        (
            &["jsonl", "--data", "bad.jsonl", "--variant", "x"][..],
            "jsonl has no variants",
        ),
    ] {
        let output = home.run(&[args, &["--model", "builtin:micro"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
