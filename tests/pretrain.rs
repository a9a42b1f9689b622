//! `train.pretrain` through the built program: the stage before the value head and before weights.

mod common;

use common::{lines, succeed, wmtp};
use std::{fs, path::Path};

fn train(home: &Path, pipeline: &str, name: &str, more: &[&str]) {
    let mut command = wmtp(home);
    command.args(["train", pipeline, "--run-name", name, "--output", "runs", "--plain"]);
    for set in [
        "train.steps=2",
        "train.pretrain.steps=3",
        "data.seq_len=128",
        "batching.micro_batch=1",
        "scorer.max_steps=1",
    ] {
        if pipeline == "critic" || !set.starts_with("scorer") {
            command.args(["--set", set]);
        }
    }
    succeed(command.args(more));
}

fn model(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("model.safetensors")).expect("a model")
}

#[test]
fn the_critic_continues_the_pretrained_model_and_resumes_without_doing_it_again() {
    let home = tempfile::tempdir().unwrap();
    train(home.path(), "critic", "a", &["--set", "train.checkpoint.every=1"]);
    let run = home.path().join("runs/a");
    assert_eq!(
        lines(&run.join("pretrain/metrics.jsonl"))
            .iter()
            .filter(|l| l["loss"].is_number())
            .count(),
        3
    );
    let before = lines(&run.join("pretrain/metrics.jsonl")).pop().unwrap()["valid_loss"].clone();
    let first = lines(&run.join("metrics.jsonl")).remove(0);
    assert_eq!((&first["step"], &first["valid_loss"]), (&0.into(), &before));
    assert!(run.join("critic/value_head.safetensors").is_file());
    let left = model(&run.join("pretrain/checkpoints/last"));
    assert!(left != model(&run.join("checkpoints/last")));
    let mut command = wmtp(home.path());
    command.args([
        "train",
        "critic",
        "--resume",
        "a",
        "--output",
        "runs",
        "--plain",
        "--max-steps",
        "3",
    ]);
    succeed(&mut command);
    assert!(
        left == model(&run.join("pretrain/checkpoints/last")),
        "it was not done again"
    );
    let steps = lines(&run.join("metrics.jsonl"));
    assert_eq!(steps.iter().filter(|line| line["loss"].is_number()).count(), 3);
}

#[test]
fn rho1_without_a_reference_pretrains_one_and_starts_from_random_weights() {
    let home = tempfile::tempdir().unwrap();
    train(home.path(), "rho1", "b", &[]);
    let run = home.path().join("runs/b");
    let reference = lines(&run.join("pretrain/metrics.jsonl")).pop().unwrap()["valid_loss"]
        .as_f64()
        .unwrap();
    let first = lines(&run.join("metrics.jsonl")).remove(0)["valid_loss"]
        .as_f64()
        .unwrap();
    assert!(
        first > reference + 0.1,
        "{first} and {reference}: the random weights, not the reference's"
    );
}
