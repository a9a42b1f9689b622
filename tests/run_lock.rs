//! One process at a time works on a run: two never mix its files, and `--resume auto` finds what is free.

mod common;
#[path = "common/small_model.rs"]
mod small_model;

use common::{lines, succeed, weights, wmtp};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use small_model::small_model;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use wmtp::run::verify;

/// Steps of a run.
const STEPS: u64 = 16;

/// How often two processes are let loose on one run: as often as `RUN_LOCK_TRIES` says.
fn tries() -> usize {
    let asked = std::env::var("RUN_LOCK_TRIES").ok();
    asked.map_or(3, |text| text.parse().expect("RUN_LOCK_TRIES is a number"))
}

/// `wmtp train baseline` with a checkpoint after each step.
fn train(home: &Path, name: Option<&str>) -> Command {
    let mut command = wmtp(home);
    command.args(["train", "baseline", "--plain", "--output", "runs"]);
    command.args(name.iter().flat_map(|name| ["--run-name", name]));
    let steps = format!("train={{steps: {STEPS}, checkpoint: {{last_every: 1}}}}");
    let small = [
        &*steps,
        "data={train_tasks: [602, 631], valid_tasks: [511, 513], seq_len: 256}",
        "batching.micro_batch=1",
        "model={base: base, mtp: {n_heads: 1}}",
    ];
    command.args(small.iter().flat_map(|set| ["--set", set]));
    quiet(&mut command);
    command
}

/// A home with the model that is trained.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a temporary directory");
    small_model(&home.path().join("base"), 3);
    home
}

fn resume(home: &Path, name: &str) -> Command {
    let mut command = wmtp(home);
    command.args(["train", "baseline", "--plain", "--output", "runs"]);
    // Where `auto` begins a run, it is as short as the others.
    command.args(["--resume", name, "--max-steps", &STEPS.to_string()]);
    quiet(&mut command);
    command
}

