//! The columns of a row under their canonical names.

use super::COLUMNS;
use crate::{
    DataError, Place,
    source::row::{At, Row, listed},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use wmtp_base::text::suggestion;

/// Columns that a row need not have even where `data.columns` maps them.
const OPTIONAL: [&str; 17] = [
    "tools",
    "functions",
    "system",
    "input",
    "history",
    "reward",
    "label",
    "rewards",
    "labels",
    "weight",
    "spans",
    "task_id",
    "tests",
    "test_setup",
    "entry_point",
    "language",
    "generated_tests",
];

/// The setting `data.columns`: canonical name to the file's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct Mapping(Arc<BTreeMap<String, String>>);

impl Mapping {
    /// Checks the canonical names.
    ///
    /// # Errors
    /// A name that no schema has; two names for one column.
    pub fn new(columns: &BTreeMap<String, String>) -> Result<Self, DataError> {
        let wrong = |problem: String| DataError::Setting {
            key: "data.columns",
            problem,
        };
        for (name, column) in columns {
            if !COLUMNS.contains(&name.as_str()) {
                let hint = suggestion(name, COLUMNS.into_iter());
                let hint = match hint.is_empty() {
                    true => "; write CANONICAL: COLUMN, such as `prompt: question`".into(),
                    false => hint,
                };
                return Err(wrong(format!("maps `{name}`, which is no column of any schema{hint}")));
            }
            if columns.iter().any(|(other, twice)| other != name && twice == column) {
                return Err(wrong(format!("maps the column `{column}` twice; keep one of the two")));
            }
        }
        Ok(Self(Arc::new(columns.clone())))
    }

    /// Whether a column of a file may be used.
    pub fn wants(&self, column: &str) -> bool {
        COLUMNS.contains(&column) || self.0.values().any(|mapped| mapped == column)
    }

    /// The file's name of a column.
    pub fn shown<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// The canonical name of a column of the file.
    pub fn canonical<'a>(&'a self, column: &'a str) -> &'a str {
        let mapped = self.0.iter().find(|(_, mapped)| mapped.as_str() == column);
        mapped.map_or(column, |(name, _)| name)
    }
}

/// A row's columns that are not null.
pub(super) struct Fields {
    pub place: Place,
    values: Map<String, Value>,
    mapping: Mapping,
    unread: Arc<[String]>,
}

impl Fields {
    /// Renames the mapped columns and drops those that are null.
    ///
    /// # Errors
    /// A mapped column that is absent. Optional ones have to be there in the `first` row only.
    pub fn of(row: Row, mapping: &Mapping, first: bool) -> Result<Self, DataError> {
        let Row {
            place,
            mut values,
            unread,
        } = row;
        let mut renamed = Vec::new();
        for (name, column) in mapping.0.iter() {
            // Null is absent to a schema, but the column is there.
            match values.get_mut(column) {
                Some(value) => renamed.push((name.clone(), value.take())),
                None if OPTIONAL.contains(&name.as_str()) && !first => {}
                None => {
                    let known = values.keys().map(String::as_str);
                    let known: Vec<&str> = known.chain(unread.iter().map(String::as_str)).collect();
                    let hint = suggestion(column, known.iter().copied());
                    let hint = match hint.is_empty() {
                        true => format!("; the row has {}", listed(known.into_iter())),
                        false => hint,
                    };
                    return Err(DataError::BadRow {
                        place,
                        problem: format!("`data.columns` maps `{name}` to `{column}`, which is absent{hint}"),
                    });
                }
            }
        }
        values.extend(renamed);
        values.retain(|_, value| !value.is_null());
        Ok(Self {
            place,
            values,
            mapping: mapping.clone(),
            unread,
        })
    }

    /// Whether the column is there.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether the file has the column, but it was not read.
    pub fn is_unread(&self, name: &str) -> bool {
        self.unread.iter().any(|column| column == name)
    }

    /// Whether all of them are there.
    pub fn have(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.has(name))
    }

    /// The first of these columns that is there.
    pub fn first<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().find(|name| self.has(name)).copied()
    }

    /// The value of a column, which stays.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The value of a column, which is taken away.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values
            .get_mut(name)
            .map(Value::take)
            .filter(|value| !value.is_null())
    }

    /// The column's place, for errors.
    pub fn at<'a>(&'a self, name: &'a str) -> At<'a> {
        At::column(&self.place, self.mapping.shown(name))
    }

    /// The text of a column, if it is there.
    ///
    /// # Errors
    /// Something that is no text.
    pub fn text_if_there(&mut self, name: &str) -> Result<Option<String>, DataError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.at(name).found(&other, "a text")),
        }
    }

    /// The text of a column.
    ///
    /// # Errors
    /// An absent column, or something that is no text.
    pub fn text(&mut self, name: &str) -> Result<String, DataError> {
        self.text_if_there(name)?
            .ok_or_else(|| self.at(name).wrong("is absent; give a text"))
    }

    /// The text of a column of what is trained.
    ///
    /// # Errors
    /// An absent column, something that is no text, or nothing but white space.
    pub fn trained_text(&mut self, name: &str) -> Result<String, DataError> {
        let text = self.text(name)?;
        not_blank(&self.at(name), text)
    }

    /// An error of the row as a whole.
    pub fn wrong(&self, problem: impl Into<String>) -> DataError {
        DataError::BadRow {
            place: self.place.clone(),
            problem: problem.into(),
        }
    }

    /// The row's columns in the file's names.
    fn found(&self) -> Vec<&str> {
        let own = self.values.keys().map(|name| self.mapping.shown(name));
        own.chain(self.unread.iter().map(String::as_str)).collect()
    }

    /// The error of a row that asks nothing.
    pub fn unasked(&self) -> DataError {
        let names = listed(self.found().into_iter());
        self.wrong(format!(
            "no prompt is in the columns {names}; give `prompt`, `messages` or `instruction`, or map them by `data.columns`"
        ))
    }

    /// The error of a row that fits no schema.
    pub fn unfit(&self) -> DataError {
        let found = self.found();
        if found.is_empty() {
            return self.wrong("has no column with a value; give `messages`, `prompt` and `completion`, or `text`");
        }
        let names = listed(found.into_iter());
        self.wrong(format!(
            "no schema has the columns {names}; map them by `data.columns`, such as `{{prompt: question, completion: answer}}`"
        ))
    }
}

/// A text that is trained.
///
/// # Errors
/// Nothing but white space.
pub(super) fn not_blank(at: &At, text: String) -> Result<String, DataError> {
    match text.trim().is_empty() {
        true => Err(at.wrong("is empty, so nothing is trained; remove the row or fill it")),
        false => Ok(text),
    }
}

/// A finite number.
pub(super) fn finite(at: &At, value: &Value, expected: &str) -> Result<f32, DataError> {
    let number = value
        .as_f64()
        .map(|number| number as f32)
        .filter(|number| number.is_finite());
    number.ok_or_else(|| at.found(value, expected))
}

/// A weight: finite, 0 or more.
///
/// # Errors
/// Something else.
pub(super) fn weight(at: &At, value: &Value) -> Result<f32, DataError> {
    const EXPECTED: &str = "a finite number of 0 or more";
    let number = finite(at, value, EXPECTED)?;
    match number >= 0.0 {
        true => Ok(number),
        false => Err(at.found(value, EXPECTED)),
    }
}
