//! Runs that are copied while they train, and go on elsewhere.

use super::{config, wmtp, wmtp_at};
use crate::{
    common::{json, lines, succeed, weights},
    proxy::{Fault, Faults, Proxy},
    s3::{Bucket, endpoint},
};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use wmtp::storage::RemoteRuns;

const STEPS: usize = 40;

/// `train critic` on the micro model with a checkpoint after every step.
fn critic<'a>(command: &'a mut Command, name: &str) -> &'a mut Command {
    command
        .args(["train", "critic", "--plain", "--output", "runs", "--run-name", name])
        .args(["--max-steps", &STEPS.to_string()])
        .args([
            "--set",
            "scorer.max_steps=4",
            "--set",
            "data.seq_len=256",
            "--set",
            "train.checkpoint.last_every=1",
        ])
        .args(["--set", "train.validate_every=4"])
}

fn losses(run: &Path) -> Vec<(u64, String)> {
    lines(&run.join("metrics.jsonl"))
        .iter()
        .filter_map(|line| {
            Some((
                line["step"].as_u64()?,
                line.get("loss").or(line.get("valid_loss"))?.to_string(),
            ))
        })
        .collect()
}

/// Waits until S3 has a checkpoint of at least this step, then kills with SIGKILL.
fn kill_at(mut child: Child, runs: &RemoteRuns, name: &str, step: usize) {
    let begun = Instant::now();
    loop {
        if runs
            .run(name)
            .newest_step()
            .expect("S3 answers")
            .is_some_and(|there| there >= step)
        {
            break;
        }
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it ended before step {step} was on S3"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "step {step} does not reach S3"
        );
        sleep(Duration::from_millis(5));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
}

#[test]
fn a_critic_run_killed_twice_ends_from_s3_alone_as_if_nothing_had_happened() {
    let bucket = Bucket::new("resume");
    let whole = tempfile::tempdir().expect("a directory");
    succeed(critic(&mut wmtp(whole.path()), "whole"));
    let whole = whole.path().join("runs/whole");

    let url = bucket.url("runs");
    let runs = RemoteRuns::open(&url, &config(&endpoint())).expect("a connection");
    // On the way every tenth exchange goes wrong.
    let proxy = Proxy::start(
        &endpoint(),
        Faults {
            alters: super::faults::is_an_object,
            ..Faults::seeded(5, 0.1, Fault::ALL)
        },
    );
    let machine = |home: &Path| {
        let mut command = wmtp_at(home, &proxy.url());
        command
            .env("WMTP_STORAGE__RETRIES", "8")
            .env("WMTP_STORAGE__RETRY_DELAY_MS", "2");
        command
    };
    let start = |home: &Path| {
        let mut command = machine(home);
        command
            .env("WMTP_STORAGE__RUNS", &url)
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        command
    };
    let first = tempfile::tempdir().expect("a directory");
    let child = critic(&mut start(first.path()), "killed")
        .spawn()
        .expect("the program starts");
    kill_at(child, &runs, "killed", 5);

    // Machines that know the place alone: no run, no cache, no recipe.
    let second = tempfile::tempdir().expect("a directory");
    let child = start(second.path())
        .args(["train", "critic", "--plain", "--output", "runs", "--resume", "auto"])
        .spawn()
        .expect("the program starts");
    kill_at(child, &runs, "killed", 15);

    let third = tempfile::tempdir().expect("a directory");
    let output = succeed(
        machine(third.path())
            .args(["--json", "train", "critic", "--output", "runs", "--resume"])
            .arg(format!("{url}/killed")),
    );
    let summary = json(&output);
    assert_eq!(summary["steps"], STEPS);
    assert_eq!(summary["copy"]["complete"], true);
    let run = third.path().join("runs/killed");
    assert_eq!(losses(&run), losses(&whole), "bit for bit");
    assert!(weights(&run, "last") == weights(&whole, "last"));
    assert!(weights(&run, "best") == weights(&whole, "best"));
    let resumes = lines(&run.join("events.jsonl"))
        .iter()
        .filter(|e| e["event"] == "resume")
        .count();
    assert_eq!(resumes, 2);

    // It is finished: by its name it is fetched once more, `auto` finds nothing and starts anew.
    let fourth = tempfile::tempdir().expect("a directory");
    let output = succeed(
        wmtp(fourth.path())
            .env("WMTP_STORAGE__RUNS", &url)
            .args(["--json", "train", "critic"])
            .args(["--resume", "killed"]),
    );
    assert_eq!(json(&output)["steps"], STEPS);
    assert!(weights(&fourth.path().join("runs/killed"), "best") == weights(&whole, "best"));

    let best = format!("{url}/killed/checkpoints/best");
    let args = [
        "--json",
        "eval",
        "mbpp",
        "--tasks",
        "11-12",
        "--max-new-tokens",
        "8",
        "--temperature",
        "0",
        "--model",
    ];
    let there = json(&succeed(wmtp(fourth.path()).args(args).arg(&best)));
    let here = json(&succeed(
        wmtp(fourth.path()).args(args).arg(whole.join("checkpoints/best")),
    ));
    assert_eq!(there["tokens"], here["tokens"]);
}

