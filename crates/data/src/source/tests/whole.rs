//! Rows that are written again, and what rows ask.

use super::{Source, SourceOptions, fixture};
use crate::{Asked, DataError, Question, Tests, source::WholeRow};
use serde_json::{Value, json};

fn rows(path: &std::path::Path, columns: &[(&str, &str)]) -> Vec<WholeRow> {
    let options = SourceOptions {
        columns: columns.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        ..SourceOptions::default()
    };
    let source = Source::open(path, &options).unwrap();
    source.whole_rows().collect::<Result<_, _>>().unwrap()
}

fn question(row: Value) -> Result<Question, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    std::fs::write(&file, row.to_string()).unwrap();
    rows(&file, &[])[0].question()
}

#[test]
fn a_whole_row_has_the_columns_that_no_schema_reads() {
    let found = rows(&fixture("chat.parquet"), &[]);
    assert_eq!(found.len(), 6);
    let row = found[1].clone();
    assert_eq!(row.place().row, 2);
    assert_eq!(row.records().unwrap()[0].task_id.as_deref(), Some("1"));
    let written = row.with(&["label", "tools"], vec![("result", json!("wrong"))]);
    assert_eq!(written["source_url"], "https://example.org/1");
    assert_eq!(written["result"], "wrong");
    assert!(!written.contains_key("label") && written.contains_key("messages"));
}

#[test]
fn columns_are_replaced_under_the_names_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    std::fs::write(&file, r#"{"q": "p", "a": "c", "ok": false, "label": "mine"}"#).unwrap();
    let row = rows(&file, &[("prompt", "q"), ("completion", "a"), ("label", "ok")]).remove(0);
    let others = row.clone().other_columns();
    let written = row.with(&["reward"], vec![("label", json!(true))]);
    // `label` is mapped, so the column of that name is another, and stays; where canonical names are written, it
    // would be taken for labels.
    assert_eq!(
        Value::Object(written),
        json!({"q": "p", "a": "c", "label": "mine", "ok": true})
    );
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_row_asks_with_or_without_an_answer() {
    let asked = |row: Value| question(row).unwrap().asked;
    assert_eq!(asked(json!({"prompt": "p"})), Asked::Text("p".into()));
    assert_eq!(
        asked(json!({"prompt": "p", "completions": [], "labels": 3})),
        Asked::Text("p".into())
    );
    let Asked::Instruction(instruction) = asked(json!({"instruction": "i", "input": "x", "output": ""})) else {
        panic!("an instruction")
    };
    assert_eq!(
        (instruction.instruction.as_str(), instruction.input.as_str()),
        ("i", "x")
    );
    let user = json!({"role": "user", "content": "u"});
    let turns = json!([user, {"role": "assistant", "content": "a"}]);
    for row in [
        json!({"messages": turns, "system": "s"}),
        json!({"conversations": [{"from": "human", "value": "u"}], "system": "s", "tools": []}),
    ] {
        let Asked::Chat { messages, tools } = asked(row) else {
            panic!("a conversation")
        };
        let roles: Vec<_> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
        assert_eq!((roles, tools), (vec!["system", "user"], None));
    }
    let found = question(json!({"prompt": "p", "task_id": 7, "language": "Python", "tests": "assert f()"})).unwrap();
    assert_eq!(
        (found.task_id.as_deref(), found.language.as_deref()),
        (Some("7"), Some("python"))
    );
    let error = question(json!({"completion": "c"})).unwrap_err().to_string();
    assert!(error.ends_with("row 1: no prompt is in the columns `completion`; give `prompt`, `messages` or `instruction`, or map them by `data.columns`"), "{error}");
}

#[test]
fn tests_are_read_as_they_are_written() {
    let row = json!({
        "prompt": "p", "tests": ["assert f(1)", "assert f(2)"], "test_setup": "import re", "entry_point": "f",
    });
    let asserts = question(row).unwrap().tests.unwrap();
    let output = json!([{"input": "1\n", "output": "2"}]);
    let pairs = question(json!({"prompt": "p", "tests": output}))
        .unwrap()
        .tests
        .unwrap();
    for tests in [asserts, pairs] {
        let mut row = json!({"prompt": "p"});
        for (name, value) in tests.columns() {
            row[name] = value;
        }
        assert_eq!(question(row).unwrap().tests, Some(tests));
    }
    let humaneval = rows(&fixture("humaneval.jsonl"), &[])[0].question().unwrap();
    let Some(Tests::Asserts { entry_point, .. }) = humaneval.tests else {
        panic!("asserts")
    };
    assert_eq!(entry_point.as_deref(), Some("is_even"));
}
