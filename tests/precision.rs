//! Training in bf16 against training in f32, through the built program.

mod common;

use common::{lines, succeed, wmtp};
use std::path::Path;

const STEPS: usize = 30;

/// The losses of a run, step by step.
fn run(home: &Path, name: &str, set: &[&str]) -> Vec<f64> {
    let mut command = wmtp(home);
    command.args(["train", "baseline", "--output", "runs"]);
    command.args(["--run-name", name, "--max-steps", &STEPS.to_string()]);
    let common = [
        "data.seq_len=256",
        "batching.micro_batch=2",
        "optim.lr=0.002",
        "train.checkpoint={last_every: 10}",
    ];
    for set in common.iter().chain(set) {
        command.args(["--set", set]);
    }
    succeed(&mut command);
    lines(&home.join("runs").join(name).join("metrics.jsonl"))
        .iter()
        .filter(|line| line["loss"].is_number() && line["lr"].is_number())
        .filter_map(|line| line["loss"].as_f64())
        .collect()
}

#[test]
fn losses_in_bf16_stay_within_a_percent_of_f32() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let exact = run(home.path(), "f32", &[]);
    assert_eq!(exact.len(), STEPS);
    assert!(exact[0] - exact[STEPS - 1] > 0.3, "nothing was learned: {exact:?}");
    let all = ["train.precision=pure-bf16", "optim.state=bf16"];
    for (name, set) in [
        ("bf16", &["train.precision=bf16"][..]),
        ("pure", &all),
        ("state", &["optim.state=bf16"]),
    ] {
        let found = run(home.path(), name, set);
        let apart = found.iter().zip(&exact).map(|(a, b)| ((a - b) / b).abs());
        let worst = apart.fold(0.0, f64::max);
        println!("{name}: at most {:.3} % apart", 100.0 * worst);
        assert!(
            found.len() == STEPS && worst < 0.01,
            "{name}: {found:?}\nagainst {exact:?}"
        );
        assert!(worst > 0.0, "{name} took the path of f32");
    }
}

/// What saves memory does not change what is learned.
#[test]
fn heads_in_turn_and_blocks_computed_again_learn_the_same() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let plain = run(home.path(), "plain", &[]);
    for (name, set) in [
        ("sequential", "train.heads=sequential"),
        ("block", "train.recompute=block"),
    ] {
        let found = run(home.path(), name, &[set]);
        let apart = found.iter().zip(&plain).map(|(a, b)| ((a - b) / b).abs());
        let worst = apart.fold(0.0, f64::max);
        println!("{name}: at most {worst:.1e} apart");
        assert!(
            found.len() == STEPS && worst < 1e-4,
            "{name}: {found:?}\nagainst {plain:?}"
        );
    }
}