#[test]
fn an_outage_delays_the_copy_and_stops_nothing() {
    let bucket = Bucket::new("outage");
    let proxy = Proxy::start(&endpoint(), Faults::none());
    let home = tempfile::tempdir().expect("a directory");
    let url = bucket.url("runs");
    let begin = |name: &str, wait: &str| {
        let mut command = wmtp_at(home.path(), &proxy.url());
        critic(&mut command, name)
            .arg("--json")
            .env("WMTP_STORAGE__RUNS", &url)
            .env("WMTP_STORAGE__RETRIES", "1")
            .env("WMTP_STORAGE__RETRY_DELAY_MS", "10")
            .args(["--set", "storage.upload.report_after_seconds=1", "--set", wait]);
        command
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts")
    };
    let ended = |child: Child| {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", output.status);
        json(&output)
    };
    let events = |name: &str| -> Vec<String> {
        lines(&home.path().join("runs").join(name).join("events.jsonl"))
            .iter()
            .filter_map(|e| e["event"].as_str().map(str::to_owned))
            .collect()
    };

    let runs = RemoteRuns::open(&url, &config(&endpoint())).expect("a connection");
    let child = begin("delayed", "storage.upload.wait_seconds=60");
    let begun = Instant::now();
    while runs.run("delayed").newest_step().expect("S3 answers").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing reaches S3");
        sleep(Duration::from_millis(5));
    }
    proxy.set_outage(true);
    let begun = Instant::now();
    while !events("delayed").iter().any(|e| e == "upload-delayed") {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody says that S3 is away");
        sleep(Duration::from_millis(20));
    }
    proxy.set_outage(false);
    let summary = ended(child);
    assert_eq!(
        (&summary["steps"], &summary["copy"]["complete"]),
        (&STEPS.into(), &true.into())
    );
    assert!(events("delayed").iter().any(|e| e == "upload-resumed"));
    assert_eq!(runs.run("delayed").newest_step(), Ok(Some(STEPS)));

    // One that does not end: training does, and what is missing is sent by the next resume.
    proxy.set_outage(true);
    let summary = ended(begin("lost", "storage.upload.wait_seconds=2"));
    assert_eq!(
        (&summary["steps"], &summary["copy"]["complete"]),
        (&STEPS.into(), &false.into())
    );
    assert!(events("lost").iter().any(|e| e == "upload-incomplete"));
    proxy.set_outage(false);
    let mut resume = wmtp_at(home.path(), &proxy.url());
    resume.args(["--json", "train", "critic", "--output", "runs", "--resume", "lost"]);
    let summary = json(&succeed(resume.env("WMTP_STORAGE__RUNS", &url)));
    assert_eq!(summary["copy"]["complete"], true);
    assert_eq!(runs.run("lost").newest_step(), Ok(Some(STEPS)));
}
