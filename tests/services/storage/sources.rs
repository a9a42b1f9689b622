//! Where models and data come from.

use super::{config, noise, storage, wmtp};
use crate::{
    common::{json, lines, succeed},
    s3::{Bucket, endpoint},
};
use std::{fs, path::Path};
use wmtp::storage::{Kind, StorageError};

#[test]
fn files_and_directories_are_found_here_then_in_the_cache_then_on_s3() {
    let bucket = Bucket::new("sources");
    let home = tempfile::tempdir().expect("a directory");
    let storage = storage(home.path(), &config(&endpoint()));
    let (small, large) = (noise(1, 1000), noise(2, 20_000_000));
    bucket.put("data/a.jsonl", small.clone());
    bucket.put("data/deep/b.jsonl", large.clone());
    bucket.put("data/.hidden", "x");

    let mut transfers = Vec::new();
    let dir = storage
        .resolve(&bucket.url("data"), Kind::Data, &mut |t| transfers.push(t.clone()))
        .expect("a directory");
    assert!(fs::read(dir.join("a.jsonl")).expect("a file") == small);
    assert!(fs::read(dir.join("deep/b.jsonl")).expect("a file") == large);
    assert!(!dir.join(".hidden").exists());
    assert_eq!(
        transfers.last().map(|t| (Some(t.done), t.total)),
        Some((Some(20_001_000), Some(20_001_000)))
    );
    assert!(transfers.windows(2).all(|pair| pair[0].done <= pair[1].done));

    let mut arrived = 0;
    let again = storage.resolve(&bucket.url("data"), Kind::Data, &mut |_| arrived += 1);
    assert_eq!((again, arrived), (Ok(dir.clone()), 0), "the cache has it");
    let file = storage
        .resolve(&bucket.url("data/a.jsonl"), Kind::Data, &mut |_| ())
        .expect("a file");
    assert_eq!(file.file_name(), Some("a.jsonl".as_ref()), "a file keeps its name");
    assert!(fs::read(&file).expect("a file") == small);

    bucket.put("data/a.jsonl", "changed");
    let changed = storage
        .resolve(&bucket.url("data"), Kind::Data, &mut |_| ())
        .expect("a directory");
    assert_eq!(fs::read(changed.join("a.jsonl")).expect("a file"), b"changed");
    assert!(
        fs::read(dir.join("a.jsonl")).expect("a file") == small,
        "what was given stays as it was"
    );

    let mut offline = config(&endpoint());
    offline.offline = true;
    let offline = super::storage(home.path(), &offline);
    assert_eq!(
        offline.resolve(&bucket.url("data"), Kind::Data, &mut |_| ()),
        Ok(changed)
    );
    let error = offline
        .resolve(&bucket.url("other"), Kind::Data, &mut |_| ())
        .expect_err("not here");
    assert!(matches!(error, StorageError::Offline { .. }), "{error}");

    let local = bucket
        .url("data")
        .replacen("s3:/", &home.path().join("datasets").display().to_string(), 1);
    fs::create_dir_all(&local).expect("a directory");
    assert_eq!(
        storage.resolve(&bucket.url("data"), Kind::Data, &mut |_| ()),
        Ok(local.into()),
        "what is here is asked first"
    );
}

#[test]
fn what_is_not_there_or_not_allowed_is_one_sentence() {
    let bucket = Bucket::new("errors");
    let home = tempfile::tempdir().expect("a directory");
    let asked = |uri: &str, kind| storage(home.path(), &config(&endpoint())).resolve(uri, kind, &mut |_| ());
    bucket.put("no-model/readme.txt", "x");
    bucket.put("file.json", "{}");
    for (uri, kind, says) in [
        (bucket.url("nothing"), Kind::Data, "check bucket and key"),
        ("s3://no-such-bucket/x".into(), Kind::Data, "check bucket and key"),
        (bucket.url("no-model"), Kind::Model, "it has no config.json"),
        (bucket.url("file.json"), Kind::Model, "is a file: give the directory"),
    ] {
        let error = asked(&uri, kind).expect_err(&uri).to_string();
        assert!(
            error.contains(says) && error.contains(&uri) && !error.contains('\n'),
            "{error}"
        );
    }
    let denied = wmtp(home.path())
        .args(["cache", "fetch", &bucket.url("file.json"), "--data"])
        .env("AWS_SECRET_ACCESS_KEY", "wrong-secret-wrong")
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&denied.stderr);
    assert!(text.contains("AWS_SECRET_ACCESS_KEY do not open it"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
    // Nobody listens on port 1.
    let error =
        storage(home.path(), &config("http://user:pass@127.0.0.1:1")).resolve("s3://bucket/x", Kind::Data, &mut |_| ());
    let error = error.expect_err("nobody listens").to_string();
    assert!(
        error.contains("http://127.0.0.1:1") && !error.contains("pass"),
        "{error}"
    );
}

/// Trains a few steps and gives the losses.
fn losses(home: &Path, model: &str, data: &str) -> Vec<String> {
    let output = succeed(
        wmtp(home)
            .args([
                "--json",
                "train",
                "baseline",
                "--model",
                model,
                "--data",
                data,
                "--output",
                "runs",
                "--max-steps",
                "3",
            ])
            .args(["--set", "data.seq_len=128", "--set", "batching.micro_batch=1"]),
    );
    let run = json(&output)["run_dir"].as_str().expect("a directory").to_owned();
    let losses: Vec<String> = lines(&home.join(run).join("metrics.jsonl"))
        .iter()
        .filter_map(|line| line.get("loss").map(ToString::to_string))
        .collect();
    assert_eq!(losses.len(), 3);
    losses
}

#[test]
fn training_is_the_same_from_local_remote_and_mixed_sources() {
    let bucket = Bucket::new("mixed");
    let home = tempfile::tempdir().expect("a directory");
    let model =
        wmtp::pipeline::builtin_model("micro", home.path(), &burn::tensor::Device::flex()).expect("the micro model");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mbpp");
    bucket.put_dir("model", &model);
    bucket.put_dir("mbpp", &data);
    let (model, data) = (model.display().to_string(), data.display().to_string());

    let local = losses(home.path(), &model, &data);
    for (model, data) in [
        (bucket.url("model"), bucket.url("mbpp")),
        (bucket.url("model"), data.clone()),
        (model.clone(), bucket.url("mbpp")),
    ] {
        // An empty machine each time.
        let machine = tempfile::tempdir().expect("a directory");
        assert_eq!(losses(machine.path(), &model, &data), local, "{model} {data}");
    }
}
