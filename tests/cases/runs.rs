//! Runs that are resumed or that fail.

use crate::{
    case::Case,
    common::{lines, succeed, weights},
};
use serde_json::Value;
use std::{fs, path::Path};

/// The settings of the reported runs: 30 tasks, two heads.
const SMALL: [&str; 4] = [
    "data.train_tasks=[602,631]",
    "data.valid_tasks=[511,515]",
    "model.mtp.n_heads=2",
    "train.record.documents=0",
];

/// `wmtp train baseline` into `runs`.
fn train<'a>(name: &'a str, steps: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "baseline", "--plain", "--output", "runs", "--run-name", name];
    args.extend(["--max-steps", steps]);
    args.extend(SMALL.iter().chain(set).flat_map(|set| ["--set", set]));
    args
}

fn resume<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["train", "baseline", "--plain", "--output", "runs", "--resume", name],
        more,
    ]
    .concat()
}

/// The run as if it had been killed right after the checkpoint of `step`.
fn killed_at(run: &Path, step: usize) {
    let checkpoints = run.join("checkpoints");
    let kept = checkpoints.join(format!("step-{step:06}"));
    for entry in fs::read_dir(&checkpoints).expect("checkpoints") {
        let path = entry.expect("an entry").path();
        if path != kept {
            fs::remove_dir_all(path).expect("a checkpoint");
        }
    }
    fs::rename(kept, checkpoints.join("last")).expect("a checkpoint");
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Step and loss of every step, as written.
fn losses(run: &Path) -> Vec<(u64, String)> {
    let lines = lines(&run.join("metrics.jsonl"));
    let of = |line: &Value| Some((line["step"].as_u64()?, line.get("loss")?.to_string()));
    lines.iter().filter_map(of).collect()
}

fn message(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn resume_seed() {
    let case = Case::new("resume-seed");
    let kept = ["seed=7", "train.checkpoint={every: 1, keep: 0}"];
    succeed(&mut case.command(&train("whole", "6", &kept)));
    let other = train("other", "6", &["seed=42"]);
    succeed(&mut case.command(&other));
    let (whole, run) = (case.path("runs/whole"), case.path("runs/a"));
    assert_ne!(
        losses(&whole),
        losses(&case.path("runs/other")),
        "the seed decides the batches"
    );

    succeed(&mut case.command(&train("a", "6", &kept)));
    killed_at(&run, 2);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/config.local.yaml");
    assert!(fs::read_to_string(&config).expect("the file").contains("seed: 42"));
    let config = config.to_str().expect("a path in UTF-8");
    let output = succeed(&mut case.command(&resume("a", &["--config", config])));
    let said = message(&output);
    assert!(
        said.contains("seed 42 is not used") && said.contains("its own, 7"),
        "{said}"
    );
    assert_eq!(losses(&run), losses(&whole));
    assert!(weights(&run, "last") == weights(&whole, "last"));
    assert_eq!(json(&run.join("run.json"))["seed"], 7);
    let yaml = fs::read_to_string(run.join("config.yaml")).expect("config.yaml");
    assert!(yaml.lines().any(|line| line == "seed: 7"), "{yaml}");

    // Given by hand, it is refused as any other setting that is not the run's.
    let said = case.refused(2, &resume("a", &["--set", "seed=9"]));
    assert!(said.contains("`seed` is 7 in") && said.contains("and 9 now"), "{said}");
}

#[test]
fn resume_more_steps() {
    let case = Case::new("resume-more-steps");
    // A rate that does not depend on the number of steps: then the run that was trained further is the
    // one that was that long from the beginning.
    let constant = [
        "optim={lr: 0.0001, warmup: 0, min_lr_ratio: 1}",
        "batching={micro_batch: 2, accumulate: 1}",
    ];
    succeed(&mut case.command(&train("whole", "8", &constant)));
    succeed(&mut case.command(&train("a", "4", &constant)));
    let (whole, run) = (case.path("runs/whole"), case.path("runs/a"));
    let first = losses(&run);
    assert_eq!(first.len(), 4);

    succeed(&mut case.command(&resume("a", &["--max-steps", "8"])));
    assert_eq!(losses(&run), losses(&whole));
    assert!(
        weights(&run, "last") == weights(&whole, "last"),
        "with the optimizer's state"
    );
    let record = json(&run.join("run.json"));
    assert_eq!(record["steps"], 8);
    assert_eq!(record["resumed"][0]["step"], 4);
    assert_eq!(
        record["resumed"][0]["changed"]["train.steps"],
        serde_json::json!(["4", "8"])
    );
    let recipe = fs::read_to_string(run.join("recipe.yaml")).expect("recipe.yaml");
    assert!(recipe.contains("steps: 8"), "{recipe}");
    let events = lines(&run.join("events.jsonl"));
    let resumed = events
        .iter()
        .find(|event| event["event"] == "resume")
        .expect("an event");
    let reason = resumed["reason"].as_str().expect("a reason");
    assert!(reason.contains("`train.steps` changed from 4 to 8"), "{reason}");

    // What may change with it, and as often as one likes: the new recipe is the run's own.
    let smaller = [
        "--set",
        "batching={micro_batch: 1, accumulate: 2}",
        "--set",
        "train.checkpoint.last_every=1",
        "--set",
        "train.validate_every=1",
        "--max-steps",
        "9",
    ];
    succeed(&mut case.command(&resume("a", &smaller)));
    assert_eq!(losses(&run).len(), 9);
    assert_eq!(losses(&run)[..8], losses(&whole)[..]);
    succeed(&mut case.command(&resume("a", &[])));

    // What may not is refused by its name, with both values, and changes nothing.
    for (set, key, before, now) in [
        ("optim.lr=0.0002", "`optim.lr`", "0.0001", "0.0002"),
        ("scorer.kind=random", "`scorer.kind`", "uniform", "random"),
        ("data.seq_len=256", "`data.seq_len`", "512", "256"),
        ("batching.accumulate=4", "`batching.accumulate`", "2", "4"),
        ("train.lora={rank: 4}", "`train.lora.alpha`", "unset", "32.0"),
    ] {
        let said = case.refused(2, &resume("a", &["--set", set, "--max-steps", "10"]));
        assert!(said.contains(&format!("{key} is {before} in")), "{set}: {said}");
        assert!(said.contains(&format!("and {now} now")), "{set}: {said}");
    }
    let said = case.refused(2, &resume("a", &["--max-steps", "3"]));
    assert!(said.contains("has done 9 steps and 3 are asked for"), "{said}");
    assert_eq!(losses(&run).len(), 9);
    assert_eq!(json(&run.join("run.json"))["steps"], 9);
}

/// The learning rate of a run that is trained further is that of the new length from there on.
#[test]
fn a_longer_run_has_the_longer_schedule() {
    let case = Case::new("resume-more-steps");
    let cosine = ["optim={lr: 0.001, warmup: 0}"];
    succeed(&mut case.command(&train("a", "2", &cosine)));
    succeed(&mut case.command(&resume("a", &["--max-steps", "4"])));
    let rates: Vec<f64> = lines(&case.path("runs/a/metrics.jsonl"))
        .iter()
        .filter_map(|line| line["lr"].as_f64())
        .collect();
    // 0.0005 (1 + cos(pi s / n)): s = 0, 1 of n = 2, then s = 2, 3 of n = 4.
    let expected = [1e-3, 5e-4, 5e-4, 5e-4 * (1.0 - 0.5f64.sqrt())];
    assert_eq!(rates.len(), 4);
    for (rate, expected) in rates.iter().zip(expected) {
        assert!((rate - expected).abs() < 1e-15, "{rates:?}");
    }
}

#[test]
fn nan_weights() {
    let case = Case::new("nan-weights").with("peft-base");
    // The embedding of token 32 (of 32 f32 values each) is not a number, as in the reported model.
    case.derive_tensors(
        "../peft-base/model.safetensors",
        "model/model.safetensors",
        |name, data| {
            let mut data = data.to_vec();
            if name == "model.embed_tokens.weight" {
                let row = 32 * 4;
                let nan = f32::NAN.to_le_bytes();
                data[32 * row..33 * row].copy_from_slice(&nan.repeat(32));
            }
            Some((name.to_owned(), data))
        },
    );
    let args = [
        "train",
        "baseline",
        "--model",
        "model",
        "--max-steps",
        "2",
        "--plain",
        "--output",
        "runs",
    ];
    let said = case.refused(1, &[&args[..], &["--run-name", "a"]].concat());
    assert!(said.contains("none of the 2 steps was applied"), "{said}");
    let run = case.path("runs/a");
    assert!(
        run.join("checkpoints/last/manifest.json").is_file(),
        "artifacts are kept"
    );
    let events = lines(&run.join("events.jsonl"));
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("skip"), count("failed")), (2, 1), "{events:?}");
    // A run that has ended so is no better for being asked again, and none for `--resume auto`.
    let said = case.refused(1, &resume("a", &[]));
    assert!(said.contains("none of the 2 steps was applied"), "{said}");
    let document = case.run(&[&args[..], &["--run-name", "b", "--json"]].concat());
    let document: Value = serde_json::from_slice(&document.stdout).expect("one JSON document");
    assert_eq!(document["error"]["code"], 1);
}
