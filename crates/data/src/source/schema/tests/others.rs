//! Completions, instructions, benchmarks and the optional columns.

use super::{assistant, chats, read, try_read, user, wrong};
use crate::{Body, Span, Tests};
use serde_json::{Value, json};

fn with(extra: Value) -> Value {
    let mut row = json!({"prompt": "p", "completion": "abc"});
    row.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    row
}

#[test]
fn completions_of_messages_are_messages() {
    let found = chats(&read(
        json!({"prompt": [user("q")], "completion": [assistant("a")], "system": "s"}),
    ));
    assert_eq!(
        found,
        [(
            json!([{"role": "system", "content": "s"}, user("q"), assistant("a")]),
            2
        )]
    );
    // A message alone.
    let found = chats(&read(json!({"prompt": [user("q")], "completion": assistant("a")})));
    assert_eq!(found, [(json!([user("q"), assistant("a")]), 1)]);
    let rewards = json!({"prompt": [user("q")], "completions": [[assistant("a")], [assistant("b")]], "labels": [1, 0]});
    assert_eq!(chats(&read(rewards))[1].0[1], assistant("b"));
    assert_eq!(
        wrong(with(json!({"system": "s"}))),
        "column `system`: is not used with a text as prompt; map the prompt as `instruction`, the answer as `output`"
    );
    assert!(wrong(json!({"prompt": "p", "completion": [assistant("a")]})).contains("give a text as `prompt` is"));
}

#[test]
fn completions_without_rewards_need_tests() {
    let found = read(json!({"prompt": "p", "completions": ["a", "b"], "tests": "assert f()"}));
    assert_eq!((found.samples.len(), found.samples[0].reward), (2, None));
    assert!(wrong(json!({"prompt": "p", "completions": ["a", "b"]})).starts_with("no schema has the columns"));
}

#[test]
fn rewards_are_numbers_and_labels_are_yes_or_no() {
    let reward = |extra: Value| read(with(extra)).samples[0].reward;
    assert_eq!(reward(json!({"reward": -2.5})), Some(-2.5));
    assert_eq!(reward(json!({"reward": true})), Some(1.0));
    assert_eq!(reward(json!({"label": false})), Some(0.0));
    assert_eq!(reward(json!({"label": 1})), Some(1.0));
    assert_eq!(reward(json!({"label": 0, "reward": 0.5})), Some(0.5));
    assert_eq!(reward(json!({"label": null})), None);
    assert!(wrong(with(json!({"label": "yes"}))).contains("column `label`: found the text `yes`"));
    assert!(wrong(with(json!({"reward": 1e39}))).contains("give a finite number"));
    // Parquet's NaN is the text `NaN`.
    assert!(wrong(with(json!({"weight": "NaN"}))).contains("column `weight`: found the text `NaN`"));
}

