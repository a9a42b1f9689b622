//! What a resumed run must have as it was, what it may change, and how a refusal says so.

#[path = "common/changed.rs"]
mod changed;
mod common;
#[path = "common/small_model.rs"]
mod small_model;

use changed::Changed;
use common::{lines, succeed, weights, wmtp};
use serde_json::{Value, json};
use small_model::small_model;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};
use wmtp::{
    pipeline::{Experiment, resume_contract_table},
    settings::{Pipeline, Sources},
    train::{Progress, TrainStepDone},
};

/// A home with a model of one small layer in `base`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a temporary directory"));
        home.model("base", 3);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self, name: &str, seed: u64) {
        small_model(&self.path(name), seed);
    }

    fn copy(&self, from: &str, to: &str) {
        fs::create_dir(self.path(to)).expect("a folder");
        for entry in fs::read_dir(self.path(from)).expect("a folder").flatten() {
            fs::copy(entry.path(), self.path(to).join(entry.file_name())).expect("a file");
        }
    }

    /// `wmtp train PIPELINE` of two steps from `base`.
    fn train(&self, pipeline: &str, name: &str, set: &[&str]) -> Command {
        let mut command = wmtp(self.0.path());
        command.args(["train", pipeline, "--plain", "--output", "runs", "--run-name", name]);
        let small = [
            "model={base: base, mtp: {n_heads: 1}}",
            "data={train_tasks: [602, 613], valid_tasks: [511, 513], seq_len: 256}",
            "train={steps: 2, checkpoint: {last_every: 1}}",
        ];
        command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
        command
    }

    fn resume(&self, pipeline: &str, name: &str, more: &[&str]) -> Command {
        let mut command = wmtp(self.0.path());
        command.args(["train", pipeline, "--plain", "--output", "runs", "--resume", name]);
        command.args(more);
        command
    }

    /// What is said by a command that must be refused.
    fn refused(&self, pipeline: &str, name: &str, more: &[&str]) -> String {
        let output = self.resume(pipeline, name, more).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
        said
    }

    fn record(&self, run: &str) -> Value {
        let text = fs::read(self.path(&format!("runs/{run}/run.json"))).expect("run.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn set_record(&self, run: &str, record: &Value) {
        fs::write(self.path(&format!("runs/{run}/run.json")), record.to_string()).expect("run.json");
    }
}

/// Two different hashes stand in a sentence.
fn has_two_hashes(said: &str) -> bool {
    let is_hash = |word: &&str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    let hashes: Vec<&str> = said.split(|c: char| !c.is_alphanumeric()).filter(is_hash).collect();
    matches!(hashes[..], [found, expected] if found != expected)
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8_lossy(&succeed(command).stderr).into_owned()
}

#[test]
fn the_page_has_the_table_of_the_program() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/training.md");
    let page = fs::read_to_string(page).expect("the page");
    let section = page
        .split("\n## What a resumed run may change\n")
        .nth(1)
        .expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    let table: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(table.join("\n"), resume_contract_table(), "docs/training.md");
}

#[test]
fn what_a_run_reads_is_compared_by_content() {
    let home = Home::new();
    let lora = "train.lora={rank: 2, alpha: 4}";
    succeed(&mut home.train("baseline", "a", &[lora]));
    let refused = |what: &str, setting: &str| {
        let said = home.refused("baseline", "a", &[]);
        assert!(
            said.contains(&format!("{what} is not what `runs/a` was started with")),
            "{said}"
        );
        assert!(
            said.contains(&format!("say where it is with --set {setting}=")),
            "{said}"
        );
        assert!(has_two_hashes(&said), "{said}");
    };
    let base = |name: &str| home.path("base").join(name);
    {
        let _bits = Changed::bits(base("model.safetensors"));
        refused("the model in `base`", "model.base");
    }
    {
        let _eps = Changed::text(base("config.json"), "0.00001", "0.00002");
        refused("`base/config.json`", "model.base");
    }
    {
        let _vocabulary = Changed::new(base("tokenizer.json"), |bytes| {
            let mut json: Value = serde_json::from_slice(bytes).expect("JSON");
            let vocabulary = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
            for id in vocabulary.values_mut() {
                *id = match id.as_u64() {
                    Some(1022) => 1023.into(),
                    Some(1023) => 1022.into(),
                    _ => id.clone(),
                };
            }
            *bytes = json.to_string().into_bytes();
        });
        refused("the tokenizer in `base`", "model.base");
    }
    let rows: String = (0..40)
        .map(|n| format!("{{\"prompt\": \"Add 1 to {n}.\\n\", \"completion\": \"{n} + 1\"}}\n"))
        .collect();
    fs::write(home.path("rows.jsonl"), rows).expect("a file");
    let said = home.refused("baseline", "a", &["--data", "rows.jsonl"]);
    assert!(
        said.contains("the training data of `") && said.contains("rows.jsonl` is not what"),
        "{said}"
    );
    assert!(has_two_hashes(&said) && said.contains("--set data.source="), "{said}");

    // The same content in another place is the same run.
    home.copy("base", "moved");
    succeed(&mut home.resume("baseline", "a", &["--model", "moved"]));
    succeed(&mut home.resume("baseline", "a", &["--max-steps", "3"]));
    assert_eq!(
        home.record("a")["resumed"][0]["changed"]["model.base"],
        json!(["base", "moved"])
    );

    // The reference model of rho1.
    home.model("reference", 4);
    succeed(&mut home.train("rho1", "r", &["model.reference=reference"]));
    {
        let _bits = Changed::bits(home.path("reference/model.safetensors"));
        let said = home.refused("rho1", "r", &[]);
        assert!(said.contains("the model in `reference` is not what `runs/r`"), "{said}");
        assert!(
            has_two_hashes(&said) && said.contains("--set model.reference="),
            "{said}"
        );
    }
    home.copy("reference", "other-reference");
    succeed(&mut home.resume("rho1", "r", &["--set", "model.reference=other-reference"]));
}

