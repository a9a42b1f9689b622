//! Labelled programs: right and wrong solutions of a problem, from which a critic learns.
//!
//! A label must not follow from anything but correctness. Every source here is therefore a list of pairs: one
//! right and one wrong program for the same problem, near each other in length. Module [`crate::leak`] measures
//! what is left. How each source was made: `docs/labels.md`.

mod condefects;
pub mod contest;
mod mbpp;
mod shipped;

pub use condefects::PROMPT as CONDEFECTS_PROMPT;
pub use shipped::LabelledSource;

use crate::{Body, DataError, Place, Record, Sample};
use serde::Serialize;
use std::ops::Range;

/// A program and whether it solves its problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Labelled {
    /// Name of the problem, unique within a source: `Mbpp/601`, `abc221_g`, `846_E. Chemistry in Berland`.
    pub problem: String,
    /// Programs with the same number belong together: a right one and a wrong one.
    pub pair: Option<u32>,
    /// The program. Line ends are LF.
    pub code: String,
    /// It solves the problem.
    pub correct: bool,
    /// Programming language in lower case.
    pub language: String,
    /// Of a wrong program: the characters (Unicode scalar values) that differ from the right one of its pair,
    /// without common prefix and suffix. Empty where something was deleted.
    pub edit: Option<Range<usize>>,
    /// The source's own scale of difficulty, if it has one.
    pub difficulty: Option<u32>,
}

/// A right and a wrong program for one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The row that it was read from.
    pub place: Place,
    /// As in [`Labelled`].
    pub problem: String,
    /// Number within its source, from 0.
    pub number: u32,
    /// The right program. Line ends are LF.
    pub correct: String,
    /// The wrong one. Line ends are LF.
    pub incorrect: String,
    /// Programming language in lower case.
    pub language: String,
    /// Characters of `incorrect` that differ; None where the two were not made from each other.
    pub edit: Option<Range<usize>>,
    /// As in [`Labelled`].
    pub difficulty: Option<u32>,
}

impl Pair {
    /// The two programs, the right one first.
    pub fn labelled(&self) -> [Labelled; 2] {
        let one = |code: &str, correct: bool| Labelled {
            problem: self.problem.clone(),
            pair: Some(self.number),
            code: code.to_owned(),
            correct,
            language: self.language.clone(),
            edit: if correct { None } else { self.edit.clone() },
            difficulty: self.difficulty,
        };
        [one(&self.correct, true), one(&self.incorrect, false)]
    }

    /// The pair as a row with two samples of rewards 1 and 0, the right one first. `body` makes a program into
    /// the text to train on.
    pub fn record(&self, body: impl Fn(&str) -> Body) -> Record {
        let sample = |code: &str, reward: f32| Sample {
            reward: Some(reward),
            ..Sample::new(body(code))
        };
        Record {
            place: self.place.clone(),
            schema: "labelled-pair",
            task_id: Some(self.problem.clone()),
            samples: vec![sample(&self.correct, 1.0), sample(&self.incorrect, 0.0)],
            tests: None,
            language: Some(self.language.clone()),
        }
    }
}

/// All programs of `pairs`, in order, the right one of each pair first.
pub fn labelled(pairs: &[Pair]) -> Vec<Labelled> {
    pairs.iter().flat_map(Pair::labelled).collect()
}

/// The characters of `edited` that differ from `original`: without the common prefix, then without the common
/// suffix of what is left.
pub fn edit(original: &str, edited: &str) -> Range<usize> {
    let start = original.chars().zip(edited.chars()).take_while(|(a, b)| a == b).count();
    let left = |text: &str| text.chars().count() - start;
    let suffix = original.chars().rev().zip(edited.chars().rev());
    let limit = left(original).min(left(edited));
    let suffix = suffix.take(limit).take_while(|(a, b)| a == b).count();
    start..start + left(edited) - suffix
}

/// CRLF becomes LF. A text that ends in the first half of a CRLF (four programs of MBPP do) loses it as well:
/// a line end after it would make it whole.
pub fn unix_line_ends(text: &str) -> String {
    let mut unix = text.replace("\r\n", "\n");
    if unix.ends_with('\r') {
        unix.pop();
    }
    unix
}

/// Checks the two programs of a row and brings their line ends to LF.
fn programs(file: &str, line: usize, correct: &str, incorrect: &str) -> Result<(String, String), DataError> {
    let wrong = |problem: &str| DataError::Row {
        file: file.to_owned(),
        line,
        problem: problem.to_owned(),
    };
    let (correct, incorrect) = (unix_line_ends(correct), unix_line_ends(incorrect));
    if correct.trim().is_empty() || incorrect.trim().is_empty() {
        return Err(wrong(
            "`correct` or `incorrect` is empty; give both programs or leave the row out",
        ));
    }
    if correct == incorrect {
        return Err(wrong(
            "`correct` and `incorrect` are the same program; leave the row out",
        ));
    }
    Ok((correct, incorrect))
}
