//! `wmtp label` and what is refused by `wmtp sample`, through the built program.

mod common;

use common::{json, lines, succeed, wmtp};
use serde_json::json;
use std::{fs, path::Path, process::Output};

const ROWS: &str = r#"{"prompt": "Write add(a, b).\n", "completions": ["def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"], "tests": ["assert add(1, 2) == 3"]}
{"prompt": "Double the number.\n", "completion": "print(2 * int(input()))", "tests": [{"input": "4\n", "output": "8\n"}]}
"#;

fn refused(home: &Path, args: &[&str]) -> String {
    let output: Output = wmtp(home).args(args).output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    error
}

#[test]
fn a_file_is_labelled_beside_itself_and_again_from_the_cache() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    fs::write(home.path().join("data/rows.jsonl"), ROWS).unwrap();
    let output = succeed(wmtp(home.path()).args(["label", "data/rows.jsonl", "--jobs", "1"]));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said,
        "2 rows, 3 candidates: 2 right, 1 wrong, 0 timed out, 0 no program\nlabelled rows: data/rows.labelled.jsonl\n"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("3/3 candidates  2 right"));
    let found = lines(&home.path().join("data/rows.labelled.jsonl"));
    assert_eq!(found[0]["labels"], json!([true, false]));
    assert_eq!(found[0]["results"], json!(["passed", "wrong"]));
    assert_eq!(
        (&found[1]["label"], &found[1]["result"]),
        (&json!(true), &json!("passed"))
    );

    let mut again = wmtp(home.path());
    let report = json(&succeed(again.args([
        "label",
        "data/rows.jsonl",
        "--output",
        "again.jsonl",
        "--json",
    ])));
    assert_eq!(
        (&report["rows"], &report["right"], &report["cached"], &report["output"]),
        (&json!(2), &json!(2), &json!(3), &json!("again.jsonl"))
    );
    assert_eq!(lines(&home.path().join("again.jsonl")), found);
}

#[test]
fn what_cannot_be_labelled_or_drawn_is_one_sentence_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    fs::write(path.join("rows.jsonl"), ROWS).unwrap();
    fs::write(
        path.join("without.jsonl"),
        format!("{ROWS}{{\"prompt\": \"p\", \"completion\": \"c\"}}\n"),
    )
    .unwrap();
    for (args, expected) in [
        (
            &["label", "without.jsonl"][..],
            "error: without.jsonl, row 3: has no tests to find labels by; give `tests`, or leave the row out",
        ),
        (
            &["label", "builtin:mbpp"],
            "`builtin:mbpp` is built in, and rows of a file are wanted",
        ),
        (
            &["label", "*.jsonl"],
            "`*.jsonl` is no file whose name could be used: say where rows are written with --output FILE",
        ),
        (
            &["label", "rows.jsonl", "--output", "nowhere/out.jsonl"],
            "--output: there is no directory `nowhere`",
        ),
        (&["label", "rows.jsonl", "--jobs", "0"], "--jobs must be 1 or more"),
        (&["label", "rows.jsonl", "--timeout", "0"], "must be 1 or more"),
        (
            &["sample", "rows.jsonl"],
            "no --model was given and runs holds no run with a best checkpoint: train first, or give --model",
        ),
        (
            &["sample", "rows.jsonl", "--model", "builtin:micro", "--temperature", "0"],
            "--n must be 1 with --temperature 0, because greedy samples are all the same",
        ),
        (
            &["sample", "rows.jsonl", "--model", "builtin:micro", "-n", "0"],
            "--n must be 1 or more",
        ),
    ] {
        let error = refused(path, args);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert_eq!(error.matches("error: ").count(), 1, "{args:?}: {error}");
    }
    let mut left: Vec<String> = fs::read_dir(path)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "cache")
        .collect();
    left.sort();
    assert_eq!(left, ["rows.jsonl", "without.jsonl"]);
}
