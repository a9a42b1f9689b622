//! What a training run does around its steps, through the built program and the library.

mod common;

use common::{json, lines, succeed, wmtp};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use wmtp::{
    pipeline::Experiment,
    scorer::{Needs, ScoreInput, Scorer, ScorerError},
    settings::{Pipeline, Sources},
};

/// `wmtp train PIPELINE` of 30 tasks with two heads.
fn train(home: &Path, pipeline: &str, name: &str, set: &[&str]) -> Command {
    let mut command = wmtp(home);
    command.args(["train", pipeline, "--plain", "--output", "runs", "--run-name", name]);
    let small = [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "data.seq_len=256",
        "model.mtp.n_heads=2",
        "train.record.documents=0",
    ];
    command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
    command
}

fn validations(run: &Path) -> Vec<(u64, f64)> {
    let lines = lines(&run.join("metrics.jsonl"));
    let of = |line: &Value| Some((line["step"].as_u64()?, line["valid_loss"].as_f64()?));
    lines.iter().filter_map(of).collect()
}

fn state(run: &Path) -> Value {
    let text = fs::read_to_string(run.join("checkpoints/last/trainer.json")).expect("a checkpoint");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn early_stopping_ends_a_run_at_the_end_of_an_epoch() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    // No loss is ever better by 10, so the second validation, after two of five epochs, is the last.
    let stopping = [
        "train.epochs=5",
        "train.early_stopping={patience: 1, min_delta: 10}",
        "optim.lr=1e-6",
    ];
    succeed(&mut train(home, "baseline", "early", &stopping));
    let run = home.join("runs/early");
    let state = state(&run);
    let seen = validations(&run);
    let steps: Vec<u64> = seen.iter().map(|(step, _)| *step).collect();
    let epoch = steps[1];
    assert_eq!(steps, [0, epoch, 2 * epoch]);
    assert_eq!(
        (state["step"].as_u64(), state["epoch"].as_u64()),
        (Some(2 * epoch), Some(2))
    );
    assert_eq!(state["finished"], true);
    let record: Value = serde_json::from_str(&fs::read_to_string(run.join("run.json")).expect("a file")).expect("JSON");
    assert!(record["steps"].as_u64() > Some(2 * epoch), "it would have been longer");
    let events = lines(&run.join("events.jsonl"));
    assert_eq!(events.iter().filter(|event| event["event"] == "early-stop").count(), 1);
    // It has ended: nothing is left to resume, unless it is to go on.
    let mut resumed = wmtp(home);
    resumed.args(["train", "baseline", "--plain", "--output", "runs", "--resume", "early"]);
    succeed(&mut resumed);
    assert_eq!(validations(&run).len(), 3);
    resumed.args(["--set", "train.early_stopping.patience=0"]);
    succeed(&mut resumed);
    assert_eq!(
        validations(&run).last().map(|(step, _)| *step),
        record["steps"].as_u64()
    );
}

#[test]
fn a_run_begins_with_a_validation_of_the_untouched_model() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    // Steps that move nothing: the loss at the end is the one of the beginning.
    let still = ["optim.lr=1e-30", "optim.weight_decay=0", "train.steps=3"];
    let output = succeed(&mut train(home, "baseline", "still", &still));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let run = home.join("runs/still");
    let seen = validations(&run);
    assert_eq!(seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 3]);
    assert!((seen[0].1 - seen[1].1).abs() < 1e-9, "{seen:?}");
    assert!(said.contains("step     0  validation loss"), "{said}");
    let first = lines(&run.join("metrics.jsonl")).remove(0);
    assert_eq!(first["step"], 0);
    assert_eq!(first["valid_ce_heads"].as_array().map(Vec::len), Some(2));
    // `best` is a checkpoint that was trained, even where training did not help.
    let worse = ["optim.lr=1", "optim.warmup=0", "train.steps=3"];
    succeed(&mut train(home, "baseline", "worse", &worse));
    let run = home.join("runs/worse");
    let seen = validations(&run);
    assert!(seen[0].1 < seen[1].1, "{seen:?}");
    assert_eq!(state(&run)["best_loss"].as_f64(), Some(seen[1].1));
}

