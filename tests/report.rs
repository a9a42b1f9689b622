//! Reports of runs made by the built program, and the recordings that they show.

mod common;

use common::{json, lines, succeed, weights, wmtp};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use wmtp::{
    pipeline::Experiment,
    scorer::{Needs, ScoreInput, Scorer, ScorerError},
    settings::{Pipeline, Sources},
};

/// A short run of the micro model.
fn train(home: &Path, pipeline: &str, name: &str, set: &[&str]) -> Output {
    let mut command = wmtp(home);
    command.args([
        "train",
        pipeline,
        "--run-name",
        name,
        "--output",
        "runs",
        "--plain",
        "--max-steps",
        "12",
    ]);
    let short = ["data.seq_len=256", "batching.micro_batch=1", "train.validate_every=6"];
    command.args(short.iter().chain(set).flat_map(|set| ["--set", set]));
    succeed(&mut command)
}

fn report(home: &Path, args: &[&str]) -> Command {
    let mut command = wmtp(home);
    command.arg("report").args(args).args(["--set", "paths.runs=runs"]);
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The page as a browser reads it: it is XML, too.
fn page(html: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(html, options).unwrap_or_else(|e| panic!("{e}"))
}

/// What is computed, without what depends on the machine's time and memory.
fn computed(run: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for mut line in lines(&run.join("metrics.jsonl")) {
        let object = line.as_object_mut().expect("a line is an object");
        object.remove("tok_s");
        object.remove("mem");
        all.push(line.to_string());
    }
    all
}

#[test]
fn recording_changes_nothing_that_is_trained() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let off = ["train.record.weights_every=0", "train.record.documents=0"];
    let on = ["train.record.weights_every=1", "train.record.documents=3"];
    let cases: [(&str, &str, &[&str]); 4] = [
        ("critic", "critic", &["scorer.max_steps=3"]),
        (
            "joint",
            "critic",
            &["scorer.max_steps=3", "scorer.value=joint", "weights.over=step"],
        ),
        ("rho1", "rho1", &["model.reference=builtin:micro", "scorer.mode=select"]),
        ("shuffled", "baseline", &["scorer={kind: shuffled, of: {kind: random}}"]),
    ];
    for (name, pipeline, set) in cases {
        let (with, without) = (format!("{name}-on"), format!("{name}-off"));
        train(home, pipeline, &with, &[set, &on].concat());
        train(home, pipeline, &without, &[set, &off].concat());
        let (with, without) = (home.join("runs").join(with), home.join("runs").join(without));
        assert_eq!(computed(&with), computed(&without), "{name}");
        assert!(
            weights(&with, "last") == weights(&without, "last"),
            "{name}: weights differ"
        );
        assert!(!without.join("weights.jsonl").exists() && !without.join("tokens.jsonl").exists());

        let histograms = lines(&with.join("weights.jsonl"));
        assert_eq!(histograms.len(), 1 + 12, "{name}: the edges and a line a step");
        let edges = histograms[0]["edges"].as_array().expect("edges").len();
        for line in &histograms[1..] {
            assert_eq!(line["counts"].as_array().map(Vec::len), Some(edges - 1));
        }
        let moments = lines(&with.join("tokens.jsonl"));
        // At the start and at the end; a validation after 6 steps costs too much in so short a run.
        let steps: Vec<u64> = moments.iter().filter_map(|line| line["step"].as_u64()).collect();
        assert_eq!(steps, [[0; 6], [12; 6]].concat(), "{name}");
        for line in &moments {
            let response =
                line["tokens"].as_array().map_or(0, Vec::len) - line["prompt_tokens"].as_u64().unwrap_or(0) as usize;
            assert_eq!(line["ce"].as_array().map(Vec::len), Some(4), "{name}: a row a head");
            assert_eq!(
                line["weight"].as_array().map(Vec::len),
                Some(response),
                "{name}: {line}"
            );
            assert!(line.get("problem").is_none(), "{name}: {line}");
        }
        let scores: Vec<&String> = moments[0]["scores"].as_object().expect("scores").keys().collect();
        let expected: &[&str] = match name {
            "rho1" => &["excess_loss", "reference_ce", "score"],
            "shuffled" => &["score", "score_before"],
            _ => &["score", "value"],
        };
        assert_eq!(scores, expected, "{name}");
    }
}

