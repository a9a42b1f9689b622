//! The critic's value stage on the loop of all training: interrupted and resumed, and diverging.

mod common;

use common::{lines, succeed, weights, wmtp};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Two steps of the weighted stage after the value stage; a checkpoint of either every other step.
fn train(home: &Path, name: &str, set: &[&str]) -> Command {
    let mut command = wmtp(home);
    command.args(["train", "critic", "--plain", "--output", "runs", "--run-name", name]);
    let small = [
        "train.steps=2",
        "train.checkpoint.last_every=2",
        "data.seq_len=256",
        "data.train_tasks=[602,670]",
        "data.valid_tasks=[511,516]",
        "model.mtp.n_heads=2",
        "scorer.batch=8",
    ];
    command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
    command
}

fn resume(home: &Path, name: &str) -> Command {
    let mut command = wmtp(home);
    command.args(["train", "critic", "--plain", "--output", "runs", "--resume", name]);
    command
}

/// Steps of the stage that its metrics hold.
fn steps(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("critic/metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains("\"loss\":")).count()
}

/// Starts a command and waits until its stage has done `step` steps.
fn until(command: &mut Command, run: &Path, step: usize) -> Child {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let started = Instant::now();
    while steps(run) < step {
        assert!(started.elapsed() < Duration::from_secs(120), "no step {step}");
        let ended = child.try_wait().expect("the child can be asked");
        assert!(ended.is_none(), "ended before step {step}: {ended:?}");
        sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn a_stage_that_is_interrupted_and_resumed_ends_with_the_same_head() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    for (kind, set) in [
        ("last", &["scorer.epochs=2"][..]),
        // The best head may be one of before the interruption.
        (
            "best",
            &["scorer.epochs=3", "scorer.patience=3", "scorer.loss=pairwise"],
        ),
    ] {
        let (whole, cut) = (format!("{kind}-whole"), format!("{kind}-cut"));
        succeed(&mut train(home, &whole, set));
        let (whole, run) = (home.join("runs").join(whole), home.join("runs").join(&cut));
        let all = steps(&whole);
        assert!(all > 15, "{all} steps");

        // Killed at once in the middle.
        let mut child = until(&mut train(home, &cut, set), &run, all / 3);
        child.kill().expect("a child to kill");
        child.wait().expect("an end");
        let stage = run.join("critic");
        assert!(stage.join("checkpoints/last/manifest.json").is_file());
        assert!(
            !stage.join("report.json").exists(),
            "the stage ended before it was killed"
        );

        // Asked to stop in the middle: it saves a checkpoint, says how to go on, and ends with 1.
        let mut command = resume(home, &cut);
        let child = until(&mut command, &run, all / 2);
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(asked.expect("kill").success());
        let ended = child.wait_with_output().expect("an end");
        assert_eq!(ended.status.code(), Some(1));
        assert!(
            !stage.join("report.json").exists(),
            "the stage ended before it was stopped"
        );
        let text = fs::read_to_string(stage.join("checkpoints/last/trainer.json")).expect("a checkpoint");
        let state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            state["step"].as_u64(),
            Some(steps(&run) as u64),
            "saved where it stopped"
        );

        succeed(&mut resume(home, &cut));
        for name in ["value_head.safetensors", "metrics.jsonl", "report.json"] {
            let read = |run: &Path| fs::read(run.join("critic").join(name)).expect("a file of the stage");
            assert!(read(&whole) == read(&run), "{kind}: {name} differs");
        }
        assert!(
            weights(&whole, "last") == weights(&run, "last"),
            "{kind}: the model differs"
        );
        assert!(!stage.join("checkpoints").exists(), "they are of no more use");
        let resumed = lines(&run.join("events.jsonl"));
        let resumed = resumed.iter().filter(|event| {
            event["event"] == "value-stage" && event["reason"].as_str().is_some_and(|r| r.starts_with("resumed at"))
        });
        assert_eq!(resumed.count(), 2, "{kind}");
    }
}

/// The stage's report is computed from its metrics. Where they are gone, it begins again and ends the same.
#[test]
fn a_stage_whose_metrics_are_lost_begins_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let set = ["scorer.epochs=2"];
    succeed(&mut train(home, "whole", &set));
    let (whole, run) = (home.join("runs/whole"), home.join("runs/cut"));
    let mut child = until(&mut train(home, "cut", &set), &run, 3);
    child.kill().expect("the process can be killed");
    child.wait().expect("the process ends");
    assert!(run.join("critic/checkpoints/last").is_dir(), "no checkpoint");
    fs::write(run.join("critic/metrics.jsonl"), "").expect("the metrics can be emptied");

    let output = succeed(&mut resume(home, "cut"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has lost lines since its checkpoint of step "), "{said}");
    for name in ["value_head.safetensors", "metrics.jsonl", "report.json"] {
        let read = |run: &Path| fs::read(run.join("critic").join(name)).expect("a file of the stage");
        assert!(read(&whole) == read(&run), "{name} differs");
    }
    assert!(weights(&whole, "last") == weights(&run, "last"), "the model differs");
}

/// Steps that are not finite are skipped, the learning rate is halved three times, and then the run ends
/// as one that failed, not as one with bad settings.
#[test]
fn a_stage_that_diverges_fails_and_names_its_learning_rate() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let output = train(home, "diverges", &["scorer.lr=1e38", "scorer.epochs=4"])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lower `scorer.lr`"), "{said}");
    let run = home.join("runs/diverges");
    let events = lines(&run.join("events.jsonl"));
    let of = |what: &str| {
        let events = events.iter().filter(|event| event["event"] == "value-stage");
        let reasons = events.filter_map(|event| event["reason"].as_str());
        reasons.filter(|reason| reason.starts_with(what)).count()
    };
    assert_eq!((of("skip:"), of("rollback:")), (12, 3), "{events:?}");
    let skipped = lines(&run.join("critic/metrics.jsonl"));
    let skipped = skipped.iter().filter(|line| line["applied"] == false);
    assert_eq!(skipped.count(), 12);
}
