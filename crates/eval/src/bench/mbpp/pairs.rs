//! Solutions of MBPP problems with labels that were found by running them.
//!
//! The critic learns from `mbpp_matched.jsonl`: pairs of a right and a wrong program that differ in one edit.
//! `mbpp_pairs.jsonl` is the ground truth for verdicts; its renamed programs are all right, so a critic that
//! learned from it could learn names instead ([`wmtp_data::leak`]).

use super::data::{self, Problem};
use crate::bench::known::Shipped;
use serde::Deserialize;
use std::{io::ErrorKind::NotFound, path::Path};
use wmtp_data::{DataError, Example, PromptStyle, Tokenizer, labels::LabelledSource, rows};

/// Name of the file with labelled solutions in a directory.
pub const PAIRS_FILE: &str = "mbpp_pairs.jsonl";

const PAIRS: Shipped = Shipped {
    file: PAIRS_FILE,
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mbpp/mbpp_pairs.jsonl")),
    ..data::PROBLEMS
};

/// A program for a task and whether it passed the task's tests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Solution {
    /// The task.
    pub task_id: u32,
    /// The program. Line ends are LF.
    pub code: String,
    /// It passed all tests.
    pub is_correct: bool,
    /// How it was made: `reference`, `rename`, `off_by_one`, …
    pub mutation: String,
}

/// Reads the labelled solutions of `source` (`builtin:mbpp` or a directory), in the file's order.
///
/// # Errors
/// As [`data::load`], but for completeness: a problem without solutions is none.
pub fn load(source: &str) -> Result<Vec<Solution>, DataError> {
    let (file, text) = PAIRS.read(source)?;
    let mut solutions = Vec::new();
    for (line, mut solution) in rows::<Solution>(&file, &text)? {
        let wrong = |problem| {
            Err(DataError::Row {
                file: file.clone(),
                line,
                problem,
            })
        };
        if !data::within(solution.task_id, data::TASKS) {
            return wrong(format!(
                "task_id {} is not one of MBPP's ids 1 to 974",
                solution.task_id
            ));
        }
        if solution.code.trim().is_empty() {
            return wrong(format!(
                "field `code` of a solution of task {} is empty",
                solution.task_id
            ));
        }
        data::unix_line_ends(&mut solution.code);
        solutions.push(solution);
    }
    Ok(solutions)
}

/// The same; none where the file is not there.
///
/// # Errors
/// As [`load`].
pub fn load_if_present(source: &str) -> Result<Vec<Solution>, DataError> {
    if_present(load(source))
}

fn if_present(solutions: Result<Vec<Solution>, DataError>) -> Result<Vec<Solution>, DataError> {
    match solutions {
        Err(DataError::Read { source, .. }) if source.kind() == NotFound => Ok(Vec::new()),
        solutions => solutions,
    }
}

/// What the critic learns from: the matched pairs of `source`, pair after pair with the right program first. A
/// directory without `mbpp_matched.jsonl` (or `.gz`) gives the solutions of its `mbpp_pairs.jsonl`.
///
/// # Errors
/// As [`load`].
pub fn load_labelled(source: &str) -> Result<Vec<Solution>, DataError> {
    let matched = LabelledSource::MbppMatched;
    let file = Path::new(source).join(matched.file());
    let pairs = match source.strip_prefix("builtin:") {
        Some(_) => {
            // Another built-in name is refused.
            PAIRS.read(source)?;
            matched.pairs()?
        }
        None if file.is_file() || file.with_added_extension("gz").is_file() => matched.read(Path::new(source))?,
        None => return load(source),
    };
    let solutions = pairs.iter().flat_map(|pair| {
        let task_id = pair.mbpp_task();
        pair.labelled().into_iter().filter_map(move |program| {
            Some(Solution {
                task_id: task_id?,
                code: program.code,
                is_correct: program.correct,
                mutation: if program.correct { "right" } else { "wrong" }.into(),
            })
        })
    });
    Ok(solutions.collect())
}

/// The same as [`load_labelled`]; none where there is no file of labels.
///
/// # Errors
/// As [`load`].
pub fn load_labelled_if_present(source: &str) -> Result<Vec<Solution>, DataError> {
    if_present(load_labelled(source))
}

/// Examples with rewards 1 and 0 of the solutions to tasks for which `wanted` holds, numbered
/// from 0. Names are `mbpp/601/0-reference`: task, number within the task, kind.
///
/// # Errors
/// A solution of a task that is not among `problems`; as [`data::prompt`].
pub fn examples(
    solutions: &[Solution],
    problems: &[Problem],
    wanted: impl Fn(u32) -> bool,
    style: PromptStyle,
    tokenizer: &Tokenizer,
) -> Result<Vec<Example>, DataError> {
    let mut examples: Vec<Example> = Vec::new();
    let mut number = 0;
    let mut last = None;
    for solution in solutions.iter().filter(|s| wanted(s.task_id)) {
        let id = solution.task_id;
        number = if last == Some(id) { number + 1 } else { 0 };
        last = Some(id);
        let problem = problems
            .iter()
            .find(|p| p.task_id == id)
            .ok_or_else(|| DataError::MissingTasks {
                file: data::PROBLEMS_FILE.into(),
                missing: id.to_string(),
            })?;
        examples.push(Example {
            sample: examples.len(),
            name: format!("mbpp/{id}/{number}-{}", solution.mutation),
            problem: id,
            prompt: data::prompt(problems, problem, style, tokenizer)?,
            response: data::response(&solution.code),
            task: data::content(problem),
            code: solution.code.clone(),
            reward: Some(if solution.is_correct { 1.0 } else { 0.0 }),
        });
    }
    Ok(examples)
}
