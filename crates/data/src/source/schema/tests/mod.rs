//! Rows of every schema: what they mean, and what is wrong with them.

mod conversations;
mod others;
mod preferences;

use super::{Mapping, records};
use crate::{Body, Place, Record, source::row::Row};
use serde_json::{Value, json};

fn try_read(row: &Value) -> Result<Vec<Record>, String> {
    let row = Row {
        place: Place {
            file: "a.jsonl".into(),
            row: 3,
        },
        values: row.as_object().unwrap().clone(),
        unread: [].into(),
    };
    records(row, &Mapping::default(), true).map_err(|error| error.to_string())
}

/// The only record of a row.
fn read(row: Value) -> Record {
    let mut records = try_read(&row).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(records.len(), 1);
    records.remove(0)
}

/// The error of a row, without file and row.
fn wrong(row: Value) -> String {
    let error = try_read(&row).unwrap_err();
    let rest = error.strip_prefix("a.jsonl, row 3").unwrap();
    rest.trim_start_matches([',', ':', ' ']).to_owned()
}

/// The messages of each sample, and where training begins.
fn chats(record: &Record) -> Vec<(Value, usize)> {
    let chat = |body: &Body| match body {
        Body::Chat {
            messages, trained_from, ..
        } => (json!(messages), *trained_from),
        other => panic!("{other:?}"),
    };
    record.samples.iter().map(|sample| chat(&sample.body)).collect()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

/// Columns of several schemas: the first of the table is taken.
#[test]
fn the_first_schema_that_fits_is_taken() {
    let messages = json!([user("q"), assistant("a")]);
    for (row, schema) in [
        (
            json!({"messages": messages, "prompt": "p", "completion": "c", "text": "t"}),
            "messages",
        ),
        (
            json!({"messages": messages, "label": true, "text": "t"}),
            "messages-label",
        ),
        (
            json!({"prompt": "p", "completion": "c", "instruction": "i", "output": "o"}),
            "prompt-completion",
        ),
        (json!({"instruction": "i", "output": "o", "text": "t"}), "instruction"),
        (json!({"text": "t", "code": "c"}), "text"),
        (json!({"text": "t", "code": "c", "test_list": ["assert f()"]}), "mbpp"),
        (
            json!({"prompt": "t", "code": "c", "test_list": [], "test_imports": ["import re"]}),
            "mbpp",
        ),
        // A null column is absent.
        (json!({"messages": null, "text": "t"}), "text"),
    ] {
        assert_eq!(read(row.clone()).schema, schema, "{row}");
    }
}
