//! Section 7: what happens when a step fails, through the built program.

mod common;

use common::{lines, wmtp};

/// A learning rate of 1e30 makes every later loss non-finite: steps are skipped, the run goes back
/// three times with half the learning rate, and then stops with its artifacts kept.
#[test]
fn a_diverging_run_skips_rolls_back_and_stops() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = wmtp(home.path())
        .args([
            "train",
            "baseline",
            "--run-name",
            "diverges",
            "--output",
            "runs",
            "--max-steps",
            "40",
        ])
        .args([
            "--set",
            "optim.lr=1e30",
            "--set",
            "data.seq_len=128",
            "--set",
            "batching.micro_batch=1",
        ])
        .args(["--set", "optim.warmup=0"])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("not finite 3 times in a row, after 3 returns"),
        "{stderr}"
    );

    let run = home.path().join("runs/diverges");
    let events = lines(&run.join("events.jsonl"));
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!((count("skip"), count("rollback")), (12, 3), "{events:?}");
    assert!(
        run.join("checkpoints/last/manifest.json").is_file(),
        "artifacts are kept"
    );
    let skip = events.iter().find(|e| e["event"] == "skip").expect("a skip");
    let dump = format!("skipped-step-{:06}.json", skip["step"].as_u64().expect("a step"));
    assert!(run.join(dump).is_file(), "the offending batch is dumped");
    // Skipped steps are in the metrics, marked as not applied.
    let metrics = lines(&run.join("metrics.jsonl"));
    assert_eq!(metrics.iter().filter(|m| m["applied"] == false).count(), 12);
}
