//! Directories for other tools, through the built program: exports, adapters, kept checkpoints.

mod common;

use common::{json, succeed, wmtp};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A run of two steps on `model`; its directory.
fn train(home: &Path, model: &str, name: &str, sets: &[&str]) -> PathBuf {
    let settings = [
        "data.seq_len=256",
        "batching.micro_batch=1",
        "data.valid_tasks=[511,512]",
        "optim.lr=0.01",
    ];
    succeed(
        wmtp(home)
            .args(["train", "baseline", "--plain", "--max-steps", "2", "--output", "runs"])
            .args(["--model", model, "--run-name", name])
            .args(settings.iter().chain(sets).flat_map(|set| ["--set", set])),
    );
    home.join("runs").join(name)
}

fn export(home: &Path, args: &[&str]) -> Value {
    json(&succeed(wmtp(home).args(["export", "--json"]).args(args)))
}

/// Exit code and message of an export that fails.
fn refused(home: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = wmtp(home)
        .arg("export")
        .args(args)
        .output()
        .expect("the program starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Cross-entropy of every head for every token of a text.
fn score(home: &Path, model: &Path) -> Vec<Vec<f64>> {
    let text = home.join("text.py");
    fs::write(&text, "def add(a, b):\n    return a + b\n").expect("the text is written");
    let output = succeed(
        wmtp(home)
            .args(["score", "--json", "--text"])
            .arg(text)
            .arg("--model")
            .arg(model),
    );
    serde_json::from_value(json(&output)["ce"].clone()).expect("lists of numbers")
}

fn read_json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// The types of a safetensors file's tensors.
fn types(path: &Path) -> Vec<Dtype> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut types: Vec<Dtype> = file.tensors().into_iter().map(|(_, view)| view.dtype()).collect();
    types.dedup();
    types
}

fn largest_gap(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_run_is_exported_with_all_that_other_tools_need() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    // A base with more files than wmtp itself reads.
    export(home, &["builtin:micro", "base"]);
    for (name, content) in [
        ("tokenizer.model", &b"\xff\x00pieces"[..]),
        ("added_tokens.json", b"{}"),
        ("chat_template.jinja", b"{{ messages }}"),
    ] {
        fs::write(home.join("base").join(name), content).expect("written");
    }
    let run = train(home, "base", "full", &[]);
    let last = run.join("checkpoints/last");
    let index = read_json(&last.join("model.safetensors.index.json"));
    let files = index["weight_map"].as_object().expect("a map").values();
    assert!(files.into_iter().all(|file| file == "model.safetensors"));
    let manifest = read_json(&last.join("manifest.json"));
    for name in [
        "model.safetensors.index.json",
        "mtp_heads.safetensors",
        "tokenizer.model",
    ] {
        assert!(manifest["files"][name]["sha256"].is_string(), "{name}");
    }

    let said = export(home, &["runs/full", "kept"]);
    assert_eq!(
        (said["heads"].as_u64(), said["dtype"].as_str(), said["kind"].as_str()),
        (Some(4), Some("float32"), Some("model"))
    );
    let best = run.join("checkpoints/best");
    assert_eq!(score(home, &home.join("kept")), score(home, &best));
    for name in [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "model.safetensors",
        "mtp_heads.safetensors",
    ] {
        let read = |dir: &Path| fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read(&home.join("kept")), read(&best), "{name}");
    }
    for name in ["optimizer.bpk", "trainer.json", "manifest.json"] {
        assert!(!home.join("kept").join(name).exists(), "{name}");
    }

    let said = export(home, &["runs/full", "plain", "--heads", "drop", "--dtype", "bf16"]);
    assert_eq!(
        (said["heads"].as_u64(), said["dtype"].as_str()),
        (Some(1), Some("bfloat16"))
    );
    assert_eq!(types(&home.join("plain/model.safetensors")), [Dtype::BF16]);
    assert!(!home.join("plain/mtp_heads.safetensors").exists());
    let config = read_json(&home.join("plain/config.json"));
    assert_eq!(
        (&config["torch_dtype"], &config["wmtp"]),
        (&Value::from("bfloat16"), &Value::Null)
    );
    let (plain, all) = (score(home, &home.join("plain")), score(home, &best));
    assert!(largest_gap(&plain, &all[..1]) < 0.1, "bf16 rounds, and no more");

    let (code, message) = refused(home, &["runs/full", "plain"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("`plain` is not empty"), "{message}");
    let (code, message) = refused(home, &["runs/full", "other", "--merge"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("has no adapter to merge"), "{message}");
    assert!(!home.join("other").exists());
}

#[test]
fn an_adapter_is_merged_kept_and_hashed_with_its_heads() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let run = train(home, "builtin:micro", "lora", &["train.lora.rank=2"]);
    let last = run.join("checkpoints/last");
    let manifest = read_json(&last.join("manifest.json"));
    for name in ["adapter_model.safetensors", "mtp_adapter.safetensors"] {
        assert!(manifest["files"][name]["sha256"].is_string(), "{name}");
    }
    let last_name = "runs/lora/checkpoints/last";
    let said = export(home, &[last_name, "merged", "--merge"]);
    assert_eq!(
        (said["heads"].as_u64(), said["kind"].as_str()),
        (Some(4), Some("model"))
    );
    let adapted = score(home, &last);
    assert!(largest_gap(&score(home, &home.join("merged")), &adapted) < 1e-4);
    export(home, &["builtin:micro", "base"]);
    let base = score(home, &home.join("base"));
    assert!(
        largest_gap(&base[..1], &adapted[..1]) > 1e-3,
        "the adapter does something"
    );
    assert!(home.join("merged/tokenizer.json").exists());

    let said = export(
        home,
        &[last_name, "one", "--merge", "--heads", "drop", "--dtype", "f16"],
    );
    assert_eq!(
        (said["heads"].as_u64(), said["dtype"].as_str()),
        (Some(1), Some("float16"))
    );
    assert_eq!(read_json(&home.join("one/config.json"))["wmtp"], Value::Null);
    assert!(largest_gap(&score(home, &home.join("one")), &adapted[..1]) < 0.01);

    let said = export(home, &[last_name, "adapter", "--heads", "drop"]);
    assert_eq!(
        (said["heads"].as_u64(), said["kind"].as_str()),
        (Some(1), Some("adapter"))
    );
    assert!(!home.join("adapter/mtp_adapter.safetensors").exists());
    // The base has heads of its own, which an adapter without factors for them leaves as they are.
    assert!(largest_gap(&score(home, &home.join("adapter"))[..1], &adapted[..1]) < 1e-5);

    // What an evaluation or a promotion names changes with the heads, too.
    let hash = wmtp::pipeline::weights_hash(&last).expect("a hash");
    let heads = last.join("mtp_adapter.safetensors");
    let mut bytes = fs::read(&heads).expect("the heads' factors");
    *bytes.last_mut().expect("some bytes") ^= 1;
    fs::remove_file(&heads).expect("removed, as `best` has the same file");
    fs::write(&heads, bytes).expect("written");
    assert_ne!(wmtp::pipeline::weights_hash(&last).expect("a hash"), hash);
}

#[test]
fn a_kept_checkpoint_holds_what_the_recipe_wants_and_is_not_resumed() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let sets = [
        "train.checkpoint.only_model=true",
        "train.checkpoint.dtype=bf16",
        "train.checkpoint.every=1",
    ];
    let run = train(home, "builtin:micro", "kept", &sets);
    let at = |name: &str| run.join("checkpoints").join(name);
    for name in ["best", "step-000001"] {
        assert!(!at(name).join("optimizer.bpk").exists(), "{name}");
        for file in ["model.safetensors", "mtp_heads.safetensors"] {
            assert_eq!(types(&at(name).join(file)), [Dtype::BF16], "{name}");
        }
        assert_eq!(read_json(&at(name).join("config.json"))["torch_dtype"], "bfloat16");
        let manifest = read_json(&at(name).join("manifest.json"));
        assert_eq!(manifest["resumable"], false);
        assert!(manifest["files"]["model.safetensors.index.json"].is_object());
        assert!(manifest["files"]["optimizer.bpk"].is_null());
        wmtp::run::verify(&at(name)).expect("every file is what the manifest says");
    }
    assert!(at("last").join("optimizer.bpk").exists());
    assert_eq!(types(&at("last").join("model.safetensors")), [Dtype::F32]);
    assert_eq!(read_json(&at("last").join("manifest.json"))["resumable"], Value::Null);
    assert_eq!(score(home, &at("best")).len(), 4);

    let resume = |home: &Path| {
        let mut command = wmtp(home);
        command.args(["train", "baseline", "--plain", "--resume", "kept", "--output", "runs"]);
        command
    };
    succeed(&mut resume(home));
    for name in ["last", "previous"] {
        fs::remove_dir_all(at(name)).expect("removed");
    }
    let output = resume(home).output().expect("the program starts");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("cannot be resumed: start a new run from it with `--model`"),
        "{message}"
    );
}

#[test]
fn weights_that_training_keeps_in_bf16_are_stored_in_bf16() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let run = train(home, "builtin:micro", "pure", &["train.precision=pure-bf16"]);
    for name in ["last", "best"] {
        let dir = run.join("checkpoints").join(name);
        for file in ["model.safetensors", "mtp_heads.safetensors"] {
            assert_eq!(types(&dir.join(file)), [Dtype::BF16], "{name}");
        }
        assert_eq!(read_json(&dir.join("config.json"))["torch_dtype"], "bfloat16");
        assert!(dir.join("optimizer.bpk").exists());
        assert_eq!(read_json(&dir.join("manifest.json"))["resumable"], Value::Null);
    }
}
