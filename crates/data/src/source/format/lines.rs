//! JSON lines: one object a line. Holds one line.

use super::{DataFile, json_problem};
use crate::{
    DataError, Place,
    source::row::{LONGEST_ROW, Row, described},
};
use serde_json::Value;
use std::io::{BufRead, Read};

/// The rows of a file of JSON lines. A row's number is its line's; empty lines are passed over.
pub(super) struct JsonLines {
    file: DataFile,
    reader: Box<dyn BufRead + Send>,
    line: usize,
    buffer: Vec<u8>,
    done: bool,
}

impl JsonLines {
    pub fn new(file: DataFile, reader: Box<dyn BufRead + Send>) -> Self {
        Self {
            file,
            reader,
            line: 0,
            buffer: Vec::new(),
            done: false,
        }
    }

    /// The next line that is not empty.
    fn advance(&mut self) -> Result<Option<Row>, DataError> {
        loop {
            self.buffer.clear();
            let limit = LONGEST_ROW as u64 + 1;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
            if read.map_err(|error| self.file.damaged(&error, self.line))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let bytes = match self.line {
                1 => self.buffer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.buffer),
                _ => &self.buffer,
            };
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return self.row(bytes).map(Some);
            }
        }
    }

    fn row(&self, bytes: &[u8]) -> Result<Row, DataError> {
        let place = Place {
            file: self.file.shown.clone(),
            row: self.line,
        };
        let wrong = |problem: String| DataError::BadRow {
            place: place.clone(),
            problem,
        };
        if bytes.len() > LONGEST_ROW {
            return Err(wrong(format!(
                "the line is longer than {} MiB; write one object on each line",
                LONGEST_ROW >> 20
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            wrong(format!(
                "byte {} of the line is not UTF-8; save the file as UTF-8",
                error.valid_up_to() + 1
            ))
        })?;
        match serde_json::from_str(text.trim_end_matches(['\r', '\n'])) {
            Ok(Value::Object(values)) => Ok(Row {
                place,
                values,
                unread: [].into(),
            }),
            Ok(other) => Err(wrong(format!(
                "found {}; write one JSON object on each line",
                described(&other)
            ))),
            Err(error) => Err(wrong(format!(
                "invalid JSON at column {}: {}; write one object on each line",
                error.column(),
                json_problem(&error)
            ))),
        }
    }
}

impl Iterator for JsonLines {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.advance().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}
