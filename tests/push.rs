//! `wmtp push`: a run goes to a stand-in for the model hub, and is the same model when it comes back.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;
#[path = "../crates/storage/tests/hub/mod.rs"]
mod hub;

use common::{json, succeed, wmtp};
use hub::{Behaviour, Hub};
use serde_json::Value;
use std::{path::Path, process::Command};

const TOKEN: &str = "hf_secretsecretsecret";

/// A run of two steps, `runs/small`.
fn train(home: &Path) {
    let mut train = wmtp(home);
    train.args([
        "train",
        "critic",
        "--plain",
        "--output",
        "runs",
        "--run-name",
        "small",
        "--max-steps",
        "2",
    ]);
    for set in [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "data.seq_len=256",
        "model.mtp.n_heads=2",
        "scorer.max_steps=2",
        "train.record.documents=0",
    ] {
        train.args(["--set", set]);
    }
    succeed(&mut train);
}

fn push(home: &Path, hub: &Hub, arguments: &[&str]) -> Command {
    let mut command = wmtp(home);
    command
        .env("HF_ENDPOINT", hub.url())
        .env("HF_TOKEN", TOKEN)
        .env("HF_HOME", home.join("hf"));
    command
        .args(["push", "small", "hf://owner/small", "--output", "runs", "--json"])
        .args(arguments);
    command
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn state(document: &Value, name: &str) -> String {
    let files = document["files"].as_array().unwrap();
    let file = files
        .iter()
        .find(|file| file["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {document}"));
    file["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_is_pushed_with_its_card_and_read_back_as_the_same_model() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let hub = Hub::start(Behaviour {
        token: Some(TOKEN),
        large: 1 << 20,
        ..Behaviour::default()
    });
    train(home);

    let plan = json(&succeed(&mut push(home, &hub, &["--dry-run"])));
    assert_eq!(
        (&plan["dry_run"], &plan["private"], &plan["committed"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!(state(&plan, "model.safetensors"), "new");
    assert!(hub.state().repositories.is_empty());

    let pushed = json(&succeed(&mut push(home, &hub, &[])));
    assert_eq!(pushed["created"], true, "{pushed}");
    assert_eq!(pushed["url"], format!("{}/owner/small", hub.url()));
    assert_eq!(pushed["message"], "Push small: checkpoint best, step 2");
    let files = hub.files("owner/small", "main");
    for name in [
        "config.json",
        "model.safetensors",
        "mtp_heads.safetensors",
        "tokenizer.json",
    ] {
        let own = std::fs::read(home.join("runs/small/checkpoints/best").join(name)).unwrap();
        assert_eq!(files[name], own, "{name}");
    }
    for name in ["optimizer.bpk", "trainer.json", "manifest.json"] {
        assert!(!files.contains_key(name), "{name} belongs to training");
    }
    let card = String::from_utf8(files["README.md"].clone()).unwrap();
    for part in [
        "---\nlicense: other\nlibrary_name: transformers\n",
        "# small\n",
        "pipeline `critic`",
        "Not stated.",
        "These weights were not evaluated.",
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }

    let again = json(&succeed(&mut push(home, &hub, &[])));
    assert_eq!(again["committed"], false, "{again}");
    assert_eq!(again["commit"], pushed["commit"]);

    let score = |model: &str| {
        let mut score = wmtp(home);
        score
            .env("HF_ENDPOINT", hub.url())
            .env("HF_TOKEN", TOKEN)
            .env("HF_HOME", home.join("hf"));
        score.args(["score", "--json", "--text", "text.py", "--model", model]);
        json(&succeed(&mut score))["ce"].clone()
    };
    std::fs::write(home.join("text.py"), "def add(a, b):\n    return a + b\n").unwrap();
    let here = score("runs/small/checkpoints/best");
    assert_eq!(here.as_array().unwrap().len(), 2, "two heads");
    assert_eq!(score("hf://owner/small"), here);

    // A directory that was exported, to a branch.
    let mut export = wmtp(home);
    succeed(export.args(["export", "runs/small", "plain", "--heads", "drop", "--dtype", "bf16"]));
    let mut command = wmtp(home);
    command.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", TOKEN);
    command.args([
        "push",
        "plain",
        "hf://owner/small",
        "--revision",
        "bf16",
        "--message",
        "bf16",
        "--json",
    ]);
    let branch = json(&succeed(&mut command));
    let removed = branch["removed"].as_array().unwrap();
    assert!(removed.contains(&"mtp_heads.safetensors".into()), "{branch}");
    assert!(
        branch["notes"][0].as_str().unwrap().contains("has no README.md"),
        "{branch}"
    );
    assert_eq!(hub.messages("owner/small", "bf16").last().unwrap(), "bf16");
    assert!(
        hub.files("owner/small", "main").contains_key("mtp_heads.safetensors"),
        "the other branch is as it was"
    );
}

#[test]
fn what_cannot_be_pushed_is_one_sentence() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let hub = Hub::start(Behaviour {
        token: Some(TOKEN),
        large: 1 << 20,
        ..Behaviour::default()
    });
    let said = refused(&mut push(home, &hub, &[]));
    assert!(said.contains("there is no run `small`"), "{said}");
    train(home);
    let said = refused(&mut push(home, &hub, &["--public"]));
    assert!(said.contains("the model card lacks `intended_use`"), "{said}");
    let said = refused(&mut push(home, &hub, &["--checkpoint", "step-9"]));
    assert!(said.contains("no complete checkpoint step-9"), "{said}");
    let said = refused(&mut push(home, &hub, &["--revision", "a/b"]));
    assert!(said.contains("names a revision that can't be used"), "{said}");
    let said = refused(&mut push(home, &hub, &["--set", "storage.offline=true"]));
    assert!(said.contains("storage.offline forbids the network"), "{said}");
    let said = refused(push(home, &hub, &[]).env_remove("HF_TOKEN"));
    assert!(said.contains("set HF_TOKEN to one with write access"), "{said}");
    assert!(hub.taken().is_empty(), "nothing was asked");
}