#[test]
fn value_heads_and_labelled_solutions_are_compared_by_content() {
    let home = Home::new();
    // The head that the run learned itself.
    succeed(&mut home.train("critic", "c", &["scorer.max_steps=2"]));
    let learned = home.path("runs/c/critic/value_head.safetensors");
    {
        let _bits = Changed::bits(learned.clone());
        let said = home.refused("critic", "c", &[]);
        assert!(
            said.contains("critic/value_head.safetensors` is not the value head that this run learned"),
            "{said}"
        );
        assert!(has_two_hashes(&said), "{said}");
    }
    succeed(&mut home.resume("critic", "c", &[]));

    // One that the recipe names.
    fs::copy(&learned, home.path("head.safetensors")).expect("a file");
    succeed(&mut home.train("critic", "d", &["scorer.value_head=head.safetensors"]));
    {
        let _bits = Changed::bits(home.path("head.safetensors"));
        let said = home.refused("critic", "d", &[]);
        assert!(
            said.contains("`head.safetensors` is not what `runs/d` was started with"),
            "{said}"
        );
        assert!(
            has_two_hashes(&said) && said.contains("--set scorer.value_head="),
            "{said}"
        );
    }
    fs::rename(home.path("head.safetensors"), home.path("moved.safetensors")).expect("a file");
    succeed(&mut home.resume("critic", "d", &["--set", "scorer.value_head=moved.safetensors"]));

    // Of a head that learns along, wrong solutions count, which are no training documents.
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompt_completions.jsonl");
    fs::copy(rows, home.path("rows.jsonl")).expect("a file");
    let joint = ["scorer={value: joint, max_steps: 2}", "data.source=rows.jsonl"];
    succeed(&mut home.train("critic", "j", &joint));
    let rows = ["--data", "rows.jsonl"];
    {
        let _wrong = Changed::text(home.path("rows.jsonl"), "result = x\\n", "result = x  # or so\\n");
        let said = home.refused("critic", "j", &rows);
        assert!(said.contains("the labelled data of `rows.jsonl` is not what"), "{said}");
        assert!(has_two_hashes(&said), "{said}");
    }
    succeed(&mut home.resume("critic", "j", &rows));
}

#[test]
fn settings_are_refused_by_key_and_both_values_and_their_files_by_both_hashes() {
    let home = Home::new();
    succeed(&mut home.train("baseline", "a", &[]));
    let before = home.record("a");
    for (set, named) in [
        ("seed=7", "`seed` is 42 in `runs/a` and 7 now"),
        ("optim.lr=0.5", "`optim.lr` is 0.0001 in `runs/a` and 0.5 now"),
        ("weights.temperature=9", "`weights.temperature` is "),
        ("loss.lambda=0.5", "`loss.lambda` is "),
        ("batching.accumulate=3", "`batching.accumulate` is "),
        (
            "train.lora={rank: 2, alpha: 4}",
            "`train.lora.alpha` is unset in `runs/a` and 4.0 now",
        ),
    ] {
        let said = home.refused("baseline", "a", &["--set", set]);
        assert!(said.contains(named), "{set}: {said}");
    }
    for name in ["config.yaml", "recipe.yaml"] {
        let path = home.path("runs/a").join(name);
        let altered = |change: fn(&mut Vec<u8>)| {
            let _changed = Changed::new(path.clone(), change);
            let said = home.refused("baseline", "a", &[]);
            let expected = format!("runs/a/{name}` is not the settings file that the run wrote");
            assert!(said.contains(&expected) && has_two_hashes(&said), "{said}");
        };
        altered(Vec::clear);
        altered(|bytes| bytes.truncate(bytes.len() / 2));
        altered(|bytes| bytes.extend(b"# a remark\n"));
        let text = fs::read(&path).expect("a file");
        fs::remove_file(&path).expect("a file");
        let said = home.refused("baseline", "a", &[]);
        assert!(
            said.contains(&format!("runs/a/{name}` can't be used: it is missing")),
            "{said}"
        );
        fs::write(&path, text).expect("a file");
    }
    assert_eq!(home.record("a"), before, "a refusal leaves the run as it was");
    succeed(&mut home.resume("baseline", "a", &[]));
}

