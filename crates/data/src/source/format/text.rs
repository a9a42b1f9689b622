//! Plain text: a file is a row with the column `text`. Holds one piece.
//!
//! A file longer than a piece is several rows, cut after a line. A byte order mark at the start is dropped,
//! and CR LF becomes LF.

use super::DataFile;
use crate::{DataError, Place, source::row::Row};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};

/// Most bytes of a piece. While it is tokenised, a text takes about 270 times its size in memory.
const PIECE: usize = 256 << 10;

/// The pieces of a text file.
pub(super) struct TextRows {
    file: DataFile,
    reader: Box<dyn BufRead + Send>,
    row: usize,
    /// Bytes read and not yet given.
    rest: Vec<u8>,
    done: bool,
}

impl TextRows {
    pub fn new(file: DataFile, reader: Box<dyn BufRead + Send>) -> Self {
        Self {
            file,
            reader,
            row: 0,
            rest: Vec::new(),
            done: false,
        }
    }

    fn advance(&mut self) -> Result<Option<Row>, DataError> {
        loop {
            let missing = PIECE.saturating_sub(self.rest.len());
            let read = self.reader.by_ref().take(missing as u64).read_to_end(&mut self.rest);
            let read = read.map_err(|error| self.file.damaged(&error, self.row))?;
            let end = match read {
                _ if read < missing => self.rest.len(),
                _ => cut(&self.rest),
            };
            let after = self.rest.split_off(end);
            let mut piece = std::mem::replace(&mut self.rest, after);
            if piece.is_empty() {
                return Ok(None);
            }
            if self.row == 0 && piece.starts_with("\u{feff}".as_bytes()) {
                piece.drain(..3);
            }
            if !piece.iter().all(u8::is_ascii_whitespace) {
                return self.row(piece);
            }
        }
    }

    fn row(&mut self, piece: Vec<u8>) -> Result<Option<Row>, DataError> {
        self.row += 1;
        let place = Place {
            file: self.file.shown.clone(),
            row: self.row,
        };
        let text = match String::from_utf8(piece) {
            Ok(text) if self.file.lenient && text.contains('\0') => return Ok(None),
            Ok(text) => text.replace("\r\n", "\n"),
            Err(_) if self.file.lenient => return Ok(None),
            Err(error) => {
                return Err(DataError::BadRow {
                    place,
                    problem: format!(
                        "byte {} of the text is not UTF-8; save the file as UTF-8",
                        error.utf8_error().valid_up_to() + 1
                    ),
                });
            }
        };
        Ok(Some(Row {
            place,
            values: Map::from_iter([("text".to_owned(), Value::String(text))]),
            unread: [].into(),
        }))
    }
}

/// Where a full piece ends: after its last line, or else before an incomplete character.
fn cut(piece: &[u8]) -> usize {
    match piece.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => newline + 1,
        None => {
            let started = piece.iter().rposition(|byte| byte & 0xc0 != 0x80);
            started.filter(|start| *start > 0).unwrap_or(piece.len())
        }
    }
}

impl Iterator for TextRows {
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
