//! Columns that any schema may have: `reward` or `label`, `weight`, `spans`, `task_id`, `tests`,
//! `test_setup`, `entry_point`, `language`; and the record that is made with them.

use super::{
    fields::{Fields, finite, weight},
    message::is_answer,
};
use crate::{Body, DataError, Record, Sample, Span, Tests, source::row::At};
use serde_json::Value;

/// A text of the row, before the optional columns.
pub(super) struct Part {
    pub body: Body,
    /// The reward that the schema gives it.
    pub reward: Option<f32>,
}

impl Part {
    /// A text without a reward.
    pub fn new(body: Body) -> Self {
        Self { body, reward: None }
    }
}

/// The record of the row with the optional columns. `reward` and `label` are for a single text to which the
/// schema gives no reward; of both, `reward` counts.
///
/// # Errors
/// Columns with values that they cannot have; spans for several texts or outside of the text.
pub(super) fn record(row: &mut Fields, schema: &'static str, parts: Vec<Part>) -> Result<Vec<Record>, DataError> {
    let tests = tests(row)?;
    record_with(row, schema, parts, tests)
}

/// The same with tests that the schema found.
///
/// # Errors
/// As [`record`].
pub(super) fn record_with(
    row: &mut Fields,
    schema: &'static str,
    parts: Vec<Part>,
    tests: Option<Tests>,
) -> Result<Vec<Record>, DataError> {
    let weight = match row.get("weight") {
        Some(value) => weight(&row.at("weight"), value)?,
        None => 1.0,
    };
    let alone = parts.len() == 1;
    let own = match (alone, row.get("reward"), row.get("label")) {
        (true, Some(value), _) => Some(reward(&row.at("reward"), value)?),
        (true, None, Some(value)) => Some(label(&row.at("label"), value)?),
        _ => None,
    };
    if !alone && row.has("spans") {
        return Err(row
            .at("spans")
            .wrong("are for one completion, but the row has several; write a row for each"));
    }
    let mut samples = Vec::with_capacity(parts.len());
    for part in parts {
        let spans = match row.get("spans") {
            Some(value) => spans(&row.at("spans"), value, &part.body)?,
            None => Vec::new(),
        };
        samples.push(Sample {
            reward: part.reward.or(own),
            weight,
            spans,
            ..Sample::new(part.body)
        });
    }
    Ok(vec![Record {
        task_id: name(row, "task_id")?,
        language: row.text_if_there("language")?.map(|name| name.trim().to_lowercase()),
        place: row.place.clone(),
        schema,
        samples,
        tests,
    }])
}

/// A name: a text or an integer.
///
/// # Errors
/// Something else.
pub(super) fn name(row: &mut Fields, column: &str) -> Result<Option<String>, DataError> {
    match row.take(column) {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        Some(other) => Err(row.at(column).found(&other, "a text or an integer")),
    }
}

/// A reward: a finite number, or true and false as 1 and 0.
///
/// # Errors
/// Something else.
pub(super) fn reward(at: &At, value: &Value) -> Result<f32, DataError> {
    match value {
        Value::Bool(right) => Ok(f32::from(u8::from(*right))),
        other => finite(at, other, "a finite number"),
    }
}

/// A label: true or false, or 1 or 0.
///
/// # Errors
/// Something else.
pub(super) fn label(at: &At, value: &Value) -> Result<f32, DataError> {
    match (value, value.as_f64()) {
        (Value::Bool(right), _) => Ok(f32::from(u8::from(*right))),
        (_, Some(number)) if number == 0.0 || number == 1.0 => Ok(number as f32),
        _ => Err(at.found(value, "true, false, 1 or 0")),
    }
}

/// The text that spans count in: the completion, or the last trained message.
fn spanned(body: &Body) -> &str {
    match body {
        Body::Text(text) => text,
        Body::Completion { completion, .. } => completion,
        Body::Instruction(instruction) => &instruction.output,
        Body::Chat {
            messages, trained_from, ..
        } => {
            let trained = messages.iter().skip(*trained_from).rev().find(|message| {
                let off = message.get("train") == Some(&Value::Bool(false))
                    || message.get("weight").and_then(Value::as_f64) == Some(0.0);
                is_answer(message) && !off
            });
            trained
                .and_then(|message| message.get("content")?.as_str())
                .unwrap_or_default()
        }
    }
}

