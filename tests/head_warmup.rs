//! `train.head_warmup` through the built program.

mod common;

use common::{lines, succeed, weights, wmtp};

/// Two steps in which only heads 2..H learn, then two in which everything does.
#[test]
fn trunk_and_head_1_rest_until_the_heads_are_warm() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = wmtp(home.path());
    command.args([
        "train",
        "baseline",
        "--run-name",
        "warm",
        "--output",
        "runs",
        "--max-steps",
        "4",
    ]);
    for set in [
        "train.head_warmup={steps: 2, lr: 0.002}",
        "train.checkpoint={every: 1, keep: 0}",
        "optim={lr: 0.001, warmup: 0}",
        "data.seq_len=128",
        "batching.micro_batch=1",
    ] {
        command.args(["--set", set]);
    }
    succeed(&mut command);

    let run = home.path().join("runs/warm");
    let after = |step: usize| weights(&run, &format!("step-{step:06}"));
    let (one, two, three) = (after(1), after(2), after(3));
    assert_eq!(one.len(), 2, "model.safetensors and mtp_heads.safetensors");
    assert!(one[0] == two[0], "trunk and head 1 rest");
    assert!(one[1] != two[1], "heads 2..H learn");
    assert!(two[0] != three[0], "and then everything learns");
    assert!(two[1] != three[1]);
    let rates: Vec<f64> = lines(&run.join("metrics.jsonl"))
        .iter()
        .filter_map(|line| line["lr"].as_f64())
        .collect();
    // The schedule of two steps: its peak, then half-way down the cosine.
    assert_eq!(rates[..3], [0.002, 0.002, 0.001]);
    assert!((rates[3] - 0.0005).abs() < 1e-12, "{rates:?}");
}
