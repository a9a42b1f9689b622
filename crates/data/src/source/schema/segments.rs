//! `segments`: axolotl's `input_output`, a list of `{label, text}` where the label says what is trained.
//!
//! Only segments that are a prompt followed by a completion are read: what alternates needs weights of its
//! own, which `spans` give.

use super::{
    Schema,
    fields::{Fields, not_blank},
    optional,
};
use crate::{Body, DataError, Record};
use serde_json::Value;

/// Segments of text.
pub(super) const SCHEMA: Schema = Schema {
    name: "segments",
    fits: |row| row.has("segments"),
    read,
};

fn read(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let value = row.take("segments").unwrap_or_default();
    let at = row.at("segments");
    let Value::Array(segments) = value else {
        return Err(at.found(&value, "a list of `{label, text}`"));
    };
    let (mut prompt, mut completion) = (String::new(), String::new());
    for (index, segment) in segments.iter().enumerate() {
        let (Some(label), Some(text)) = (
            segment.get("label").and_then(Value::as_bool),
            segment.get("text").and_then(Value::as_str),
        ) else {
            return Err(at
                .item(index)
                .found(segment, "an object of `label` (true, false) and `text`"));
        };
        match (label, completion.is_empty()) {
            (true, _) => completion.push_str(text),
            (false, true) => prompt.push_str(text),
            (false, false) => {
                return Err(at.item(index).wrong(
                    "is not trained but follows one that is; write `messages`, or `prompt`, `completion` and `spans`",
                ));
            }
        }
    }
    let body = Body::Completion {
        prompt,
        completion: not_blank(&at, completion)?,
    };
    optional::record(row, schema, vec![optional::Part::new(body)])
}
