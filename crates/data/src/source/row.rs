//! A row as its file has it, and the errors that name a place in it.

use crate::{DataError, Place};
use serde_json::{Map, Value};
use std::sync::Arc;
use wmtp_base::text::shorten;

/// Longest row in bytes: what is read without finding a row's end is refused, so that a file without line
/// breaks does not fill the memory.
pub(super) const LONGEST_ROW: usize = 256 << 20;
/// Characters of a value that an error shows.
const SHOWN: usize = 40;

/// A row of any format.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it was read.
    pub place: Place,
    /// Its columns, in the file's order.
    pub values: Map<String, Value>,
    /// Columns of the file that no schema uses and that were not read.
    pub unread: Arc<[String]>,
}

/// Reads the rows of one file. After an error it ends.
pub trait Rows: Iterator<Item = Result<Row, DataError>> + Send {}

impl<T: Iterator<Item = Result<Row, DataError>> + Send> Rows for T {}

/// A part of a row: a column, or something inside it. An error names it as `messages[2].content`.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    place: &'a Place,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// A column, by its name in the file.
    pub fn column(place: &'a Place, name: &'a str) -> Self {
        Self {
            place,
            parent: None,
            step: Step::Name(name),
        }
    }

    /// The field `name` of the object here.
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At {
            place: self.place,
            parent: Some(self),
            step: Step::Name(name),
        }
    }

    /// The element `index` of the list here.
    pub fn item(&'a self, index: usize) -> At<'a> {
        At {
            place: self.place,
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An error at this place.
    pub fn wrong(&self, problem: impl Into<String>) -> DataError {
        DataError::Column {
            place: self.place.clone(),
            column: self.path(),
            problem: problem.into(),
        }
    }

    /// An error about a value of the wrong kind; `expected` says which kinds are right.
    pub fn found(&self, value: &Value, expected: &str) -> DataError {
        self.wrong(format!("found {}, give {expected}", described(value)))
    }

    fn path(&self) -> String {
        let step = match self.step {
            Step::Name(name) => name.to_owned(),
            Step::Index(index) => format!("[{index}]"),
        };
        match (self.parent.map(At::path), self.step) {
            (None, _) => step,
            (Some(parent), Step::Name(_)) => format!("{parent}.{step}"),
            (Some(parent), Step::Index(_)) => parent + &step,
        }
    }
}

/// Kind and shortened value: ``the number `3` ``.
pub(super) fn described(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "the truth value",
        Value::Number(_) => "the number",
        Value::String(_) => "the text",
        Value::Array(_) => "the list",
        Value::Object(_) => "the object",
    };
    let text = match value {
        Value::String(text) => text.replace('\n', "\\n"),
        Value::Array(items) if items.len() > SHOWN => format!("[{} items]", items.len()),
        other => other.to_string(),
    };
    format!("{kind} `{}`", shorten(&text, SHOWN))
}

/// Names in back quotes, the first few of them.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names
        .iter()
        .take(MOST)
        .map(|name| format!("`{}`", shorten(name, SHOWN)))
        .collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_names_file_row_path_and_value() {
        let place = Place {
            file: "a.jsonl".into(),
            row: 7,
        };
        let column = At::column(&place, "messages");
        let (item, value) = (column.item(2), json!(3));
        assert_eq!(
            item.field("content").found(&value, "a text").to_string(),
            "a.jsonl, row 7, column `messages[2].content`: found the number `3`, give a text"
        );
    }

    #[test]
    fn a_long_value_is_shortened() {
        assert_eq!(described(&json!("a\nb")), "the text `a\\nb`");
        assert_eq!(
            described(&json!("x".repeat(50))),
            format!("the text `{}...`", "x".repeat(40))
        );
        assert_eq!(described(&json!({"a": null})), "the object `{\"a\":null}`");
        assert_eq!(described(&json!(vec![0; 50])), "the list `[50 items]`");
        let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        assert_eq!(
            listed(names.iter().map(String::as_str)),
            "`0`, `1`, `2`, `3`, `4`, `5`, `6`, `7` and 2 more"
        );
    }
}