#[test]
fn scores_made_before_training_are_those_of_training_documents_alone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(
        home,
        "rho1",
        "offline",
        &["model.reference=builtin:micro", "scorer.when=offline"],
    );
    for line in lines(&home.join("runs/offline/tokens.jsonl")) {
        let held_out = line["split"] == "valid";
        assert_eq!(line.get("problem").is_some(), held_out, "{line}");
        assert_eq!(line["weight"].as_array().map(Vec::is_empty), Some(held_out), "{line}");
    }
    let html = read(&home.join("runs/offline/report.html"));
    assert!(
        page(&html)
            .descendants()
            .any(|node| node.text().is_some_and(|text| text.starts_with("No weights:")))
    );
}

/// A scorer of a library user's, who thought of training documents only.
struct Indexed(Vec<f32>);

impl Scorer for Indexed {
    fn name(&self) -> &str {
        "indexed"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let mut scores = vec![0.0; input.batch.tokens.len()];
        for document in &input.batch.documents {
            for (i, position) in document.response(input.batch.seq_len).enumerate() {
                scores[position] = self.0[document.sample] * i as f32;
            }
        }
        Ok(scores)
    }
}

#[test]
fn a_scorer_of_one_s_own_is_recorded_and_may_fail_at_held_out_documents() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = Sources::new(Some(Pipeline::Baseline))
        .set("train.steps=3")
        .set("seed=7")
        .set("devices.backend=flex")
        .set(format!("paths.runs={}", home.path().display()))
        .set(format!("paths.cache={}", home.path().join("cache").display()))
        .load()
        .expect("settings");
    let scorer = Indexed((0..400).map(|i| (i % 7) as f32 + 1.0).collect());
    let experiment = Experiment::from(settings).run_name("own").scorer(scorer);
    let summary = experiment.run().expect("it trains");
    assert_eq!(summary.steps, 3);
    for line in lines(&home.path().join("own/tokens.jsonl")) {
        let held_out = line["split"] == "valid";
        assert_eq!(
            line["problem"].as_str().is_some_and(|p| p.contains("panicked")),
            held_out,
            "{line}"
        );
        assert_eq!(line["scores"]["score"].is_array(), !held_out, "{line}");
        assert!(line["ce"][0].is_array(), "{line}");
    }
    assert!(home.path().join("own/report.html").is_file());
}