#[test]
fn spans_count_characters_of_what_is_trained() {
    let span = |start, end, weight| Span { start, end, weight };
    let row =
        json!({"text": "äöü", "spans": [{"start": 2, "end": 3, "weight": 0}, {"start": 0, "end": 2, "weight": 1.5}]});
    assert_eq!(read(row).samples[0].spans, [span(0, 2, 1.5), span(2, 3, 0.0)]);
    // In a conversation, of the last trained answer.
    let chat = |last: Value, end: usize| json!({"messages": [user("q"), assistant("abc"), user("r"), last], "spans": [{"start": 0, "end": end, "weight": 1}]});
    assert!(try_read(&chat(assistant("abcdef"), 6)).is_ok());
    assert!(wrong(chat(assistant("abcdef"), 7)).contains("but the completion has 6 characters"));
    let untrained = json!({"role": "assistant", "content": "abcdef", "train": false});
    assert!(wrong(chat(untrained, 6)).contains("but the completion has 3 characters"));
    for (spans, expected) in [
        (
            json!([{"start": 1, "end": 1, "weight": 1}]),
            "is empty: it begins at 1 and ends at 1",
        ),
        (
            json!([{"start": -1, "end": 1, "weight": 1}]),
            "give `{start, end, weight}` with `start` and `end` in characters",
        ),
        (
            json!([{"start": 0.5, "end": 1, "weight": 1}]),
            "give `{start, end, weight}`",
        ),
        (json!({"start": 0}), "give a list of `{start, end, weight}`"),
        (
            json!([{"start": 0, "end": 1, "weight": -1}]),
            "give a finite number of 0 or more",
        ),
    ] {
        let error = wrong(with(json!({"spans": spans})));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn tests_are_asserts_or_inputs_and_outputs() {
    let tests = |value: Value| read(with(json!({"tests": value, "test_setup": "import re"}))).tests;
    let asserts = |list: &[&str]| {
        Some(Tests::Asserts {
            setup: "import re".into(),
            asserts: list.iter().map(|text| (*text).to_owned()).collect(),
            entry_point: None,
        })
    };
    let pairs = |list: &[(&str, &str)]| {
        let list = list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        Some(Tests::InputOutput(list.collect()))
    };
    assert_eq!(tests(json!("assert f()")), asserts(&["assert f()"]));
    assert_eq!(
        tests(json!(["assert f()", "", "assert g()"])),
        asserts(&["assert f()", "assert g()"])
    );
    assert_eq!(
        tests(json!({"input": ["1", "2"], "output": ["a", "b"]})),
        pairs(&[("1", "a"), ("2", "b")])
    );
    assert_eq!(tests(json!([{"input": "1", "output": "a"}])), pairs(&[("1", "a")]));
    assert_eq!(tests(json!({"input": "1", "output": "a"})), pairs(&[("1", "a")]));
    for none in [json!([]), json!(""), json!({"input": [], "output": []})] {
        assert_eq!(tests(none.clone()), None, "{none}");
    }
    assert_eq!(
        wrong(with(json!({"tests": 3}))),
        "column `tests`: found the number `3`, give asserts, `{input: [...], output: [...]}` or a list of `{input, output}`"
    );
    assert!(
        wrong(with(json!({"tests": [{"input": "1"}]})))
            .contains("column `tests[0]`: is no `{input, output}` of two texts")
    );
}

#[test]
fn names_are_texts_or_integers() {
    assert_eq!(
        read(with(json!({"task_id": 7, "language": " Python "})))
            .task_id
            .as_deref(),
        Some("7")
    );
    assert_eq!(
        read(with(json!({"task_id": "x", "language": " Python "})))
            .language
            .as_deref(),
        Some("python")
    );
    assert!(wrong(with(json!({"task_id": 1.5}))).contains("give a text or an integer"));
}

#[test]
fn instructions_are_texts() {
    let found = read(json!({"instruction": "i", "output": "o"}));
    let Body::Instruction(instruction) = &found.samples[0].body else {
        panic!("{found:?}")
    };
    assert_eq!(
        (
            instruction.input.as_str(),
            &instruction.system,
            instruction.history.len()
        ),
        ("", &None, 0)
    );
    assert!(wrong(json!({"instruction": 1, "output": "o"})).contains("column `instruction`: found the number `1`"));
    assert!(wrong(json!({"instruction": "i", "output": " "})).contains("column `output`: is empty"));
    assert!(wrong(json!({"instruction": "i", "output": "o", "history": "h"})).contains("a list of pairs"));
}

#[test]
fn contests_divide_programs_by_language() {
    let row = json!({"name": "N", "description": "d", "public_tests": {"input": ["1"], "output": ["2"]},
        "solutions": {"language": [3, 2, 3, 4], "solution": ["p", "c", " ", "j"]},
        "incorrect_solutions": {"language": [2, 0], "solution": ["w", "u"]}});
    let found = try_read(&row).unwrap();
    let languages: Vec<Option<&str>> = found.iter().map(|record| record.language.as_deref()).collect();
    assert_eq!(languages, [None, Some("cpp"), Some("python"), Some("java")]);
    let rewards = |index: usize| {
        found[index]
            .samples
            .iter()
            .map(|sample| sample.reward)
            .collect::<Vec<_>>()
    };
    assert_eq!((rewards(0), rewards(1)), (vec![Some(0.0)], vec![Some(1.0), Some(0.0)]));
    // The program that is white space is left out.
    assert_eq!(found[2].samples.len(), 1);
    assert!(
        found
            .iter()
            .all(|record| record.task_id.as_deref() == Some("N") && record.tests.is_some())
    );
    let none = json!({"name": "N", "description": "d", "solutions": {"language": [], "solution": []}});
    assert_eq!(try_read(&none).unwrap(), []);
    let listed = json!({"name": "N", "description": "d", "solutions": [{"language": 3, "solution": "p"}]});
    assert_eq!(read(listed).language.as_deref(), Some("python"));
    let unknown = json!({"description": "d", "solutions": {"language": [9], "solution": ["p"]}});
    assert!(wrong(unknown).contains("languages as numbers from 0 to 4"));
}
