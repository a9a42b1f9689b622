//! The README's first command: a run of the built-in model that learns, and says what comes next.

mod common;

use common::{bare_wmtp, json, lines, succeed, wmtp};

/// Mean of the first and of the last tenth.
fn tenths(losses: &[f64]) -> (f64, f64) {
    let n = losses.len().div_ceil(10);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (mean(&losses[..n]), mean(&losses[losses.len() - n..]))
}

/// The first command itself, at its full length, is run by `ci/integration`.
#[test]
fn a_short_first_run_has_three_stages_and_says_what_they_gave() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = bare_wmtp(home.path());
    command.args(["train", "critic", "--plain", "--run-name", "first", "--max-steps", "3"]);
    let short = ["scorer.max_solutions=60", "scorer.epochs=2", "eval.max_new_tokens=8"];
    command.args(short.iter().flat_map(|set| ["--set", set]));
    let output = succeed(&mut command);
    let run = home.path().join("runs/first");
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "done after 3 steps",
        "value head's AUROC on held-out solutions ",
        "pass@1 on world (held-out), 90 problems: 0.000 (0.000 to 0.041) before training, 0.000 (0.000 to 0.041) \
         after pretraining, 0.000 (0.000 to 0.041) after weighted training",
        "wmtp eval world --model ",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    let steps = |file: &str| {
        let lines = lines(&run.join(file));
        lines.iter().filter(|line| line["loss"].is_number()).count()
    };
    assert_eq!((steps("pretrain/metrics.jsonl"), steps("metrics.jsonl")), (3, 3));
    let text = std::fs::read_to_string(run.join("stages.json")).expect("the scores");
    let scores: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let stages: Vec<(&str, u64)> = scores
        .as_array()
        .expect("a list")
        .iter()
        .map(|score| {
            (
                score["stage"].as_str().expect("a name"),
                score["step"].as_u64().expect("a step"),
            )
        })
        .collect();
    assert_eq!(stages, [("start", 0), ("pretraining", 3), ("weighted", 3)]);
    let page = std::fs::read_to_string(run.join("report.html")).expect("the page");
    assert!(page.contains("after pretraining, step 3") && page.contains("after weighted training, step 3"));

    // Resumed, the stages that are done are neither trained nor measured again.
    let mut command = bare_wmtp(home.path());
    succeed(command.args(["train", "critic", "--plain", "--resume", "first", "--max-steps", "4"]));
    assert_eq!((steps("pretrain/metrics.jsonl"), steps("metrics.jsonl")), (3, 4));
    let events = lines(&run.join("events.jsonl"));
    let measured = events.iter().filter(|event| event["event"] == "pass-at-1").count();
    assert_eq!(measured, 4);
}

#[test]
fn the_micro_model_on_mbpp_brings_the_loss_down_by_three_tenths() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = wmtp(home.path());
    command.args([
        "train",
        "critic",
        "--plain",
        "--run-name",
        "first",
        "--set",
        "scorer.max_steps=20",
    ]);
    let output = succeed(&mut command);
    let run = home.path().join("runs/first");
    let losses: Vec<f64> = lines(&run.join("metrics.jsonl"))
        .iter()
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    let (first, last) = tenths(&losses);
    println!(
        "{} steps: {first:.3} to {last:.3}, ratio {:.3}",
        losses.len(),
        last / first
    );
    assert!(losses.len() >= 50 && last <= 0.7 * first, "{first} to {last}");

    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "learned     training loss ",
        "validation loss ",
        "value head's AUROC on held-out solutions ",
        "page        ",
        "runs/first/report.html",
        "wmtp eval mbpp --model ",
        "wmtp report ",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    assert!(run.join("report.html").is_file());
    let recipe = std::fs::read_to_string(run.join("recipe.yaml")).expect("the resolved recipe");
    assert!(recipe.contains("lr: 0.003"), "{recipe}");
}

