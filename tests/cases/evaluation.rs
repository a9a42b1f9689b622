//! Predictions, answers of chat models and benchmarks.

use crate::{case::Case, common::lines};
use wmtp::{
    data::{PromptStyle, Tokenizer},
    eval::{
        Answer, Benchmark, Judge, Mbpp, MbppVariant, Verdict,
        sandbox::{Limits, Sandbox},
    },
};

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

/// A model that writes the answer: three backticks inside a line come before the block.
#[test]
fn a_chat_answer_with_backticks_in_its_prose_passes() {
    let case = Case::new("fences");
    let report = case.json(&[
        "eval",
        "mbpp",
        "--model",
        "model-that-writes-inline-first",
        "--tasks",
        "11",
        "--prompt",
        "chat",
        "--temperature",
        "0",
        "--max-new-tokens",
        "8",
        "--output",
        "out",
        "--json",
    ]);
    assert_eq!(report["pass_at_1"], 1.0, "{report}");
    let run = report["run_dir"].as_str().expect("a directory");
    let sample = &lines(&case.path(run).join("samples.jsonl"))[0];
    assert!(
        sample["answer"]
            .as_str()
            .is_some_and(|answer| answer.starts_with("Call ```")),
        "{sample}"
    );
}

/// The shapes of answers without a model of their own: taken from the answer and judged.
#[test]
fn programs_are_taken_out_of_every_shape_of_answer() {
    let case = Case::new("fences");
    let tokenizer = Tokenizer::load(&case.path("model-that-writes-inline-first")).expect("a tokenizer");
    let mbpp = Mbpp::load(
        "builtin:mbpp",
        MbppVariant::Full,
        false,
        PromptStyle::Chat,
        Some(&tokenizer),
    )
    .expect("MBPP");
    let sandbox = Sandbox::new().expect("a sandbox");
    let limits = Limits::default();
    let judge = Judge::new(&sandbox, &limits);
    for answer in [
        "bash-first",
        "inline-first",
        "docstring-fence",
        "stray-closer",
        "stray-closer-prose",
        "think",
        "indented",
    ] {
        let text = std::fs::read_to_string(case.path(&format!("{answer}.txt"))).expect("an answer");
        let program = mbpp.completion(11, &text);
        let judged = mbpp.judge(11, Answer::Completion(&program), &judge).expect("a verdict");
        assert_eq!(judged.verdict, Verdict::Passed, "{answer}: {program}");
    }
}

fn evaluate(case: &Case, more: &[&str]) -> std::process::Output {
    let args = [
        "eval",
        "mbpp",
        "--model",
        "model",
        "--tasks",
        "11-14",
        "--temperature",
        "0",
        "--max-new-tokens",
        "8",
        "--output",
        "out",
        "--json",
    ];
    case.run(&[&args, more].concat())
}

/// The model has 64 positions, MBPP's few-shot prompt several hundred tokens.
#[test]
fn a_prompt_that_is_too_long_is_named_by_its_task() {
    let case = Case::new("positions-64");
    for more in [&[][..], &["--dry-run"]] {
        let output = evaluate(&case, more);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{error}");
        for part in [
            "the prompt of `Mbpp/11` has ",
            "more than the model's 64 positions (4 of 4 problems)",
            "`--prompt zero-shot`",
            "`--tasks`",
            "`--too-long fail`",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn problems_with_too_long_prompts_can_be_counted_as_failed() {
    let case = Case::new("positions-64");
    let output = evaluate(&case, &["--too-long", "fail"]);
    let report = crate::common::json(&output);
    assert_eq!(
        (&report["tasks"], &report["pass_at_1"]),
        (&4.into(), &0.0.into()),
        "{report}"
    );
    assert_eq!(report["errors"]["prompt_too_long"], 4, "{report}");
    let run = case.path(report["run_dir"].as_str().expect("a directory"));
    let samples = lines(&run.join("samples.jsonl"));
    let results: Vec<&str> = samples.iter().filter_map(|sample| sample["result"].as_str()).collect();
    assert_eq!(results, ["error: prompt_too_long"; 4]);
    let record = std::fs::read_to_string(run.join("run.json")).expect("run.json");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["request"]["too_long"], "fail");
}
