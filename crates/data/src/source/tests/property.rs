//! No row makes the reader panic, and no damaged file does.

use super::{fixture, read};
use crate::{
    Place,
    source::{
        SourceOptions,
        row::Row,
        schema::{self, Mapping},
    },
};
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

/// Names that schemas look for, and others.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "messages",
        "conversations",
        "role",
        "content",
        "from",
        "value",
        "tools",
        "functions",
        "function",
        "name",
        "arguments",
        "tool_calls",
        "function_call",
        "type",
        "text",
        "train",
        "weight",
        "loss_weight",
        "chosen",
        "rejected",
        "chosen_messages",
        "rejected_messages",
        "prompt",
        "completion",
        "completions",
        "rewards",
        "labels",
        "label",
        "instruction",
        "input",
        "output",
        "history",
        "system",
        "segments",
        "spans",
        "start",
        "end",
        "tests",
        "task_id",
        "code",
        "test_list",
        "test_imports",
        "canonical_solution",
        "test",
        "entry_point",
        "description",
        "solutions",
        "incorrect_solutions",
        "language",
        "solution",
        "public_tests",
        "reward",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,3}"]
}

/// Any JSON, with the words that schemas know.
fn json() -> impl Strategy<Value = Value> {
    let words = [
        "user",
        "assistant",
        "system",
        "gpt",
        "human",
        "function_call",
        "observation",
        "text",
        "[]",
        "{\"name\": \"f\"}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        (0_u64..5).prop_map(Value::from),
        any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec((name(), value), 0..6).prop_map(|fields| Value::Object(Map::from_iter(fields)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_row_is_records_or_one_sentence(row in object(json())) {
        let Value::Object(values) = row else { unreachable!() };
        let row = Row {
            place: Place { file: "rows.jsonl".into(), row: 3 },
            values,
            unread: [].into(),
        };
        match schema::records(row, &Mapping::default(), true) {
            Ok(records) => for record in records {
                prop_assert!(!record.samples.is_empty());
                for sample in record.samples {
                    prop_assert!(sample.weight >= 0.0 && sample.weight.is_finite());
                    prop_assert!(sample.reward.is_none_or(f32::is_finite));
                }
            },
            Err(error) => {
                let sentence = error.to_string();
                prop_assert!(sentence.starts_with("rows.jsonl, row 3"), "{}", sentence);
                prop_assert!(!sentence.contains('\n'), "{}", sentence);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Bytes are changed, or the end is cut off. Panics of the Parquet crate are printed and become errors.
    #[test]
    fn a_damaged_file_is_records_or_one_sentence(
        name in prop::sample::select(vec!["chat.parquet", "nested/none.parquet", "nested/gzip.parquet", "messages.jsonl",
            "prompt_completion_messages.json"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name.replace('/', "-"));
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = read(&path, &SourceOptions::default()) {
            prop_assert!(error.to_string().contains(&path.display().to_string()), "{}", error);
        }
    }
}