#[test]
fn the_documents_of_every_step_are_recorded() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let set = ["train.epochs=2", "batching={micro_batch: 1, accumulate: 3}"];
    succeed(&mut train(home, "baseline", "seen", &set));
    let run = home.join("runs/seen");
    let inspect = |more: &[&str]| {
        let mut command = wmtp(home);
        command
            .args(["inspect", "steps", "seen", "--output", "runs"])
            .args(more);
        command
    };
    let all = json(&succeed(&mut inspect(&["--json"])));
    let steps = all["steps"].as_array().expect("steps");
    let metrics = lines(&run.join("metrics.jsonl"));
    let trained = metrics.iter().filter(|line| line.get("loss").is_some()).count();
    assert_eq!(steps.len(), trained);
    for epoch in [1, 2] {
        let of_epoch = steps.iter().filter(|step| step["epoch"] == epoch);
        let mut names: Vec<&str> = of_epoch
            .flat_map(|step| step["micro_batches"].as_array().expect("micro-batches"))
            .flat_map(|batch| batch.as_array().expect("documents"))
            .map(|document| document["name"].as_str().expect("a name"))
            .collect();
        names.sort_unstable();
        // Each document of the tasks 602 to 631 that is not left out or too long, once.
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "epoch {epoch}");
        let record: Value =
            serde_json::from_str(&fs::read_to_string(run.join("run.json")).expect("a file")).expect("JSON");
        assert_eq!(record["documents"].as_u64(), Some(names.len() as u64));
        assert!(names.iter().all(|name| name.starts_with("mbpp/6")), "{names:?}");
    }
    let text = String::from_utf8(succeed(&mut inspect(&["--step", "2"])).stdout).expect("UTF-8");
    assert!(text.starts_with("step 2 (epoch 1)\nmicro-batch 1\n"), "{text}");
    assert!(text.contains("micro-batch 3\n") && text.contains("mbpp/6"), "{text}");
    let output = inspect(&["--step", "999"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("has the steps 1 to {trained}")), "{said}");
}

/// Eight rows in one micro-batch or in eight: the same step, also where weights are made and shuffled over
/// the whole of it.
#[test]
fn accumulation_changes_no_loss() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let losses = |name: &str, set: &[&str]| -> Vec<f64> {
        succeed(&mut train(
            home,
            "baseline",
            name,
            &[set, &["train.steps=3", "optim.lr=1e-4"]].concat(),
        ));
        let lines = lines(&home.join("runs").join(name).join("metrics.jsonl"));
        lines.iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let shuffled = "scorer={kind: shuffled, of: {kind: position}}";
    for (scorer, set) in [
        ("uniform", &["scorer.kind=uniform"][..]),
        ("shuffled", &[shuffled, "weights.over=step"]),
    ] {
        let of = |batching: &'static str, name: &str| losses(&format!("{scorer}-{name}"), &[set, &[batching]].concat());
        let one = of("batching={micro_batch: 8, accumulate: 1}", "one");
        let eight = of("batching={micro_batch: 1, accumulate: 8}", "eight");
        assert_eq!((one.len(), eight.len()), (3, 3));
        for (a, b) in one.iter().zip(&eight) {
            assert!((a - b).abs() < 1e-6 * a.abs(), "{scorer}: {one:?} {eight:?}");
        }
    }
}

/// Scores nothing else than not-a-number in its `bad` calls, from 1.
struct Sometimes {
    calls: Arc<AtomicUsize>,
    bad: Vec<usize>,
}

impl Scorer for Sometimes {
    fn name(&self) -> &str {
        "sometimes"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let score = if self.bad.contains(&call) { f32::NAN } else { 1.0 };
        Ok(vec![score; input.batch.tokens.len()])
    }
}

/// With one weight group a step, one bad document at the beginning is half of all groups.
#[test]
fn one_bad_score_at_the_beginning_stops_no_run() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut number = 0;
    let mut run = |bad: &[usize]| {
        number += 1;
        let settings = Sources::new(Some(Pipeline::Baseline))
            .set("train.steps=6")
            .set("weights.over=step")
            .set("data.seq_len=256")
            .set("batching.micro_batch=1")
            .set("model.mtp.n_heads=1")
            .set("train.record.documents=0")
            .set("seed=7")
            .set("devices.backend=flex")
            .set(format!("paths.runs={}", home.path().display()))
            .set(format!("paths.cache={}", home.path().join("cache").display()))
            .load()
            .expect("settings");
        let scorer = Sometimes {
            calls: Arc::default(),
            bad: bad.to_vec(),
        };
        let experiment = Experiment::from(settings)
            .run_name(format!("run-{number}"))
            .scorer(scorer);
        experiment.run().map(|summary| summary.steps)
    };
    assert_eq!(run(&[2]).expect("one of the first ten is allowed"), 6);
    let said = run(&[2, 5]).expect_err("two are not").to_string();
    assert!(
        said.contains("2 of 5 weight groups") && said.contains("weights.max_fallback_share` 0.1"),
        "{said}"
    );
}
