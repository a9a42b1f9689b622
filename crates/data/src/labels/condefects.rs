//! ConDefects (Wu et al. 2023, "ConDefects: A New Dataset to Address the Data Leakage Concern for LLM-based
//! Fault Localization and Program Repair"): faulty AtCoder submissions and their repaired versions, both written
//! by people. Code alone: no descriptions, no tests; the labels are AtCoder's.

use super::{Pair, edit, programs};
use crate::{Body, DataError, Place, rows};
use serde::Deserialize;
use std::sync::Arc;

/// The prompt of every program: without one, nothing would predict a response's first token. It names no task:
/// a model may have seen AtCoder's tasks by name, and a critic should judge the program that it is shown.
pub const PROMPT: &str = "# A Python program for a task of an AtCoder contest\n";

#[derive(Deserialize)]
struct Row {
    task: String,
    correct: String,
    incorrect: String,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Pair>, DataError> {
    let name: Arc<str> = file.into();
    rows::<Row>(file, text)?
        .into_iter()
        .zip(0..)
        .map(|((line, row), number)| {
            if row.task.trim().is_empty() {
                return Err(DataError::Row {
                    file: file.to_owned(),
                    line,
                    problem: "field `task` is empty; give the task's name, such as `abc221_g`".into(),
                });
            }
            let (correct, incorrect) = programs(file, line, &row.correct, &row.incorrect)?;
            Ok(Pair {
                place: Place {
                    file: name.clone(),
                    row: line,
                },
                problem: row.task,
                number,
                edit: Some(edit(&correct, &incorrect)),
                correct,
                incorrect,
                language: "python".into(),
                difficulty: None,
            })
        })
        .collect()
}

/// A program of ConDefects as a text to train on: [`PROMPT`], then the program.
pub(super) fn body(code: &str) -> Body {
    Body::Completion {
        prompt: PROMPT.into(),
        completion: code.to_owned(),
    }
}

impl Pair {
    /// The pair as a row with [`PROMPT`] before both programs.
    pub fn code_alone(&self) -> crate::Record {
        self.record(body)
    }
}