/// Spans in order, inside of the text and apart from each other.
fn spans(at: &At, value: &Value, body: &Body) -> Result<Vec<Span>, DataError> {
    let Value::Array(items) = value else {
        return Err(at.found(value, "a list of `{start, end, weight}`"));
    };
    let length = spanned(body).chars().count();
    let mut found: Vec<Span> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let at = at.item(index);
        let place = |name: &str| {
            item.get(name)
                .and_then(Value::as_u64)
                .and_then(|at| usize::try_from(at).ok())
        };
        let (Some(start), Some(end), Some(given)) = (place("start"), place("end"), item.get("weight")) else {
            return Err(at.found(item, "`{start, end, weight}` with `start` and `end` in characters"));
        };
        let weight = weight(&at.field("weight"), given)?;
        if start >= end {
            return Err(at.wrong(format!("is empty: it begins at {start} and ends at {end}; remove it")));
        }
        if end > length {
            return Err(at.wrong(format!(
                "ends at character {end}, but the completion has {length} characters; correct it"
            )));
        }
        found.push(Span { start, end, weight });
    }
    found.sort_by_key(|span| span.start);
    let overlap = found.iter().zip(found.iter().skip(1)).find(|(a, b)| b.start < a.end);
    match overlap {
        Some((a, b)) => Err(at.wrong(format!(
            "overlap: {} to {} and {} to {}; separate them",
            a.start, a.end, b.start, b.end
        ))),
        None => Ok(found),
    }
}

/// The column `tests`: asserts, or inputs and outputs; nothing if it is empty or absent.
///
/// # Errors
/// Something else; of asserts, `test_setup` or `entry_point` that are no text and no name.
pub(super) fn tests(row: &mut Fields) -> Result<Option<Tests>, DataError> {
    let Some(value) = row.take("tests") else {
        return Ok(None);
    };
    let setup = row.text_if_there("test_setup")?.unwrap_or_default();
    let at = row.at("tests");
    let asserts = match value {
        Value::String(text) => vec![text],
        Value::Array(items) if items.iter().all(Value::is_string) => items.into_iter().filter_map(text_of).collect(),
        other => {
            let pairs = pairs(&at, other)?;
            return Ok(Some(pairs).filter(|pairs| !pairs.is_empty()).map(Tests::InputOutput));
        }
    };
    let asserts: Vec<String> = asserts.into_iter().filter(|text| !text.trim().is_empty()).collect();
    if asserts.is_empty() {
        return Ok(None);
    }
    Ok(Some(Tests::Asserts {
        setup,
        asserts,
        entry_point: entry_point(row)?,
    }))
}

/// The name of the function that an answer defines.
fn entry_point(row: &mut Fields) -> Result<Option<String>, DataError> {
    let Some(name) = row.text_if_there("entry_point")? else {
        return Ok(None);
    };
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_numeric());
    match is_name && !name.is_empty() {
        true => Ok(Some(name)),
        false => Err(row.at("entry_point").found(&name.into(), "the name of a function")),
    }
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// Inputs and outputs: `{input: [...], output: [...]}` or a list of `{input, output}`.
///
/// # Errors
/// Something else; lists of unequal length.
pub(super) fn pairs(at: &At, value: Value) -> Result<Vec<(String, String)>, DataError> {
    const EXPECTED: &str = "asserts, `{input: [...], output: [...]}` or a list of `{input, output}`";
    match value {
        Value::Array(items) => {
            let pair = |(index, mut item): (usize, Value)| {
                let mut text = |name: &str| item.get_mut(name).map(Value::take).and_then(text_of);
                let texts = text("input").zip(text("output"));
                texts.ok_or_else(|| at.item(index).wrong("is no `{input, output}` of two texts; write both"))
            };
            items.into_iter().enumerate().map(pair).collect()
        }
        Value::Object(mut columns) => {
            let mut texts = |name: &str| -> Result<Vec<String>, DataError> {
                let field = at.field(name);
                match columns.remove(name) {
                    Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
                        Ok(items.into_iter().filter_map(text_of).collect())
                    }
                    Some(Value::String(text)) => Ok(vec![text]),
                    Some(other) => Err(field.found(&other, "a list of texts")),
                    None => Err(field.wrong("is absent; give a list of texts")),
                }
            };
            let (inputs, outputs) = (texts("input")?, texts("output")?);
            if inputs.len() != outputs.len() {
                return Err(at.wrong(format!(
                    "has {} inputs and {} outputs; give one output for each input",
                    inputs.len(),
                    outputs.len()
                )));
            }
            Ok(inputs.into_iter().zip(outputs).collect())
        }
        other => Err(at.found(&other, EXPECTED)),
    }
}