#[test]
fn a_run_and_its_evaluation_are_reported_in_its_directory() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "critic", "first", &["scorer.max_steps=3"]);
    let run = home.join("runs/first");
    let metrics = lines(&run.join("metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|line| line.get("loss").is_some()).collect();
    let valid: Vec<f64> = metrics.iter().filter_map(|line| line["valid_loss"].as_f64()).collect();

    // Written by the training itself, with the metrics' figures.
    let markdown = read(&run.join("report.md"));
    let html = read(&run.join("report.html"));
    let best = valid.iter().copied().fold(f64::INFINITY, f64::min);
    for text in [format!("{best:.4}"), "first".into(), "not-evaluated".into()] {
        let said = if text == "not-evaluated" {
            "No checkpoint of this run has been evaluated"
        } else {
            &text
        };
        assert!(markdown.contains(said), "{said}: {markdown}");
        assert!(html.contains(said), "{said}");
    }
    let document = json(&succeed(&mut report(home, &["first", "--json"])));
    let figures = &document["runs"][0]["figures"];
    assert_eq!(figures["valid_loss_last"].as_f64(), valid.last().copied());
    assert_eq!(figures["valid_loss_best"].as_f64(), Some(best));
    assert_eq!(figures["steps"], 12.0);
    assert_eq!(
        figures["tokens"].as_f64(),
        steps.last().and_then(|line| line["tokens"].as_f64())
    );
    // The last tenth of 12 steps is two.
    let last: f64 = steps[10..]
        .iter()
        .filter_map(|line| line["ce_head_2"].as_f64())
        .sum::<f64>()
        / 2.0;
    let shown = figures["ce_head_2_last"].as_f64().expect("a figure");
    assert!((shown - last).abs() < 1e-12, "{shown} {last}");
    let peak = steps.iter().filter_map(|line| line["mem"].as_f64()).fold(0.0, f64::max);
    assert_eq!(figures["peak_memory"].as_f64(), Some(peak));

    let tree = page(&html);
    let charts = tree.descendants().filter(|node| node.has_tag_name("svg")).count();
    assert!(charts >= 9, "{charts} charts");
    let tokens = tree
        .descendants()
        .filter(|node| node.attribute("tabindex") == Some("0"));
    let labels: Vec<&str> = tokens.filter_map(|node| node.attribute("aria-label")).collect();
    assert!(labels.len() > 100, "{} tokens", labels.len());
    for label in labels {
        for figure in ["weight ", "score ", "value ", "CE of head 1 "] {
            assert!(label.contains(figure), "{figure}: {label}");
        }
    }
    assert!(
        !html.contains("<script") && !html.contains("http://") || html.matches("http://").count() == charts,
        "only SVG's name space"
    );

    // An evaluation of its checkpoint lands in the run, and in a new report.
    let mut eval = wmtp(home);
    eval.args([
        "eval",
        "mbpp",
        "--tasks",
        "11-14",
        "--max-new-tokens",
        "8",
        "--temperature",
        "0,0.8",
    ]);
    eval.args(["--output", "runs", "--model", "runs/first/checkpoints/best", "--json"]);
    let result = json(&succeed(&mut eval));
    let kept: Vec<_> = fs::read_dir(run.join("evaluations"))
        .expect("evaluations")
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
        .collect();
    assert_eq!(kept.len(), 1);
    let outcomes = lines(&kept[0].path().with_extension("problems.jsonl"));
    assert_eq!(outcomes.len(), 2 * 4, "each problem at each temperature");
    let kept: Value = serde_json::from_str(&read(&kept[0].path())).expect("JSON");
    assert_eq!(kept["temperatures"], result["temperatures"]);
    assert_eq!(kept["checkpoint"], "best");
    let html = read(&run.join("report.html"));
    let text: String = page(&html).descendants().filter_map(|node| node.text()).collect();
    assert!(text.contains("mbpp, 4 problems") && text.contains("temperature 0.8") && text.contains("pass@1 0%"));
    assert!(!text.contains("No checkpoint of this run has been evaluated"));
}

#[test]
fn runs_are_laid_side_by_side() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "baseline", "a", &[]);
    train(home, "baseline", "b", &["optim.lr=1e-3", "scorer.kind=position"]);
    let document = json(&succeed(&mut report(
        home,
        &["a", "runs/b", "--output", "side", "--json"],
    )));
    let figure = |i: usize| {
        document["runs"][i]["figures"]["valid_loss_best"]
            .as_f64()
            .expect("a figure")
    };
    let difference = format!("{:.4}", figure(1) - figure(0)).replace('-', "\u{2212}");
    for file in ["side/comparison.md", "side/comparison.html"] {
        let text = read(&home.join(file));
        assert!(text.contains(&difference), "{file} lacks {difference}");
        for setting in ["optim.lr", "scorer.kind"] {
            assert!(text.replace('\\', "").contains(setting), "{file} lacks {setting}");
        }
        assert!(
            !text.contains("optim.beta1"),
            "what is the same in both is no difference"
        );
    }
    let html = read(&home.join("side/comparison.html"));
    let tree = page(&html);
    let names: Vec<&str> = tree
        .descendants()
        .filter(|n| n.has_tag_name("text"))
        .filter_map(|n| n.text())
        .map(str::trim)
        .collect();
    assert!(
        names.contains(&"a") && names.contains(&"b"),
        "both are in the legends: {names:?}"
    );
}

#[test]
fn a_directory_that_is_no_run_is_refused_in_a_sentence() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    fs::create_dir_all(home.join("runs/empty")).expect("a directory");
    for (name, expected) in [
        ("empty", "is not the directory of a training run: it holds no run.json"),
        ("nowhere", "there is no run `nowhere`"),
        ("auto", "holds no training run"),
    ] {
        let output = report(home, &[name]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_report_that_cannot_be_written_does_not_fail_the_training() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "baseline", "whole", &["train.checkpoint.last_every=1"]);
    let run = home.join("runs/whole");
    // Nothing can be renamed onto a directory that is not empty.
    for name in ["report.md", "report.html"] {
        fs::remove_file(run.join(name)).expect("the report is there");
        fs::create_dir_all(run.join(name).join("in the way")).expect("a directory");
    }
    let mut resumed = wmtp(home);
    resumed.args(["train", "baseline", "--resume", "whole", "--output", "runs"]);
    let output = succeed(&mut resumed);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("warning: ") && said.contains("report.md"), "{said}");
}
