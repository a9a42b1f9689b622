//! The README's first command: a run of the built-in model that learns, and says what comes next.

mod common;

use common::{json, lines, succeed, wmtp};

/// Mean of the first and of the last tenth.
fn tenths(losses: &[f64]) -> (f64, f64) {
    let n = losses.len().div_ceil(10);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (mean(&losses[..n]), mean(&losses[losses.len() - n..]))
}

#[test]
fn the_first_command_at_its_defaults_brings_the_loss_down_by_three_tenths() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = wmtp(home.path());
    let output = succeed(command.args(["train", "critic", "--plain", "--run-name", "first"]));
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
fn the_plan_of_the_first_command_says_what_will_happen() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let train = |args: &[&str]| succeed(wmtp(home.path()).args(["train", "critic", "--dry-run"]).args(args));
    let plan = json(&train(&["--json"]));
    assert_eq!(plan["random_weights"], true);
    assert_eq!(plan["learning_rate"], 0.003);
    assert_eq!(plan["value_stage"]["steps"], 94);
    assert_eq!(plan["value_stage"]["solutions"], 1756);
    assert_eq!(plan["warnings"], serde_json::json!([]));
    let text = String::from_utf8_lossy(&train(&[]).stdout).into_owned();
    for line in [
        "weights     random",
        "value stage 94 steps on 1756 labelled solutions",
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
