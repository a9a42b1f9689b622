//! The value head that a run learned is the one that it continues with, or none.

mod common;

use common::{succeed, wmtp};
use std::{fs, path::Path, process::Command};

fn critic(home: &Path, more: &[&str]) -> Command {
    let mut command = wmtp(home);
    command
        .args(["train", "critic", "--plain", "--output", "runs"])
        .args(more);
    command
}

#[test]
fn a_damaged_value_head_is_refused_on_resume() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let set = [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "data.seq_len=256",
        "model.mtp.n_heads=1",
        "train.record.documents=0",
        "scorer.max_steps=2",
    ];
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
    succeed(critic(home, &["--run-name", "c", "--max-steps", "1"]).args(&set));
    let file = home.join("runs/c/critic/value_head.safetensors");
    let whole = fs::read(&file).expect("the head");
    let resume = || critic(home, &["--resume", "c", "--max-steps", "2"]);
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    for (damage, bytes) in [
        ("flipped", Some(flipped)),
        ("emptied", Some(Vec::new())),
        ("removed", None),
    ] {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).expect("written"),
            None => fs::remove_file(&file).expect("removed"),
        }
        let output = resume().output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{damage}: {said}");
        let error = said
            .lines()
            .find(|line| line.starts_with("error: "))
            .unwrap_or_default();
        assert!(
            error.contains("value_head.safetensors` is not the value head that this run learned")
                && error.contains("critic/report.json"),
            "{damage}: {said}"
        );
    }
    fs::write(&file, &whole).expect("written");
    succeed(&mut resume());
}
