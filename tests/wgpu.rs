//! Training on a wgpu device against the same training on flex, through the built program.
//!
//! Meant for Mesa's llvmpipe, a Vulkan driver that computes on the CPU (Debian:
//! `mesa-vulkan-drivers`): run it with `--no-default-features --features flex,wgpu`. wgpu takes another
//! adapter in silence, so the test fails on one that is not such a driver, unless
//! `WMTP_TEST_ADAPTER=any` says that a GPU is meant.
#![cfg(all(feature = "wgpu", feature = "flex"))]

mod common;

use common::{json, lines, succeed, wmtp};
use std::path::Path;

const STEPS: usize = 20;

/// Drivers that compute on the CPU.
const SOFTWARE: [&str; 4] = ["llvmpipe", "SwiftShader", "WARP", "Microsoft Basic Render"];

/// The adapter behind `--device wgpu`, in words.
fn adapter(home: &Path) -> String {
    let report = json(&succeed(wmtp(home).args(["doctor", "--json"])));
    let devices = report["devices"].as_array().cloned().unwrap_or_default();
    let found = devices.iter().find(|device| device["name"] == "wgpu:0");
    let found = found.and_then(|device| device["description"].as_str());
    found
        .unwrap_or_else(|| panic!("no Vulkan driver (Debian: mesa-vulkan-drivers): {devices:?}"))
        .to_owned()
}

/// The steps of a critic run on the micro model; the value head is trained on the same device.
fn run(home: &Path, device: &str, more: &[&str]) -> Vec<serde_json::Value> {
    let name = format!("{device}-{}", more.len());
    let mut command = wmtp(home);
    command.args(["train", "critic", "--device", device, "--run-name", &name]);
    command.args(["--output", "runs", "--max-steps", &STEPS.to_string()]);
    for set in [
        "data.seq_len=128",
        "batching.micro_batch=2",
        "scorer.max_steps=5",
        "optim.lr=0.001",
    ] {
        command.args(["--set", set]);
    }
    for set in more {
        command.args(["--set", set]);
    }
    succeed(&mut command);
    let dir = home.join("runs").join(&name);
    let about = std::fs::read(dir.join("run.json")).expect("run.json");
    let about: serde_json::Value = serde_json::from_slice(&about).expect("JSON");
    let used = about["device"].as_str().unwrap_or_default();
    assert_eq!(used.split(':').next(), Some(device), "the device of {name}");
    let steps: Vec<_> = lines(&dir.join("metrics.jsonl"))
        .into_iter()
        .filter(|line| line["loss"].is_number() && line["lr"].is_number())
        .collect();
    assert_eq!(steps.len(), STEPS, "{device}");
    steps
}

fn losses(steps: &[serde_json::Value]) -> Vec<f64> {
    steps.iter().filter_map(|step| step["loss"].as_f64()).collect()
}

/// Fails where two curves are further apart than `bound` at any step.
fn assert_near(found: &[f64], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let worst = apart.fold(0.0, f64::max);
    println!("{what}: at most {worst:.1e} apart over {} steps", found.len());
    assert!(worst < bound, "{what}: {found:?}\nagainst {expected:?}");
}

#[test]
fn a_critic_run_on_wgpu_has_the_losses_of_flex() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let adapter = adapter(home.path());
    println!("adapter: {adapter}");
    let any = std::env::var("WMTP_TEST_ADAPTER").is_ok_and(|value| value == "any");
    assert!(
        any || SOFTWARE.iter().any(|name| adapter.contains(name)),
        "`{adapter}` is no software driver; WMTP_TEST_ADAPTER=any tests it all the same"
    );
    let flex = losses(&run(home.path(), "flex", &[]));
    let wgpu = losses(&run(home.path(), "wgpu", &[]));
    assert!(flex[0] - flex[STEPS - 1] > 0.1, "nothing was learned: {flex:?}");
    assert_near(&wgpu, &flex, 1e-3, "wgpu and flex");
    let again = losses(&run(home.path(), "wgpu", &["train.recompute=block"]));
    assert_near(&again, &wgpu, 1e-5, "wgpu with and without recomputation");
}

#[test]
fn bf16_is_refused_on_wgpu() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = wmtp(home.path())
        .args(["train", "baseline", "--device", "wgpu", "--set", "train.precision=bf16"])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("works on flex only so far, and this run is on wgpu"),
        "{stderr}"
    );
}
