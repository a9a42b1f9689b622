//! A file of every schema gives the records that its rows mean.

use super::{fixture, records};
use crate::{
    Body, Record, Span, Tests,
    source::{Source, SourceOptions},
};
use serde_json::{Value, json};

const EVEN: &str = "def is_even(n):\n    return n % 2 == 0\n";
const ODD: &str = "def is_even(n):\n    return n % 2 == 1\n";
const TASK: &str = "Write a Python function `is_even(n)` that returns whether n is even.";

fn of(name: &str) -> Vec<Record> {
    records(&fixture(name))
}

/// A conversation's messages as JSON, and where training begins.
fn chat(body: &Body) -> (Value, usize) {
    match body {
        Body::Chat {
            messages, trained_from, ..
        } => (json!(messages), *trained_from),
        other => panic!("{other:?}"),
    }
}

fn completion(body: &Body) -> (&str, &str) {
    match body {
        Body::Completion { prompt, completion } => (prompt, completion),
        other => panic!("{other:?}"),
    }
}

fn rewards(record: &Record) -> Vec<Option<f32>> {
    record.samples.iter().map(|sample| sample.reward).collect()
}

#[test]
fn every_file_has_its_schema_and_rows() {
    for (name, schema, rows, samples) in [
        ("messages.jsonl", "messages", 6, 6),
        ("conversations.jsonl", "messages", 5, 5),
        ("messages_label.jsonl", "messages-label", 8, 8),
        ("conversations_chosen.jsonl", "messages-chosen-rejected", 6, 12),
        ("chosen_rejected.jsonl", "chosen-rejected", 6, 12),
        ("chosen_messages.jsonl", "chosen-rejected", 6, 12),
        ("prompt_completion.jsonl", "prompt-completion", 6, 6),
        ("prompt_completion_messages.json", "prompt-completion", 6, 6),
        ("prompt_chosen_rejected.jsonl", "prompt-chosen-rejected", 6, 12),
        ("prompt_completions.jsonl", "prompt-completions", 6, 12),
        ("instruction.jsonl", "instruction", 6, 6),
        ("text.jsonl", "text", 6, 6),
        ("segments.jsonl", "segments", 6, 6),
        ("mbpp.jsonl", "mbpp", 6, 6),
        ("humaneval.jsonl", "humaneval", 6, 6),
        // The first problem has a C++ solution as well, which is a record of its own.
        ("contest.jsonl", "contest", 5, 9),
        ("sorting.py", "text", 1, 1),
        ("splits", "prompt-completion", 4, 4),
    ] {
        let found = of(name);
        let count: usize = found.iter().map(|record| record.samples.len()).sum();
        assert_eq!((found.len(), count), (rows, samples), "{name}");
        assert!(
            found.iter().all(|record| record.schema == schema),
            "{name}: {}",
            found[0].schema
        );
    }
}

#[test]
fn messages_keep_weights_calls_and_tools() {
    let found = of("messages.jsonl");
    let message = |row: usize, index: usize| chat(&found[row].samples[0].body).0[index].clone();
    assert_eq!(
        message(0, 0),
        json!({"role": "system", "content": "You write short Python."})
    );
    assert_eq!(message(1, 1)["weight"], json!(0.0));
    assert_eq!(message(1, 3)["weight"], json!(1.0));
    // Content in parts, spelled `text` and `value`.
    assert_eq!(
        message(2, 0)["content"].as_str().unwrap().split('`').nth(1),
        Some("reverse_words(s)")
    );
    assert_eq!(
        message(2, 1)["content"],
        "def reverse_words(s):\n    return ' '.join(s.split()[::-1])\n"
    );
    assert_eq!(message(2, 1)["train"], json!(true));
    // The arguments are JSON in a text, and the content is null.
    assert_eq!(
        message(3, 1),
        json!({"role": "assistant", "tool_calls": [{"type": "function", "id": "call_1",
               "function": {"name": "run_python", "arguments": {"code": "print(17 * 23)"}}}]})
    );
    assert_eq!(
        message(3, 2),
        json!({"role": "tool", "content": "391", "tool_call_id": "call_1", "name": "run_python"})
    );
    let Body::Chat { tools: Some(tools), .. } = &found[3].samples[0].body else {
        panic!("{found:?}")
    };
    assert_eq!(tools[0]["function"]["name"], "run_python");
    assert_eq!(message(4, 1)["weight"], json!(0.5));
    assert_eq!(
        (found[4].samples[0].weight, found[4].task_id.as_deref()),
        (2.0, Some("vowels"))
    );
    assert_eq!(message(5, 1)["train"], json!(false));
}

