//! The built program on every device that is in it: each training and evaluation of [`RUNS`], against flex.
//!
//! A device takes part when `wmtp doctor --json` lists it, so the features of the build decide: by default
//! flex alone, in `ci/kernels` also ndarray and wgpu on Mesa's llvmpipe, in `ci/tch` LibTorch.
//! `WMTP_TEST_DEVICES=a,b` names those that must be there. wgpu takes another adapter in silence, so a GPU is
//! refused unless `WMTP_TEST_ADAPTER=any` says that one is meant. With `--nocapture` it prints the table of
//! docs/backends.md.
#![cfg(feature = "flex")]

mod common;

use common::{json, lines, succeed, wmtp};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const STEPS: usize = 6;

/// Vulkan drivers that compute on the CPU.
const SOFTWARE: [&str; 4] = ["llvmpipe", "SwiftShader", "WARP", "Microsoft Basic Render"];

/// A training run: its name, its pipeline, its settings.
struct Run {
    name: &'static str,
    pipeline: &'static str,
    set: &'static [&'static str],
}

/// What runs on every device. `rho1` refers to the baseline of flex, so that all devices have one reference
/// model.
const RUNS: [Run; 6] = [
    Run {
        name: "baseline",
        pipeline: "baseline",
        set: &[],
    },
    Run {
        name: "critic",
        pipeline: "critic",
        set: &["scorer.max_steps=5"],
    },
    Run {
        name: "rho1",
        pipeline: "rho1",
        set: &["model.reference=runs/flex-baseline/checkpoints/best"],
    },
    Run {
        name: "lora",
        pipeline: "baseline",
        set: &["train.lora.rank=4"],
    },
    Run {
        name: "recompute",
        pipeline: "baseline",
        set: &["train.recompute=block"],
    },
    Run {
        name: "sequential",
        pipeline: "baseline",
        set: &["train.heads=sequential"],
    },
];

/// Devices to test, flex first, as `--device` names them.
fn devices(home: &Path) -> Vec<String> {
    let report = json(&succeed(wmtp(home).args(["doctor", "--json"])));
    let listed = report["devices"].as_array().cloned().unwrap_or_default();
    let mut found = vec!["flex".to_owned()];
    for device in &listed {
        let name = device["name"].as_str().expect("a device has a name").to_owned();
        let about = device["description"].as_str().unwrap_or_default();
        println!("{name}: {about}");
        let any = std::env::var("WMTP_TEST_ADAPTER").is_ok_and(|value| value == "any");
        if name == "wgpu:0" && !any {
            assert!(
                SOFTWARE.iter().any(|driver| about.contains(driver)),
                "`{about}` is no software driver; WMTP_TEST_ADAPTER=any tests it all the same"
            );
        }
        // The first of several devices of a backend stands for all of them.
        if name != "flex" && (!name.contains(':') || name.ends_with(":0")) {
            found.push(name);
        }
    }
    if let Ok(wanted) = std::env::var("WMTP_TEST_DEVICES") {
        for name in wanted.split(',') {
            let there = found.iter().any(|f| f.split(':').next() == Some(name));
            assert!(there, "the device {name} is not here: {listed:?}");
        }
    }
    found
}

fn directory(home: &Path, device: &str, name: &str) -> PathBuf {
    home.join("runs").join(run_name(device, name))
}

fn run_name(device: &str, name: &str) -> String {
    format!("{}-{name}", device.replace(':', ""))
}

fn train(home: &Path, device: &str, name: &str, run: &Run) -> Command {
    let mut command = wmtp(home);
    command.args(["train", run.pipeline, "--device", device, "--output", "runs"]);
    command.args(["--run-name", &run_name(device, name), "--max-steps", &STEPS.to_string()]);
    let small = [
        "data.seq_len=128",
        "data.valid_tasks=[511,520]",
        "batching.micro_batch=2",
        "optim.lr=0.002",
        "train.checkpoint.last_every=1",
    ];
    command.args(small.iter().chain(run.set).flat_map(|set| ["--set", set]));
    command
}

/// The losses of a run's steps.
fn losses(home: &Path, device: &str, name: &str) -> Vec<f64> {
    let dir = directory(home, device, name);
    let about = std::fs::read(dir.join("run.json")).expect("run.json");
    let about: serde_json::Value = serde_json::from_slice(&about).expect("JSON");
    assert_eq!(about["device"].as_str(), Some(device), "the device of {name}");
    let steps: Vec<f64> = lines(&dir.join("metrics.jsonl"))
        .iter()
        .filter(|line| line["lr"].is_number())
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    assert_eq!(steps.len(), STEPS, "{device} {name}");
    steps
}

/// The largest difference of two curves at any step.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

/// Kills a baseline run after its third step and resumes it.
fn killed_and_resumed(home: &Path, device: &str) {
    let mut command = train(home, device, "resumed", &RUNS[0]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let dir = directory(home, device, "resumed");
    let begun = Instant::now();
    let steps = || std::fs::read_to_string(dir.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    // The row of the validation before step 1 is one of them.
    while steps() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(600), "{device}: no third step");
        assert!(
            child.try_wait().expect("a child").is_none(),
            "{device}: ended too early"
        );
        sleep(Duration::from_millis(2));
    }
    child.kill().expect("a running child");
    child.wait().expect("a child");
    let name = run_name(device, "resumed");
    succeed(wmtp(home).args([
        "train", "baseline", "--resume", &name, "--output", "runs", "--device", device,
    ]));
}