#[test]
fn the_plan_of_the_micro_model_says_what_will_happen() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let train = |args: &[&str]| succeed(wmtp(home.path()).args(["train", "critic", "--dry-run"]).args(args));
    let plan = json(&train(&["--json"]));
    assert_eq!(plan["random_weights"], true);
    assert_eq!(plan["learning_rate"], 0.003);
    assert_eq!(plan["value_stage"]["steps"], 177);
    assert_eq!(plan["value_stage"]["solutions"], 4008);
    assert_eq!(plan["warnings"], serde_json::json!([]));
    let text = String::from_utf8_lossy(&train(&[]).stdout).into_owned();
    for line in [
        "weights     random",
        "value stage 177 steps on 4008 labelled solutions",
        "1 too long, left out: 0.3%",
        "learning rate 3e-3 at most",
    ] {
        assert!(text.contains(line), "`{line}` is missing:\n{text}");
    }

    let long = json(&train(&["--json", "--set", "data.seq_len=128"]));
    let warning = long["warnings"][0].as_str().expect("a warning").to_owned();
    assert!(
        warning.contains("% of the documents are longer than `data.seq_len` = 128"),
        "{warning}"
    );
}

#[test]
fn without_model_and_data_the_plan_is_the_small_worlds() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let recipe = |args: &[&str]| {
        let output = succeed(bare_wmtp(home.path()).args(["inspect", "recipe"]).args(args));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (pipeline, pretrain, steps) in [("critic", 350, 60), ("rho1", 350, 350), ("baseline", 0, 450)] {
        let text = recipe(&[pipeline]);
        let expected = [
            "base: \"builtin:world\"".to_owned(),
            "source: \"builtin:world\"".to_owned(),
            format!("steps: {pretrain}"),
            format!("steps: {steps}"),
        ];
        for line in expected {
            assert!(
                text.lines().any(|l| l.trim() == line),
                "{pipeline} without `{line}`:\n{text}"
            );
        }
    }
    // A model or data of one's own have nothing of it.
    for named in [
        ["--set", "data.source=builtin:mbpp"],
        ["--set", "model.base=some/where"],
    ] {
        let text = recipe(&["critic", named[0], named[1]]);
        assert!(
            !text.contains("builtin:world") && !text.contains("after_stages: world"),
            "{text}"
        );
        assert!(text.contains("source: \"builtin:mbpp\""), "{text}");
    }
}

#[test]
fn text_alone_trains() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let text: String = (0..400)
        .map(|i| format!("def f{i}(x):\n    return x + {i}\n\n"))
        .collect();
    std::fs::write(home.path().join("functions.txt"), text).expect("a file");
    let mut command = wmtp(home.path());
    command.args(["train", "baseline", "--plain", "--run-name", "text", "--data", "none"]);
    command.args([
        "--set",
        "data.text=[functions.txt]",
        "--set",
        "data.seq_len=128",
        "--json",
    ]);
    let summary = json(&succeed(&mut command));
    let learned = &summary["learned"];
    let (first, last) = (learned["first_loss"].as_f64(), learned["last_loss"].as_f64());
    assert!(last.is_some() && last < first, "{learned}");
    assert!(summary["valid_loss"].is_number(), "{summary}");
}

#[test]
fn files_of_records_are_refused_as_text() {
    let home = tempfile::tempdir().expect("a temporary directory");
    for file in ["rows.jsonl", "rows.JSON", "rows.parquet"] {
        std::fs::write(home.path().join(file), "{\"prompt\": \"x\"}\n").expect("a file");
        let text = format!("data.text=[{file}]");
        let output = wmtp(home.path())
            .args(["train", "baseline", "--dry-run", "--set", &text])
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("`data.text` names") && said.contains(file) && said.contains("plain text"),
            "{said}"
        );
    }
    let output = wmtp(home.path())
        .args(["train", "baseline", "--dry-run", "--data", "none"])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && said.contains("`data.text`"),
        "{said}"
    );
}
