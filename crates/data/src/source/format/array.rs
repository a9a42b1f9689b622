//! A JSON array of objects, read element by element. Holds one element.

use super::{DataFile, json_problem};
use crate::{
    DataError, Place,
    source::row::{LONGEST_ROW, Row, described},
};
use serde_json::Value;
use std::io::BufRead;

/// The rows of a JSON array. A row's number is that of its element, from 1.
pub(super) struct JsonArray {
    file: DataFile,
    reader: Box<dyn BufRead + Send>,
    /// Elements begun.
    row: usize,
    line: usize,
    column: usize,
    state: State,
    element: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the opening bracket.
    Start,
    /// After it.
    First,
    /// After a comma.
    Next,
    /// Inside of an element: how many brackets are open, and whether in a string, and there after a backslash.
    Inside { depth: usize, string: bool, escaped: bool },
    /// After the closing bracket.
    Closed,
    /// At the end, or after an error.
    Done,
}

/// What a byte means for the array.
enum Step {
    /// Nothing, or another byte of the element.
    On(State),
    /// The element is complete; what follows is this.
    Element(State),
    /// The byte may not stand here.
    Wrong(&'static str),
}

/// Follows the brackets and strings of an array by one byte.
fn step(state: State, byte: u8) -> Step {
    let space = byte.is_ascii_whitespace();
    let inside = |depth, string, escaped| Step::On(State::Inside { depth, string, escaped });
    match (state, byte) {
        (State::Start, b'[') => Step::On(State::First),
        (State::Start | State::First | State::Next | State::Closed, _) if space => Step::On(state),
        (State::Start, _) => Step::Wrong("something before the opening bracket"),
        (State::First, b']') => Step::On(State::Closed),
        (State::Next, b']') => Step::Wrong("a comma after the last element"),
        (State::First | State::Next, b',') => Step::Wrong("a comma without an element before it"),
        (State::First | State::Next, b'{' | b'[') => inside(1, false, false),
        (State::First | State::Next, b'"') => inside(0, true, false),
        (State::First | State::Next, _) => inside(0, false, false),
        (
            State::Inside {
                depth,
                string: true,
                escaped,
            },
            _,
        ) => match byte {
            _ if escaped => inside(depth, true, false),
            b'\\' => inside(depth, true, true),
            b'"' => inside(depth, false, false),
            _ => inside(depth, true, false),
        },
        (State::Inside { depth: 0, .. }, b',') => Step::Element(State::Next),
        (State::Inside { depth: 0, .. }, b']') => Step::Element(State::Closed),
        (State::Inside { depth, .. }, b'"') => inside(depth, true, false),
        (State::Inside { depth, .. }, b'{' | b'[') => inside(depth + 1, false, false),
        (State::Inside { depth, .. }, b'}' | b']') => inside(depth.saturating_sub(1), false, false),
        (State::Inside { depth, .. }, _) => inside(depth, false, false),
        (State::Closed | State::Done, _) => Step::Wrong("something after the closing bracket"),
    }
}

impl JsonArray {
    pub fn new(file: DataFile, reader: Box<dyn BufRead + Send>) -> Self {
        Self {
            file,
            reader,
            row: 0,
            line: 1,
            column: 0,
            state: State::Start,
            element: Vec::new(),
        }
    }

    fn wrong(&self, problem: String) -> DataError {
        DataError::BadRow {
            place: Place {
                file: self.file.shown.clone(),
                row: self.row.max(1),
            },
            problem,
        }
    }

    /// The next element.
    fn advance(&mut self) -> Result<Option<Row>, DataError> {
        self.element.clear();
        // Where the element begins.
        let mut start = (self.line, self.column);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.file.damaged(&error, self.row)),
            };
            if chunk.is_empty() {
                return match self.state {
                    State::Closed => Ok(None),
                    _ => {
                        Err(self.wrong("the file ends before the array's closing bracket; take a complete file".into()))
                    }
                };
            }
            let mut used = 0;
            let mut outcome = None;
            for &byte in chunk {
                used += 1;
                // A byte order mark at the start.
                if self.state == State::Start && [0xef, 0xbb, 0xbf].contains(&byte) {
                    continue;
                }
                (self.line, self.column) = match byte {
                    b'\n' => (self.line + 1, 0),
                    _ => (self.line, self.column + 1),
                };
                let before = self.state;
                match step(before, byte) {
                    Step::On(next) => {
                        self.state = next;
                        if let State::Inside { .. } = next {
                            if !matches!(before, State::Inside { .. }) {
                                self.row += 1;
                                start = (self.line, self.column);
                            }
                            self.element.push(byte);
                        }
                    }
                    Step::Element(next) => {
                        self.state = next;
                        outcome = Some(Ok(()));
                    }
                    Step::Wrong(what) => outcome = Some(Err(what)),
                }
                if outcome.is_some() {
                    break;
                }
            }
            self.reader.consume(used);
            match outcome {
                Some(Ok(())) => return self.parsed(start).map(Some),
                Some(Err(what)) => {
                    let (line, column) = (self.line, self.column);
                    return Err(self.wrong(format!(
                        "invalid JSON at line {line}, column {column}: {what}; write a list of objects"
                    )));
                }
                None if self.element.len() > LONGEST_ROW => {
                    return Err(self.wrong(format!(
                        "the element is longer than {} MiB; divide it",
                        LONGEST_ROW >> 20
                    )));
                }
                None => {}
            }
        }
    }

    fn parsed(&self, (line, column): (usize, usize)) -> Result<Row, DataError> {
        let text = std::str::from_utf8(&self.element).map_err(|_| {
            self.wrong(format!(
                "the element that begins on line {line} is not UTF-8; save the file as UTF-8"
            ))
        })?;
        match serde_json::from_str(text) {
            Ok(Value::Object(values)) => Ok(Row {
                place: Place {
                    file: self.file.shown.clone(),
                    row: self.row,
                },
                values,
                unread: [].into(),
            }),
            Ok(other) => Err(self.wrong(format!("found {}; write a list of objects", described(&other)))),
            Err(error) => {
                let column = match error.line() {
                    0 | 1 => column + error.column().saturating_sub(1),
                    _ => error.column(),
                };
                Err(self.wrong(format!(
                    "invalid JSON at line {}, column {column}: {}; correct it",
                    line + error.line().saturating_sub(1),
                    json_problem(&error)
                )))
            }
        }
    }
}

impl Iterator for JsonArray {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let row = self.advance().transpose();
        if !matches!(row, Some(Ok(_))) {
            self.state = State::Done;
        }
        row
    }
}