#[test]
fn conversations_become_messages() {
    let found = of("conversations.jsonl");
    let (messages, from) = chat(&found[0].samples[0].body);
    assert_eq!(
        messages,
        json!([{"role": "user", "content": TASK}, {"role": "assistant", "content": EVEN}])
    );
    assert_eq!(from, 0);
    let roles = |row: usize| -> Vec<String> {
        let (messages, _) = chat(&found[row].samples[0].body);
        let role = |message: &Value| message["role"].as_str().unwrap().to_owned();
        messages.as_array().unwrap().iter().map(role).collect()
    };
    assert_eq!(roles(1), ["system", "user", "assistant"]);
    assert_eq!(roles(2), ["user", "assistant", "tool", "assistant"]);
    assert_eq!(
        chat(&found[2].samples[0].body).0[1],
        json!({"role": "assistant", "tool_calls": [{"type": "function",
               "function": {"name": "run_python", "arguments": {"code": "print(vowels('Apple'))"}}}]})
    );
    let Body::Chat { tools: Some(tools), .. } = &found[2].samples[0].body else {
        panic!("{found:?}")
    };
    assert_eq!(
        (&tools[0]["type"], &tools[0]["function"]["name"]),
        (&json!("function"), &json!("run_python"))
    );
    assert_eq!(roles(3), ["system", "user", "assistant"]);
    assert_eq!(roles(4), ["user", "assistant"]);
}

#[test]
fn a_label_is_a_reward() {
    let found = of("messages_label.jsonl");
    assert_eq!(rewards(&found[0]), [Some(1.0)]);
    assert_eq!(rewards(&found[1]), [Some(0.0)]);
}

#[test]
fn pairs_of_all_spellings_are_two_samples() {
    for (name, from) in [
        ("conversations_chosen.jsonl", 1),
        ("chosen_rejected.jsonl", 1),
        ("chosen_messages.jsonl", 2),
    ] {
        let found = of(name);
        assert_eq!(rewards(&found[0]), [Some(1.0), Some(0.0)], "{name}");
        let bodies: Vec<(Value, usize)> = found[0].samples.iter().map(|sample| chat(&sample.body)).collect();
        for ((messages, trained_from), text) in bodies.iter().zip([EVEN, ODD]) {
            assert_eq!(*trained_from, from, "{name}");
            assert_eq!(messages[from - 1], json!({"role": "user", "content": TASK}), "{name}");
            assert_eq!(messages[from], json!({"role": "assistant", "content": text}), "{name}");
            assert_eq!(messages.as_array().unwrap().len(), from + 1, "{name}");
        }
    }
    let found = of("prompt_chosen_rejected.jsonl");
    let prompt = format!("# {TASK}\n");
    assert_eq!(completion(&found[0].samples[0].body), (prompt.as_str(), EVEN));
    assert_eq!(completion(&found[0].samples[1].body), (prompt.as_str(), ODD));
    assert_eq!(rewards(&found[0]), [Some(1.0), Some(0.0)]);
}

#[test]
fn a_completion_has_its_optional_columns() {
    let found = of("prompt_completion.jsonl");
    let first = &found[0];
    assert_eq!(
        completion(&first.samples[0].body),
        (format!("# {TASK}\n").as_str(), EVEN)
    );
    assert_eq!(
        (first.task_id.as_deref(), first.language.as_deref(), first.place.row),
        (Some("is_even"), Some("python"), 1)
    );
    let span = Span {
        start: 36,
        end: 37,
        weight: 2.0,
    };
    assert_eq!(
        (first.samples[0].spans.as_slice(), first.samples[0].weight),
        ([span].as_slice(), 1.0)
    );
    assert_eq!((found[1].samples[0].spans.len(), found[1].samples[0].weight), (0, 0.5));
    let (messages, from) = chat(&of("prompt_completion_messages.json")[5].samples[0].body);
    assert_eq!(
        (messages[0]["role"].as_str(), messages[1]["role"].as_str(), from),
        (Some("user"), Some("assistant"), 1)
    );
}

#[test]
fn many_completions_have_rewards_or_labels() {
    let found = of("prompt_completions.jsonl");
    assert_eq!(rewards(&found[0]), [Some(1.0), Some(0.25)]);
    assert_eq!(rewards(&found[1]), [Some(1.0), Some(0.0)]);
    assert_eq!(completion(&found[0].samples[1].body).1, ODD);
    let asserts = ["assert is_even(4)", "assert not is_even(7)"].map(str::to_owned);
    assert_eq!(
        found[0].tests,
        Some(Tests::Asserts {
            setup: String::new(),
            asserts: asserts.into(),
            entry_point: None,
        })
    );
}