#[test]
fn what_an_older_version_did_not_record_is_said_once_and_compared_from_then_on() {
    let home = Home::new();
    succeed(&mut home.train("baseline", "a", &[]));
    let new = home.record("a");
    let mut old = new.clone();
    for key in ["inputs_sha256", "config_sha256"] {
        assert!(!old[key].is_null(), "{key}");
        old.as_object_mut().expect("an object").remove(key);
    }
    home.set_record("a", &old);
    {
        let _empty = Changed::new(home.path("runs/a/config.yaml"), Vec::clear);
        let said = home.refused("baseline", "a", &[]);
        assert!(said.contains("config.yaml` can't be used: it is empty"), "{said}");
    }
    let said = stderr(&mut home.resume("baseline", "a", &[]));
    let warned: Vec<&str> = said.lines().filter(|line| line.contains("has no hash of")).collect();
    assert_eq!(warned.len(), 1, "{said}");
    for key in [
        "`model.base/config.json`",
        "`tokenizer`",
        "`data.valid`",
        "`config.yaml`",
    ] {
        assert!(warned[0].contains(key), "{said}");
    }
    for key in ["inputs_sha256", "config_sha256", "model_sha256", "data_sha256"] {
        assert_eq!(home.record("a")[key], new[key], "{key}");
    }
    let said = stderr(&mut home.resume("baseline", "a", &[]));
    assert!(!said.contains("has no hash of"), "{said}");
    let _eps = Changed::text(home.path("base/config.json"), "0.00001", "0.00002");
    let said = home.refused("baseline", "a", &[]);
    assert!(said.contains("`base/config.json` is not what"), "{said}");
}

#[test]
fn a_device_of_another_kind_is_refused_and_another_of_the_kind_is_said() {
    let home = Home::new();
    succeed(&mut home.train("baseline", "a", &[]));
    let mut record = home.record("a");
    assert_eq!(record["device"], "flex");
    record["device"] = "cuda:0".into();
    home.set_record("a", &record);
    let said = home.refused("baseline", "a", &[]);
    assert!(
        said.contains("`devices.backend` is cuda:0 in `runs/a` and flex now"),
        "{said}"
    );
    record["device"] = "flex:1".into();
    home.set_record("a", &record);
    let said = stderr(&mut home.resume("baseline", "a", &[]));
    assert!(
        said.contains("`runs/a` was started on flex:1 and is resumed on flex: sums may be rounded"),
        "{said}"
    );
}

#[test]
fn lost_lines_are_named_in_one_sentence_and_never_glued_to_the_next() {
    let home = Home::new();
    let record = ["train.record={weights_every: 1, documents: 1}"];
    succeed(&mut home.train("baseline", "whole", &[&record[..], &["train.steps=4"]].concat()));
    succeed(&mut home.train("baseline", "a", &record));
    let run = home.path("runs/a");
    let metrics = fs::read(run.join("metrics.jsonl")).expect("metrics");
    fs::write(run.join("metrics.jsonl"), &metrics[..metrics.len() - 9]).expect("metrics");
    fs::remove_file(run.join("tokens.jsonl")).expect("tokens");
    // The cosine of four steps is the other run's from the third on, and its first two are not this one's.
    let said = stderr(&mut home.resume("baseline", "a", &["--max-steps", "4"]));
    let warned: Vec<&str> = said.lines().filter(|line| line.contains("has lost lines of")).collect();
    assert_eq!(warned.len(), 1, "{said}");
    let sizes = format!("`metrics.jsonl` ({} of {} bytes)", metrics.len() - 9, metrics.len());
    assert!(
        warned[0].contains(&sizes) && warned[0].contains("`tokens.jsonl` (0 of "),
        "{said}"
    );
    assert!(!warned[0].contains("weights.jsonl"), "{said}");
    // Every line is JSON, and those of the new steps are there.
    let steps: Vec<u64> = lines(&run.join("metrics.jsonl"))
        .iter()
        .filter(|line| line.get("loss").is_some())
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(steps[steps.len() - 2..], [3, 4], "{steps:?}");
    assert!(!lines(&run.join("tokens.jsonl")).is_empty());
    let events = lines(&run.join("events.jsonl"));
    assert_eq!(events.iter().filter(|event| event["event"] == "lost-lines").count(), 1);
}

