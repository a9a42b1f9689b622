//! From a trained run to a registered model with its card.

use crate::{
    common::{json, succeed, wmtp},
    unique,
    world::{kept, mlflow, read_back, run_dir, train},
};
use std::{path::Path, process::Command};

fn promote(home: &Path, run: &str, to: &str, name: &str) -> Command {
    let mut command = wmtp(home);
    command.args(["promote", run, "--to", to, "--name", name, "--output", "runs", "--json"]);
    command
}

/// The sentence with which a command is refused.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_model_goes_to_staging_and_then_to_production_with_its_card() {
    let home = tempfile::tempdir().unwrap();
    let (experiment, name) = (unique("mtp/critic/mbpp"), unique("model"));
    succeed(&mut train(home.path(), &mlflow(), &experiment, "good", 4));
    let dir = run_dir(home.path(), "good");
    let at = |to: &str| promote(home.path(), "good", to, &name);

    let said = refused(&mut at("staging"));
    assert!(
        said.contains("was not evaluated") && said.contains("wmtp eval mbpp --model"),
        "{said}"
    );
    let mut eval = wmtp(home.path());
    eval.args([
        "eval",
        "mbpp",
        "--tasks",
        "11-13",
        "--max-new-tokens",
        "4",
        "--temperature",
        "0",
        "--json",
    ]);
    eval.args([
        "--prompt",
        "zero-shot",
        "--output",
        "runs",
        "--model",
        "runs/good/checkpoints/best",
    ]);
    eval.args([
        "--set",
        "tracking.kinds=[mlflow]",
        "--set",
        &format!("tracking.mlflow.uri={}", mlflow()),
    ]);
    eval.args(["--set", &format!("tracking.experiment={experiment}")]);
    let report = json(&succeed(&mut eval));

    let said = refused(&mut at("staging"));
    assert!(said.contains("`intended_use`") && said.contains("--card"), "{said}");
    let card = home.path().join("card.yaml");
    std::fs::write(&card, "intended_use: to try the machinery\n").unwrap();
    let said = refused(at("staging").arg("--card").arg(&card));
    assert!(said.contains("`limits`"), "{said}");
    std::fs::write(&card, "intended_use: to try the machinery\nlimits: it solves nothing\n").unwrap();
    let said = refused(at("production").arg("--card").arg(&card));
    assert!(said.contains("not in staging"), "{said}");

    let staged = json(&succeed(at("staging").arg("--card").arg(&card)));
    assert_eq!((&staged["version"], &staged["alias"]), (&"1".into(), &"staging".into()));
    // The same again is the same version.
    assert_eq!(json(&succeed(&mut at("staging")))["version"], "1");
    let model = read_back("model", &mlflow(), &name);
    assert_eq!(model["aliases"], serde_json::json!({"staging": "1"}));
    assert_eq!(model["versions"].as_array().unwrap().len(), 1);
    let version = &model["versions"][0];
    assert_eq!(version["stage"], "Staging");
    assert_eq!(version["run_id"], kept(&dir, "mlflow")["kept"]["run_id"]);
    let files: Vec<&str> = version["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap())
        .collect();
    for file in [
        "README.md",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "mtp_heads.safetensors",
        "tokenizer.json",
    ] {
        assert!(files.contains(&file), "{file} is not among {files:?}");
    }
    assert!(!files.contains(&"optimizer.bpk"));

    assert_eq!(json(&succeed(&mut at("production")))["version"], "1");
    let model = read_back("model", &mlflow(), &name);
    assert_eq!(model["aliases"], serde_json::json!({"production": "1"}));
    assert_eq!(model["versions"][0]["stage"], "Production");
    let card = std::fs::read_to_string(dir.join("MODEL_CARD.md")).unwrap();
    let hash = staged["model_sha256"].as_str().unwrap();
    let score = format!("| {:.1}% |", 100.0 * report["pass_at_1"].as_f64().unwrap());
    for part in [
        "to try the machinery",
        "it solves nothing",
        "CC-BY-4.0",
        "kind: critic",
        hash,
        &score,
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    assert_eq!(model["versions"][0]["description"], card.as_str());

    // The evaluation is part of the run that it evaluated.
    let id = kept(&dir, "mlflow")["kept"]["run_id"].as_str().unwrap().to_owned();
    let run = read_back("run", &mlflow(), &id);
    let trained: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("checkpoints/best/trainer.json")).unwrap()).unwrap();
    for (key, value) in [
        ("mbpp/pass_at_1", report["pass_at_1"].as_f64().unwrap()),
        ("mbpp/pass_at_1_low", report["ci95"][0].as_f64().unwrap()),
        ("mbpp/pass_at_1_high", report["ci95"][1].as_f64().unwrap()),
    ] {
        let points = run["metrics"][key].as_array().unwrap();
        assert_eq!(points.len(), 1, "{key}");
        assert_eq!(points[0][0], trained["step"]);
        assert_eq!(points[0][2].as_str().unwrap().parse::<f64>().unwrap(), value);
    }
    let samples = run["artifacts"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|k| k.ends_with("samples.jsonl"));
    assert_eq!(samples.count(), 1);
    assert!(run["artifacts"]["MODEL_CARD.md"].is_string());
    let mut inputs: Vec<&str> = run["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    inputs.sort_unstable();
    assert_eq!(inputs, ["mbpp", "mbpp-full"]);

    // Other weights under the same name were never tried.
    let said = refused(promote(home.path(), "good", "production", &name).args(["--checkpoint", "step-9"]));
    assert!(said.contains("step-9"), "{said}");
}
