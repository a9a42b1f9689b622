//! Schemas of rows, recognised by their columns in a fixed order: each one a file, the order is the table
//! [`SCHEMAS`].
//!
//! A column whose value is null is absent. Columns that no schema uses are ignored.

mod benchmark;
mod candidates;
mod completion;
mod conversation;
mod fields;
mod instruction;
mod message;
mod optional;
mod preference;
mod question;
mod segments;
mod text;

pub(super) use fields::Mapping;

use super::row::Row;
use crate::{DataError, Question, Record};
use fields::Fields;

/// A schema: how it is recognised and read.
struct Schema {
    /// Its name in records.
    name: &'static str,
    /// Whether a row has its columns.
    fits: fn(&Fields) -> bool,
    /// The records of a row that has its columns: usually one.
    read: fn(&mut Fields, &'static str) -> Result<Vec<Record>, DataError>,
}

/// All schemas. The first that fits is taken, so a schema stands before those whose columns it contains.
const SCHEMAS: [Schema; 13] = [
    preference::MESSAGES,
    conversation::LABELLED,
    conversation::PLAIN,
    preference::CONVERSATIONS,
    completion::SCHEMA,
    preference::PROMPT,
    candidates::SCHEMA,
    instruction::SCHEMA,
    benchmark::MBPP,
    benchmark::HUMANEVAL,
    benchmark::CONTEST,
    text::SCHEMA,
    segments::SCHEMA,
];

/// Columns that schemas read. Of Parquet, the others stay on the disk.
pub(super) const COLUMNS: [&str; 42] = [
    "messages",
    "conversations",
    "tools",
    "functions",
    "system",
    "chosen",
    "rejected",
    "chosen_messages",
    "rejected_messages",
    "prompt",
    "completion",
    "completions",
    "rewards",
    "labels",
    "instruction",
    "input",
    "output",
    "history",
    "text",
    "segments",
    "reward",
    "label",
    "weight",
    "spans",
    "task_id",
    "tests",
    "test_setup",
    "language",
    // MBPP
    "code",
    "test_list",
    "test_setup_code",
    "test_imports",
    // HumanEval
    "canonical_solution",
    "test",
    "entry_point",
    // CodeContests
    "name",
    "description",
    "public_tests",
    "private_tests",
    "generated_tests",
    "solutions",
    "incorrect_solutions",
];

/// The records of a row.
///
/// # Errors
/// Columns that fit no schema, a mapped column that is absent, a value that its column cannot have.
pub(super) fn records(row: Row, mapping: &Mapping, first: bool) -> Result<Vec<Record>, DataError> {
    let mut fields = Fields::of(row, mapping, first)?;
    match SCHEMAS.iter().find(|schema| (schema.fits)(&fields)) {
        Some(schema) => (schema.read)(&mut fields, schema.name),
        None => Err(fields.unfit()),
    }
}

/// What a row asks.
///
/// # Errors
/// Columns in which nothing is asked, a mapped column that is absent, a value that its column cannot have.
pub(super) fn question(row: Row, mapping: &Mapping, first: bool) -> Result<Question, DataError> {
    question::question(&mut Fields::of(row, mapping, first)?)
}

/// Whether questions, answers and labels are read from this column.
pub(super) fn is_of_question(name: &str) -> bool {
    question::USED.contains(&name)
}

#[cfg(test)]
mod tests;
