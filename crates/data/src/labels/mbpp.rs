//! `mbpp_matched.jsonl`: an MBPP solution and a mutant of it that fails the task's tests.
//!
//! Each mutant is there as it was made and, in a second pair, with the same names replaced on both sides, so
//! that names say nothing about the label.

use super::{Pair, edit, programs};
use crate::{DataConfig, DataError, Place, rows};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct Row {
    task_id: u32,
    correct: String,
    incorrect: String,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Pair>, DataError> {
    let name: Arc<str> = file.into();
    let (first, last) = DataConfig::MBPP_TASKS;
    rows::<Row>(file, text)?
        .into_iter()
        .zip(0..)
        .map(|((line, row), number)| {
            let id = row.task_id;
            if !(first..=last).contains(&id) {
                return Err(DataError::Row {
                    file: file.to_owned(),
                    line,
                    problem: format!("task_id `{id}` is not one of MBPP's ids {first} to {last}"),
                });
            }
            let (correct, incorrect) = programs(file, line, &row.correct, &row.incorrect)?;
            Ok(Pair {
                place: Place {
                    file: name.clone(),
                    row: line,
                },
                problem: format!("Mbpp/{id}"),
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

impl Pair {
    /// The task's number, if this is a pair of MBPP: 601 of `Mbpp/601`.
    pub fn mbpp_task(&self) -> Option<u32> {
        self.problem.strip_prefix("Mbpp/")?.parse().ok()
    }
}