fn quiet(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

fn start(command: &mut Command) -> Child {
    command.spawn().expect("the program starts")
}

fn end(child: Child) -> (Output, String) {
    let output = child.wait_with_output().expect("the child ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// Steps whose lines are in the metrics.
fn steps(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains("\"loss\":")).count()
}

/// Starts a command and kills it once `step` steps are done.
fn kill_after(command: &mut Command, run: &Path, step: usize) {
    let mut child = start(command);
    let started = Instant::now();
    while steps(run) < step {
        assert!(started.elapsed() < Duration::from_secs(60), "no step {step}");
        assert!(
            child.try_wait().expect("the child can be asked").is_none(),
            "ended before step {step}"
        );
        sleep(Duration::from_millis(1));
    }
    child.kill().expect("a child to kill");
    child.wait().expect("the child can be waited for");
}

/// A run that ended as the undisturbed one: each step once, the same weights, whole checkpoints, nothing left over.
fn is_whole(run: &Path, expected: &[Vec<u8>]) {
    let seen: Vec<u64> = lines(&run.join("metrics.jsonl"))
        .iter()
        .filter(|line| line.get("loss").is_some())
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(seen, (1..=STEPS).collect::<Vec<_>>(), "{}", run.display());
    for name in ["weights.jsonl", "tokens.jsonl", "steps.jsonl", "events.jsonl"] {
        lines(&run.join(name));
    }
    assert!(weights(run, "last") == expected, "other weights in {}", run.display());
    for entry in fs::read_dir(run.join("checkpoints")).expect("checkpoints").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with('.'), "{name} is left over");
        verify(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn two_processes_on_one_run_do_not_mix_its_files() {
    let home = home();
    let home = home.path();
    succeed(&mut train(home, Some("whole")));
    let expected = weights(&home.join("runs/whole"), "last");
    let mut random = StdRng::seed_from_u64(11);
    let (mut refused, mut later) = (0, 0);
    for number in 0..tries() {
        let name = format!("shared-{number}");
        let run = home.join("runs").join(&name);
        let step = random.random_range(1..STEPS as usize - 2);
        // A run that was killed, a run that still trains, or none at all: then its directory is fought for.
        let first = match number % 3 {
            0 => {
                kill_after(&mut train(home, Some(&name)), &run, step);
                start(&mut resume(home, &name))
            }
            1 => {
                let child = start(&mut train(home, Some(&name)));
                while steps(&run) < step {
                    sleep(Duration::from_millis(1));
                }
                child
            }
            _ => start(&mut train(home, Some(&name))),
        };
        let mut other = match number % 3 {
            2 => train(home, Some(&name)),
            _ => resume(home, [name.as_str(), "auto"][number / 3 % 2]),
        };
        sleep(Duration::from_millis(random.random_range(0..60)));
        let both = [first, start(&mut other)].map(end);
        let ended: Vec<bool> = both.iter().map(|(output, _)| output.status.success()).collect();
        match ended[..] {
            // The other came when the run was finished: nothing was left to do, or `auto` began a new one.
            [true, true] => later += 1,
            [true, false] | [false, true] => {
                let said = &both[usize::from(ended[0])].1;
                let error = said
                    .lines()
                    .rev()
                    .find(|line| line.starts_with("error: "))
                    .expect("a reason");
                let held = error.contains("process ") && error.contains(&format!(" works on the run `runs/{name}`"));
                // Of two starts under one name the second may find a run already.
                assert!(held || number % 3 == 2 && error.contains("exists already"), "{said}");
                refused += 1;
            }
            _ => panic!("both failed: {} and {}", both[0].1, both[1].1),
        }
        is_whole(&run, &expected);
    }
    println!("{} tries: {refused} refused, {later} came after the end", tries());
    assert!(refused > 0, "no two processes ever met");
}

#[test]
fn auto_takes_the_newest_run_that_is_free_and_names_who_holds_the_other() {
    let home = home();
    let home = home.path();
    let runs = home.join("runs");
    kill_after(&mut train(home, Some("older")), &runs.join("older"), 2);
    kill_after(&mut train(home, Some("newer")), &runs.join("newer"), 2);
    let done = steps(&runs.join("newer"));
    // While this process holds the newer one, the older one is taken, and then none is left.
    let held = wmtp::run::RunLock::take(&runs.join("newer")).expect("a free run");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!(
        "process {} on {} works on the run `runs/newer`",
        std::process::id(),
        host.trim()
    );
    let (output, said) = end(start(&mut resume(home, "auto")));
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&holder) && said.contains("; resuming runs/older in its place"),
        "{said}"
    );
    assert!(
        said.contains("took over the lock of `runs/older` from process "),
        "{said}"
    );
    assert_eq!(steps(&runs.join("older")), STEPS as usize);

    let (output, said) = end(start(&mut resume(home, "auto")));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&holder), "{said}");
    let (output, said) = end(start(&mut resume(home, "newer")));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&holder), "{said}");
    assert_eq!(
        fs::read_dir(&runs).expect("runs").count(),
        2,
        "no run was started in its place"
    );
    assert_eq!(steps(&runs.join("newer")), done, "nobody touched it");

    drop(held);
    let (output, said) = end(start(&mut resume(home, "auto")));
    assert!(output.status.success() && !said.contains("works on the run"), "{said}");
    assert_eq!(steps(&runs.join("newer")), STEPS as usize);
}

#[test]
fn runs_without_a_name_that_start_together_get_a_directory_each() {
    let home = home();
    let home = home.path();
    let together: Vec<Child> = (0..3)
        .map(|_| start(train(home, None).args(["--max-steps", "1"])))
        .collect();
    for child in together {
        let (output, said) = end(child);
        assert!(output.status.success(), "{said}");
    }
    let names: BTreeSet<String> = fs::read_dir(home.join("runs"))
        .expect("runs")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in &names {
        let text = fs::read(home.join("runs").join(name).join("run.json")).expect("run.json");
        let record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(record["name"], name.as_str());
    }
}
