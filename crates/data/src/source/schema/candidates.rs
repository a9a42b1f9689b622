//! `prompt`, `completions`, and `rewards` or `labels`: many completions of one prompt.
//!
//! Without rewards the row needs `tests`, from which they can be found by running the completions.

use super::{Schema, completion::Prompt, fields::Fields, optional};
use crate::{DataError, Record};
use serde_json::Value;

/// Completions with their rewards.
pub(super) const SCHEMA: Schema = Schema {
    name: "prompt-completions",
    fits: |row| row.have(&["prompt", "completions"]) && row.first(&["rewards", "labels", "tests"]).is_some(),
    read,
};

fn read(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let prompt = Prompt::read(row)?;
    let completions = match row.take("completions").unwrap_or_default() {
        Value::Array(completions) if !completions.is_empty() => completions,
        Value::Array(_) => {
            return Err(row
                .at("completions")
                .wrong("has no completions; remove the row or fill it"));
        }
        other => return Err(row.at("completions").found(&other, "a list of completions")),
    };
    let rewards = rewards(row, completions.len())?;
    let mut parts = Vec::new();
    for (index, completion) in completions.into_iter().enumerate() {
        parts.push(optional::Part {
            body: prompt.with(row, "completions", Some(index), completion)?,
            reward: rewards.get(index).copied(),
        });
    }
    optional::record(row, schema, parts)
}

/// As many rewards as completions, or none.
fn rewards(row: &mut Fields, completions: usize) -> Result<Vec<f32>, DataError> {
    let Some(column) = row.first(&["rewards", "labels"]) else {
        return Ok(Vec::new());
    };
    let value = row.take(column).unwrap_or_default();
    let at = row.at(column);
    let Value::Array(values) = value else {
        return Err(at.found(&value, "a list with one number for each completion"));
    };
    if values.len() != completions {
        return Err(at.wrong(format!(
            "has {} values for {completions} completions; give one for each",
            values.len()
        )));
    }
    let read = |(index, value): (usize, &Value)| match column {
        "labels" => optional::label(&at.item(index), value),
        _ => optional::reward(&at.item(index), value),
    };
    values.iter().enumerate().map(read).collect()
}