#[test]
fn instructions_have_system_history_label_and_tests() {
    let found = of("instruction.jsonl");
    let instruction = |row: usize| match &found[row].samples[0].body {
        Body::Instruction(instruction) => instruction.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (instruction(0).instruction.as_str(), instruction(0).output.as_str()),
        (TASK, EVEN)
    );
    assert!(instruction(1).input.starts_with("def total(xs):"));
    assert_eq!(instruction(2).system.as_deref(), Some("You write short Python."));
    assert_eq!(instruction(2).history.len(), 1);
    assert!(instruction(2).history[0].0.contains("total") && instruction(2).history[0].1.contains("result += x"));
    assert_eq!(
        (rewards(&found[3]), rewards(&found[4])),
        (vec![Some(1.0)], vec![Some(0.0)])
    );
    let one = vec!["assert factorial(5) == 120\nassert factorial(0) == 1".to_owned()];
    assert!(matches!(&found[5].tests, Some(Tests::Asserts { asserts, .. }) if *asserts == one));
}

#[test]
fn benchmarks_have_their_tests() {
    let mbpp = &of("mbpp.jsonl")[0];
    let Body::Instruction(body) = &mbpp.samples[0].body else {
        panic!("{mbpp:?}")
    };
    // The file has CR LF.
    assert_eq!((body.instruction.as_str(), body.output.as_str()), (TASK, EVEN));
    assert_eq!(
        (mbpp.task_id.as_deref(), mbpp.language.as_deref()),
        (Some("2000"), Some("python"))
    );
    assert!(matches!(&mbpp.tests, Some(Tests::Asserts { asserts, .. }) if asserts.len() == 2));

    let humaneval = &of("humaneval.jsonl")[0];
    assert_eq!(completion(&humaneval.samples[0].body).1, "    return n % 2 == 0\n");
    let Some(Tests::Asserts {
        setup,
        asserts,
        entry_point,
    }) = &humaneval.tests
    else {
        panic!("{humaneval:?}")
    };
    assert!(setup.starts_with("def check(candidate):\n    assert candidate(4)"));
    assert_eq!(asserts, &["check(is_even)"]);
    assert_eq!(entry_point.as_deref(), Some("is_even"));

    let contest = of("contest.jsonl");
    let languages: Vec<_> = contest
        .iter()
        .map(|record| record.language.as_deref().unwrap())
        .collect();
    assert_eq!(languages, ["cpp", "python", "python", "python", "python"]);
    assert_eq!(contest[1].task_id.as_deref(), Some("Sum"));
    assert_eq!(
        (rewards(&contest[0]), rewards(&contest[1])),
        (vec![Some(1.0)], vec![Some(1.0), Some(0.0)])
    );
    let pairs = [("2\n3\n4\n", "7\n"), ("1\n-5\n", "-5\n")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(contest[1].tests, Some(Tests::InputOutput(pairs.into())));
}

#[test]
fn parquet_of_two_row_groups_is_a_conversation() {
    let found = of("chat.parquet");
    assert_eq!(found.len(), 6);
    assert_eq!(
        found.iter().map(|record| record.place.row).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    let schemas: Vec<_> = found.iter().map(|record| record.schema).collect();
    assert_eq!(&schemas[2..4], ["messages", "messages-label"]);
    assert_eq!(
        (rewards(&found[3]), rewards(&found[4])),
        (vec![Some(1.0)], vec![Some(0.0)])
    );
    assert_eq!((found[0].samples[0].weight, found[1].samples[0].weight), (1.0, 0.5));
    let (messages, _) = chat(&found[2].samples[0].body);
    assert_eq!(messages.as_array().unwrap().len(), 4);
    assert_eq!((&messages[1]["weight"], messages[0].get("weight")), (&json!(0.0), None));
    assert_eq!(chat(&found[0].samples[0].body).0[1]["content"], EVEN);
    let source = Source::open(&fixture("chat.parquet"), &SourceOptions::default()).unwrap();
    assert_eq!(source.len_hint(), Some(6));
}

#[test]
fn source_code_is_one_text() {
    let found = of("sorting.py");
    assert!(
        matches!(&found[0].samples[0].body, Body::Text(text) if text.starts_with("\"\"\"Sorting") && text.ends_with("right\n"))
    );
}
