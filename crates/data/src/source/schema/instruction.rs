//! `instruction`, `input` and `output`, in the style of Alpaca (Taori et al. 2023), with `system` and
//! `history` where given.

use super::{Schema, fields::Fields, optional};
use crate::{Body, DataError, Instruction, Record};
use serde_json::Value;

/// An instruction and its answer.
pub(super) const SCHEMA: Schema = Schema {
    name: "instruction",
    fits: |row| row.have(&["instruction", "output"]),
    read,
};

fn read(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let output = row.trained_text("output")?;
    let body = Body::Instruction(Instruction {
        output,
        ..question(row)?
    });
    optional::record(row, schema, vec![optional::Part::new(body)])
}

/// An instruction without its answer.
///
/// # Errors
/// Columns that are no text; a history that is no list of pairs.
pub(super) fn question(row: &mut Fields) -> Result<Instruction, DataError> {
    Ok(Instruction {
        system: row.text_if_there("system")?.filter(|text| !text.trim().is_empty()),
        history: history(row)?,
        instruction: row.text("instruction")?,
        input: row.text_if_there("input")?.unwrap_or_default(),
        output: String::new(),
    })
}

/// Earlier turns, each a pair of texts.
fn history(row: &mut Fields) -> Result<Vec<(String, String)>, DataError> {
    let Some(value) = row.take("history") else {
        return Ok(Vec::new());
    };
    let at = row.at("history");
    let Value::Array(turns) = value else {
        return Err(at.found(&value, "a list of pairs of instruction and answer"));
    };
    let turn = |(index, turn): (usize, Value)| match turn.as_array().map(Vec::as_slice) {
        Some([Value::String(instruction), Value::String(answer)]) => Ok((instruction.clone(), answer.clone())),
        _ => Err(at.item(index).found(&turn, "a pair of texts: instruction and answer")),
    };
    turns.into_iter().enumerate().map(turn).collect()
}
