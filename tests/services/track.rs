//! Runs at an MLflow server, read back by MLflow's own client.

use crate::{
    common::{json, succeed, wmtp},
    unique, variable,
    world::{S3, kept, mlflow, read_back, run_dir, train, written_metrics},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path};

/// Steps and values of one metric in an answer of `read_back.py run`.
fn points(run: &Value, key: &str) -> Vec<(i64, f64)> {
    let mut points: Vec<(i64, f64)> = run["metrics"][key]
        .as_array()
        .unwrap_or_else(|| panic!("no metric {key}"))
        .iter()
        .map(|p| (p[0].as_i64().unwrap(), p[2].as_str().unwrap().parse().unwrap()))
        .collect();
    points.sort_by_key(|(step, _)| *step);
    points
}

/// Everything that the run wrote down is at MLflow, as it is, and nothing twice.
fn assert_complete(run: &Value, dir: &Path) {
    for (key, written) in written_metrics(dir) {
        let there = points(run, &key);
        assert_eq!(there.len(), written.len(), "{key}");
        for (there, written) in there.iter().zip(&written) {
            assert_eq!(there.0, written.0, "{key}");
            let error = (there.1 - written.1).abs();
            assert!(error <= 1e-15 * written.1.abs(), "{key}: {there:?} for {written:?}");
        }
    }
    for (name, file) in [
        ("run.json", "run.json"),
        ("recipe.yaml", "recipe.yaml"),
        ("config.yaml", "config.yaml"),
        ("metrics.jsonl", "metrics.jsonl"),
        ("critic/report.json", "critic/report.json"),
    ] {
        let hash: String = Sha256::digest(std::fs::read(dir.join(file)).unwrap())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(run["artifacts"][name], hash.as_str(), "{name}");
    }
    let record: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("run.json")).unwrap()).unwrap();
    assert_eq!(run["tags"]["wmtp.uid"], record["uid"]);
    assert_eq!(run["tags"]["wmtp.data_sha256"], record["data_sha256"]);
    assert_eq!(run["tags"]["mlflow.source.git.commit"], record["commit"]);
    let input = &run["inputs"][0];
    assert_eq!(input["name"], "mbpp");
    assert!(
        record["data_sha256"]
            .as_str()
            .unwrap()
            .starts_with(input["digest"].as_str().unwrap())
    );
    assert_eq!(input["tags"]["mlflow.data.context"], "training");
    let manifest = std::fs::read_to_string(dir.join("checkpoints/best/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let models: Vec<&Value> = run["models"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["name"] == "best")
        .collect();
    assert_eq!(models.len(), 1);
    let outputs = run["outputs"].as_array().unwrap();
    let best = outputs.iter().find(|o| o["model_id"] == models[0]["id"]).unwrap();
    assert_eq!(best["step"], manifest["step"]);
}

/// What the resolved settings say, as parameters.
fn expected_params(dir: &Path, home: &Path) -> BTreeMap<String, String> {
    let shown = json(&succeed(
        wmtp(home)
            .args(["inspect", "recipe", "--json"])
            .arg("--recipe")
            .arg(dir.join("recipe.yaml"))
            .arg("--config")
            .arg(dir.join("config.yaml")),
    ));
    let mut params = wmtp::track::flatten(&shown["recipe"]);
    params.extend(wmtp::track::flatten(&serde_json::json!({"config": shown["config"]})));
    params
}

#[test]
fn a_run_is_at_mlflow_as_it_was_written() {
    let home = tempfile::tempdir().unwrap();
    let experiment = unique("mtp/critic/mbpp");
    let server = mlflow();
    let summary = json(&succeed(
        train(home.path(), &server, &experiment, "parent", 12).args(["--tags", "first,machine=loopback"]),
    ));
    let left = &summary["tracking"]["trackers"][0];
    assert_eq!((&left["left"], &left["problem"]), (&0.into(), &Value::Null));
    assert!(left["refused"].as_array().unwrap().is_empty(), "{left}");
    let dir = run_dir(home.path(), "parent");
    let id = kept(&dir, "mlflow")["kept"]["run_id"].as_str().unwrap().to_owned();

    succeed(train(home.path(), &server, &experiment, "child", 2).args(["--set", "tracking.parent_run=parent"]));
    let run = read_back("run", &server, &id);
    assert_eq!(
        (&run["experiment"], &run["name"], &run["status"]),
        (&experiment.into(), &"parent".into(), &"FINISHED".into())
    );
    assert_eq!(run["children"], serde_json::json!(["child"]));
    assert_complete(&run, &dir);
    let params: BTreeMap<String, String> = serde_json::from_value(run["params"].clone()).unwrap();
    assert_eq!(params, expected_params(&dir, home.path()));
    assert_eq!(
        (&run["tags"]["first"], &run["tags"]["machine"]),
        (&"true".into(), &"loopback".into())
    );
    for name in ["checkpoints/best.json", "checkpoints/last.json", "events.jsonl"] {
        assert!(run["artifacts"][name].is_string(), "{name} is not there");
    }
    assert!(run["artifact_uri"].as_str().unwrap().starts_with("mlflow-artifacts:"));
    let share: Vec<f64> = points(&run, "track_share").iter().map(|p| p.1).collect();
    assert_eq!(share.len(), 11);
}

#[test]
fn files_go_straight_to_s3_where_the_server_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (experiment, server) = (unique("direct"), mlflow());
    read_back("s3", &server, &experiment);
    let mut command = train(home.path(), &server, &experiment, "direct", 4);
    command
        .env("MLFLOW_S3_ENDPOINT_URL", variable(S3))
        .args(["--set", "tracking.checkpoints=upload"]);
    succeed(&mut command);
    let dir = run_dir(home.path(), "direct");
    let id = kept(&dir, "mlflow")["kept"]["run_id"].as_str().unwrap().to_owned();
    let run = read_back("run", &server, &id);
    assert!(run["artifact_uri"].as_str().unwrap().starts_with("s3://mlflow/direct/"));
    assert_complete(&run, &dir);
    // The checkpoint's own manifest says what its files are.
    let manifest = std::fs::read_to_string(dir.join("checkpoints/best/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    for (file, entry) in manifest["files"].as_object().unwrap() {
        assert_eq!(
            run["artifacts"][format!("checkpoints/best/{file}")],
            entry["sha256"],
            "{file}"
        );
    }
}
