//! Parquet, row group by row group, in batches of rows. Holds a page of every column and a batch.
//!
//! Only the columns that a schema may use are read. Nested lists and structs become JSON (`assemble`).
//! Compression: none, Snappy, gzip, LZ4 and zstd (zstd by the C library).

mod assemble;
mod fault;
mod leaf;
mod pages;

use super::{DataFile, wrong};
use crate::{DataError, Place, source::row::Row};
use assemble::Node;
use fault::{Fault, guarded};
use leaf::Leaf;
use pages::Pages;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Map;
use std::{fs::File, path::Path, sync::Arc};

/// Rows that are decoded together.
const BATCH: usize = 32;

/// The rows of a Parquet file. A row's number counts from 1 across row groups.
pub(in crate::source) struct ParquetRows {
    file: DataFile,
    reader: SerializedFileReader<Pages>,
    /// The columns read, with how their values are put together.
    columns: Vec<(String, Node)>,
    /// The primitive columns below them.
    leaves: Vec<Leaf>,
    unread: Arc<[String]>,
    /// Row groups begun.
    group: usize,
    /// Rows of the group that are not in a batch yet.
    left: usize,
    /// Rows of the batch that are not given yet.
    batch: usize,
    row: usize,
    done: bool,
}

/// Opens the file and reads its footer.
fn open(path: &Path) -> Result<SerializedFileReader<Pages>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    guarded(|| Ok(SerializedFileReader::new(Pages(file))?)).map_err(|fault| match fault {
        Fault::Damaged(problem) => damaged(path, &problem, None),
        Fault::NotText(column) => wrong(
            path,
            format!("has bytes that are not UTF-8 in `{column}`; save it as text"),
        ),
    })
}

/// The error of a file that is not what its format says.
fn damaged(path: &Path, problem: &str, row: Option<usize>) -> DataError {
    let place = row.map_or_else(String::new, |row| format!(" at row {row}"));
    let problem = problem.lines().next().unwrap_or_default();
    let problem = problem.replacen("Parquet error: ", "", 1).replacen("External: ", "", 1);
    wrong(
        path,
        format!("is damaged or incomplete Parquet{place} ({problem}); take a complete file"),
    )
}

/// Rows of a Parquet file, from its footer.
///
/// # Errors
/// A file that cannot be opened or whose footer is damaged.
pub(in crate::source) fn count(path: &Path) -> Result<usize, DataError> {
    let rows = open(path)?.metadata().file_metadata().num_rows();
    Ok(usize::try_from(rows).unwrap_or(0))
}

impl ParquetRows {
    /// Opens a file, of which the columns that `wanted` accepts are read.
    ///
    /// # Errors
    /// A file that cannot be opened, a damaged footer, a wanted column of a type that is not read.
    pub fn open(file: &DataFile, wanted: &dyn Fn(&str) -> bool) -> Result<Self, DataError> {
        let reader = open(&file.path)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let (mut columns, mut leaves, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_leaf = 0;
        for field in schema.root_schema().get_fields() {
            let before = next_leaf;
            next_leaf += assemble::width(field);
            if !wanted(field.name()) {
                unread.push(field.name().to_owned());
                continue;
            }
            let unusable = |problem: String| wrong(&file.path, format!("column `{}` {problem}", field.name()));
            let first = leaves.len();
            for index in before..next_leaf {
                if index >= schema.num_columns() {
                    return Err(damaged(&file.path, "the schema is incomplete", None));
                }
                leaves.push(Leaf::new(index, schema.column(index)).map_err(unusable)?);
            }
            let node = Node::of(field, first).map_err(unusable)?;
            columns.push((field.name().to_owned(), node));
        }
        Ok(Self {
            file: file.clone(),
            reader,
            columns,
            leaves,
            unread: unread.into(),
            group: 0,
            left: 0,
            batch: 0,
            row: 0,
            done: false,
        })
    }

    /// Begins the next row group; false after the last one.
    fn next_group(&mut self) -> Result<bool, Fault> {
        if self.group >= self.reader.num_row_groups() {
            return Ok(false);
        }
        let group = self.reader.get_row_group(self.group)?;
        self.group += 1;
        self.left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        for leaf in &mut self.leaves {
            let entries = group.metadata().column(leaf.index()).num_values();
            leaf.begin(group.get_column_reader(leaf.index())?, entries);
        }
        Ok(true)
    }

    /// Decodes the next batch; false at the end.
    fn next_batch(&mut self) -> Result<bool, Fault> {
        while self.left == 0 {
            if !guarded(|| self.next_group())? {
                return Ok(false);
            }
        }
        let rows = self.left.min(BATCH);
        for leaf in &mut self.leaves {
            leaf.fill(rows)?;
        }
        self.left -= rows;
        self.batch = rows;
        Ok(true)
    }

    fn advance(&mut self) -> Result<Option<Row>, Fault> {
        if self.batch == 0 && !self.next_batch()? {
            return Ok(None);
        }
        self.batch -= 1;
        self.row += 1;
        let mut values = Map::new();
        for (name, node) in &self.columns {
            values.insert(name.clone(), node.assemble(&mut self.leaves)?);
        }
        let place = Place {
            file: self.file.shown.clone(),
            row: self.row,
        };
        Ok(Some(Row {
            place,
            values,
            unread: self.unread.clone(),
        }))
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.advance().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        let at = self.row + 1;
        row.map(|row| {
            row.map_err(|fault| match fault {
                Fault::Damaged(problem) => damaged(&self.file.path, &problem, Some(at)),
                Fault::NotText(column) => wrong(
                    &self.file.path,
                    format!(
                        "has bytes that are not UTF-8 in column `{column}`, at row {at} or soon after; save it as text"
                    ),
                ),
            })
        })
    }
}
