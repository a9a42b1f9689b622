//! Rows with all their columns: what reads a data file and writes it again with more columns.

use super::{Reader, Row, schema, schema::Mapping};
use crate::{DataError, Place, Question, Record};
use serde_json::{Map, Value};

/// A row that is to be written again.
#[derive(Clone, Debug)]
pub struct WholeRow {
    row: Row,
    first: bool,
    mapping: Mapping,
}

impl WholeRow {
    /// Where it was read.
    pub fn place(&self) -> &Place {
        &self.row.place
    }

    /// Its records, as [`super::Source::records`] gives them.
    ///
    /// # Errors
    /// As for [`super::Source::records`].
    pub fn records(&self) -> Result<Vec<Record>, DataError> {
        schema::records(self.row.clone(), &self.mapping, self.first)
    }

    /// What it asks; an answer need not be there.
    ///
    /// # Errors
    /// Columns in which nothing is asked, a value that its column cannot have.
    pub fn question(&self) -> Result<Question, DataError> {
        schema::question(self.row.clone(), &self.mapping, self.first)
    }

    /// Its columns, with `removed` taken away and `added` at the end: canonical names, which stand for those that
    /// `data.columns` maps them to. What is added takes the place of what is there.
    pub fn with(mut self, removed: &[&str], added: Vec<(&str, Value)>) -> Map<String, Value> {
        let shown = |name: &str| self.mapping.shown(name).to_owned();
        for name in removed.iter().copied().chain(added.iter().map(|(name, _)| *name)) {
            self.row.values.shift_remove(&shown(name));
        }
        for (name, value) in added {
            self.row.values.insert(shown(name), value);
        }
        self.row.values
    }

    /// Its columns other than those that questions, answers and labels are read from.
    pub fn other_columns(mut self) -> Map<String, Value> {
        let mapping = &self.mapping;
        self.row
            .values
            .retain(|column, _| !schema::is_of_question(mapping.canonical(column)));
        self.row.values
    }
}

/// The rows of a source with all their columns.
pub struct WholeRows {
    rows: Reader,
    done: bool,
}

impl WholeRows {
    pub(super) fn new(rows: Reader) -> Self {
        Self { rows, done: false }
    }
}

impl Iterator for WholeRows {
    type Item = Result<WholeRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.rows.next().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        let mapping = self.rows.mapping.clone();
        row.map(|row| row.map(|(row, first)| WholeRow { row, first, mapping }))
    }
}
