//! Predictions, answers of chat models and benchmarks.

use crate::case::Case;

/// Judges one file of the case `predictions` and returns `wmtp eval --json`.
fn judged(case: &Case, file: &str) -> serde_json::Value {
    let options = ["--tasks", "11", "--output", "runs", "--no-verdict-cache", "--json"];
    case.json(&[&["eval", "mbpp", "--predictions", file], &options[..]].concat())
}

#[test]
fn predictions_are_read_as_python_reads_and_writes_them() {
    let case = Case::new("predictions");
    for file in [
        "int-id.jsonl",
        "digits-id.jsonl",
        "upper-id.jsonl",
        "bom.jsonl",
        "nan-field.jsonl",
        "surrogate.jsonl",
        "list.json",
        "crlf.jsonl",
        "u2028.jsonl",
        "dup-key.jsonl",
    ] {
        assert_eq!(judged(&case, file)["pass_at_1"], 1.0, "{file}");
    }
}

#[test]
fn predictions_without_an_answer_are_refused_with_file_line_and_field() {
    let case = Case::new("predictions");
    for (file, expected) in [
        (
            "completions-list.jsonl",
            &["line 1", "`completion`", "`completions`"][..],
        ),
        ("raw-output.jsonl", &["line 1", "`completion`", "`generation`"]),
        ("solution-list.jsonl", &["line 1", "`solution` is a list"]),
        ("none-completion.jsonl", &["line 1", "`completion`"]),
        ("utf16.jsonl", &["UTF-16", "iconv"]),
        ("empty.jsonl", &["no answer to 1 of 1 problems"]),
    ] {
        let text = case.refused(
            2,
            &[
                "eval",
                "mbpp",
                "--predictions",
                file,
                "--tasks",
                "11",
                "--output",
                "runs",
            ],
        );
        assert!(text.contains(file), "{file}: {text}");
        assert!(expected.iter().all(|part| text.contains(part)), "{file}: {text}");
    }
}

#[test]
fn contest_programs_that_set_their_stack_limit_pass() {
    let case = Case::new("contest-programs");
    let report = case.json(&[
        "eval",
        "contest",
        "--predictions",
        "predictions.jsonl",
        "--tasks",
        "1113_C",
        "--samples",
        "26",
        "--output",
        "runs",
        "--no-verdict-cache",
        "--json",
    ]);
    assert_eq!(report["results"]["passed"], 26, "{report:#}");
}