/// Damages `run.json` at the first step, and keeps the warnings.
#[derive(Clone)]
struct Damaging {
    run: PathBuf,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Progress for Damaging {
    fn message(&self, _text: &str) {}

    fn warning(&self, text: &str) {
        self.warnings.lock().expect("no test panics here").push(text.to_owned());
    }

    fn step(&self, _at: &TrainStepDone<'_>) {
        fs::write(self.run.join("run.json"), "{\"format\": 1, \"na").expect("run.json");
    }
}

#[test]
fn a_damaged_run_json_is_named_and_nothing_is_promised() {
    let home = Home::new();
    let settings = Sources::new(Some(Pipeline::Baseline))
        .set(format!(
            "model={{base: {}, mtp: {{n_heads: 1}}}}",
            home.path("base").display()
        ))
        .set("data={source: builtin:mbpp, train_tasks: [602, 613], valid_tasks: [511, 513], seq_len: 256}")
        .set("train.steps=2")
        .set(format!("paths.runs={}", home.path("runs").display()))
        .set(format!("paths.cache={}", home.path("cache").display()))
        .load()
        .expect("settings");
    let progress = Damaging {
        run: home.path("runs/a"),
        warnings: Arc::default(),
    };
    let trained = Experiment::from(settings)
        .run_name("a")
        .progress(progress.clone())
        .run();
    trained.expect("the run trains to its end");
    let warnings = progress.warnings.lock().expect("no test panics here").clone();
    let about: Vec<&String> = warnings.iter().filter(|text| text.contains("run.json")).collect();
    assert_eq!(about.len(), 1, "{warnings:?}");
    assert!(about[0].contains("its run.json is not JSON"), "{about:?}");
    assert!(
        about[0].ends_with("put `run.json` back, and `wmtp report` makes the report"),
        "{about:?}"
    );

    let said = home.refused("baseline", "a", &[]);
    assert!(
        said.contains("runs/a/run.json` can't be used: it is not JSON"),
        "{said}"
    );
    assert!(!said.contains("wmtp report"), "{said}");
    let mut report = wmtp(home.0.path());
    let output = report.args(["report", "runs/a"]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("its run.json is not JSON"),
        "{said}"
    );
}

#[test]
fn a_start_that_was_killed_early_does_not_keep_the_name() {
    let home = Home::new();
    let run = home.path("runs/a");
    fs::create_dir_all(&run).expect("a folder");
    for name in ["config.yaml", "recipe.yaml", ".run.json.tmp-XyZ123"] {
        fs::write(run.join(name), "seed: 1").expect("a file");
    }
    let said = home.resume("baseline", "a", &[]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("there is no such run"), "{said}");
    succeed(&mut home.train("baseline", "a", &[]));
    assert!(!run.join(".run.json.tmp-XyZ123").exists());

    // A directory of somebody else's is left alone.
    let other = home.path("runs/b");
    fs::create_dir_all(&other).expect("a folder");
    fs::write(other.join("thesis.tex"), "").expect("a file");
    let output = home.train("baseline", "b", &[]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("runs/b` holds other files and no `run.json`"), "{said}");
    assert_eq!(fs::read_dir(&other).expect("a folder").count(), 1);
}

/// The moments in an optimizer's file as a bag of aligned pieces: tensors begin at multiples of 256 bytes, after a
/// header of ten bytes, which ends with the size of the list of tensors, and that list.
fn moments(run: &Path) -> BTreeMap<Vec<u8>, usize> {
    const ALIGNED: usize = 256;
    let bytes = fs::read(run.join("checkpoints/last/optimizer.bpk")).expect("the optimizer's state");
    let size = u32::from_le_bytes(bytes[6..10].try_into().expect("four bytes")) as usize;
    let data = (10 + size).div_ceil(ALIGNED) * ALIGNED;
    let mut pieces = BTreeMap::new();
    for piece in bytes[data..].chunks(ALIGNED) {
        let mut piece = piece.to_vec();
        // Only the last tensor of the file is not filled up.
        piece.resize(ALIGNED, 0);
        *pieces.entry(piece).or_default() += 1;
    }
    pieces
}

#[test]
fn equal_runs_have_equal_moments_in_whatever_order() {
    let home = Home::new();
    let runs = ["one", "two"].map(|name| {
        succeed(&mut home.train("baseline", name, &[]));
        home.path("runs").join(name)
    });
    succeed(&mut home.train("baseline", "other", &["optim.beta1=0.8"]));
    assert!(weights(&runs[0], "last") == weights(&runs[1], "last"));
    assert!(moments(&runs[0]).len() > 100);
    assert!(moments(&runs[0]) == moments(&runs[1]), "the moments differ");
    assert!(
        moments(&runs[0]) != moments(&home.path("runs/other")),
        "any two would be equal"
    );
}