/// Drawn completions of five problems, of one seed, by the model that flex trained.
fn evaluate(home: &Path, device: &str) -> Vec<String> {
    let output = run_name(device, "evaluations");
    let mut command = wmtp(home);
    command.args(["eval", "mbpp", "--model", "runs/flex-baseline/checkpoints/best"]);
    command.args(["--device", device, "--output", &output, "--tasks", "11-15"]);
    command.args(["--temperature", "0.8", "--max-new-tokens", "24"]);
    succeed(&mut command);
    let runs = std::fs::read_dir(home.join(&output)).expect("the evaluation's directory");
    let runs: Vec<PathBuf> = runs.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let mut samples: Vec<(String, String)> = lines(&runs[0].join("samples.jsonl"))
        .iter()
        .map(|sample| (sample["task_id"].to_string(), sample["completion"].to_string()))
        .collect();
    samples.sort();
    assert_eq!(samples.len(), 5, "{device}");
    samples.into_iter().map(|(_, text)| text).collect()
}

/// How far from flex's the losses of a device may be, and a resumed run's from an undisturbed one's.
fn bounds(device: &str) -> (f64, f64) {
    match device {
        // Runs of one seed are equal bit for bit.
        "flex" => (0.0, 0.0),
        "ndarray" => (1e-4, 0.0),
        // Sums on several threads, in an order that the driver or library chooses.
        _ => (1e-3, 1e-5),
    }
}

#[test]
fn every_device_trains_evaluates_and_resumes_as_flex_does() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let mut table = Vec::new();
    let mut expected: Vec<(Vec<f64>, f64)> = Vec::new();
    let (mut texts, mut eval_seconds) = (Vec::new(), 0.0);
    for device in devices(home) {
        let (bound, resumed_bound) = bounds(&device);
        for (i, run) in RUNS.iter().enumerate() {
            let begun = Instant::now();
            succeed(&mut train(home, &device, run.name, run));
            let seconds = begun.elapsed().as_secs_f64();
            let found = losses(home, &device, run.name);
            if device == "flex" {
                expected.push((found.clone(), seconds));
            }
            let (curve, of_flex) = &expected[i];
            let difference = apart(&found, curve);
            assert!(
                difference <= bound,
                "{device} {}: {found:?}\nagainst {curve:?}",
                run.name
            );
            table.push(format!(
                "{device:<8} {:<11} {seconds:7.1} s  {:6.1} times flex  losses at most {difference:.1e} apart",
                run.name,
                seconds / of_flex
            ));
        }
        let whole = losses(home, &device, "baseline");
        assert!(
            whole[0] - whole[STEPS - 1] > 0.05,
            "{device}: nothing was learned: {whole:?}"
        );
        for same in ["recompute", "sequential"] {
            let difference = apart(&losses(home, &device, same), &whole);
            assert!(
                difference < 1e-4,
                "{device}: {same} is {difference:.1e} from the baseline"
            );
        }
        let begun = Instant::now();
        let found = evaluate(home, &device);
        let seconds = begun.elapsed().as_secs_f64();
        if device == "flex" {
            (texts, eval_seconds) = (found.clone(), seconds);
        }
        let same = found.iter().zip(&texts).filter(|(a, b)| a == b).count();
        assert_eq!(same, texts.len(), "{device}: {found:?}\nagainst {texts:?}");
        table.push(format!(
            "{device:<8} {:<11} {seconds:7.1} s  {:6.1} times flex  {same} of 5 completions equal",
            "eval",
            seconds / eval_seconds
        ));
        killed_and_resumed(home, &device);
        let difference = apart(&losses(home, &device, "resumed"), &whole);
        assert!(
            difference <= resumed_bound,
            "{device}: resumed {difference:.1e} from undisturbed"
        );
        table.push(format!(
            "{device:<8} resume      losses at most {difference:.1e} from the undisturbed run's"
        ));
    }
    println!("{}", table.join("\n"));
}

/// What needs bf16 or the filtered gradient is refused by name on every other device, before anything is
/// written.
#[test]
fn what_only_flex_computes_is_refused_elsewhere() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    for device in devices(home).iter().filter(|device| *device != "flex") {
        let settings = [
            ("train.precision=bf16", "train"),
            ("optim.state=bf16", "train"),
            ("loss.filter=0.001", "train"),
            ("eval.precision=bf16", "eval"),
        ];
        for (set, verb) in settings {
            let mut command = wmtp(home);
            match verb {
                "train" => command.args(["train", "baseline"]),
                _ => command.args(["eval", "mbpp", "--model", "builtin:micro", "--tasks", "11"]),
            };
            let output = command
                .args(["--device", device, "--set", set])
                .output()
                .expect("the program starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{device} {set}: {stderr}");
            let expected = format!("works on flex only so far, and this run is on {device}");
            assert!(stderr.contains(&expected), "{device} {set}: {stderr}");
            assert!(!home.join("runs").exists(), "{device} {set} left a run");
        }
    }
}

/// A device of a feature that is not in the build, and one whose driver is missing.
#[test]
fn a_device_that_is_not_here_is_a_failure_of_doctor() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let here = devices(home.path());
    for name in ["cuda", "wgpu", "tch", "ndarray"] {
        if here.iter().any(|device| device.split(':').next() == Some(name)) {
            continue;
        }
        let output = wmtp(home.path())
            .args(["doctor", "--device", name])
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("device     FAILED") && text.contains("not ready"),
            "{text}"
        );
    }
}
