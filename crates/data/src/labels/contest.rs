//! CodeContests (Li et al. 2022, arXiv 2203.07814): DeepMind's fields, one problem a row, with tests and with
//! correct and incorrect solutions in several languages. The benchmark reads the same rows.

use super::{Pair, edit, unix_line_ends};
use crate::{Body, DataError, Place, Record, Sample, Tests, rows};
use serde::Deserialize;
use std::{ops::RangeInclusive, sync::Arc};

/// Python 3 in CodeContests' enumeration of languages.
pub const PYTHON3: u32 = 3;

/// Inputs and the outputs that belong to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InputOutput {
    /// Standard input of each test.
    pub input: Vec<String>,
    /// Expected standard output of each test.
    pub output: Vec<String>,
}

/// Programs with their languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Solutions {
    /// CodeContests' enumeration: 1 Python 2, 2 C++, 3 Python 3, 4 Java.
    pub language: Vec<u32>,
    /// Sources. Line ends are LF.
    pub solution: Vec<String>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// Line of the file that it was read from.
    #[serde(skip)]
    pub line: usize,
    /// `1277_E. Two Fairs`.
    pub name: String,
    /// The statement, with its examples.
    pub description: String,
    /// CodeContests' enumeration: 0 unknown, 1 to 5 easy to hardest, 6 external, 7 to 28 Codeforces' A to V.
    #[serde(default)]
    pub difficulty: u32,
    /// Tests shown in the statement.
    #[serde(default)]
    pub public_tests: InputOutput,
    /// Hidden tests.
    #[serde(default)]
    pub private_tests: InputOutput,
    /// Tests made by mutation.
    #[serde(default)]
    pub generated_tests: InputOutput,
    /// Correct programs.
    #[serde(default)]
    pub solutions: Solutions,
    /// Incorrect programs.
    #[serde(default)]
    pub incorrect_solutions: Solutions,
    /// Other outputs may be right as well, by the statement's wording.
    #[serde(default)]
    pub multiple_answers: bool,
    /// How each incorrect program was made, if they were made from the correct ones. DeepMind's files do not
    /// have it: there they were submitted by people.
    #[serde(default)]
    incorrect_origin: Option<Vec<serde_json::Value>>,
}

/// Which problems and programs to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Languages in CodeContests' enumeration.
    pub languages: Vec<u32>,
    /// Difficulties in CodeContests' enumeration.
    pub difficulty: RangeInclusive<u32>,
}

impl Default for Filter {
    /// Python 3, any difficulty.
    fn default() -> Self {
        Self {
            languages: vec![PYTHON3],
            difficulty: 0..=u32::MAX,
        }
    }
}

/// Name of a language of CodeContests' enumeration, as [`Record::language`] has it.
pub fn language(number: u32) -> &'static str {
    match number {
        1 => "python2",
        2 => "cpp",
        PYTHON3 => "python",
        4 => "java",
        _ => "unknown",
    }
}

impl Solutions {
    /// The Python 3 programs.
    pub fn python(&self) -> impl Iterator<Item = &str> {
        let all = self.language.iter().zip(&self.solution);
        all.filter(|(language, _)| **language == PYTHON3)
            .map(|(_, solution)| solution.as_str())
    }

    /// Languages and programs that `filter` takes.
    fn of<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (u32, &'a str)> {
        let all = self
            .language
            .iter()
            .copied()
            .zip(self.solution.iter().map(String::as_str));
        all.filter(|(language, _)| filter.languages.contains(language))
    }
}

impl Problem {
    /// `1277_E`, the name up to its title.
    pub fn short_name(&self) -> &str {
        self.name.split_once(". ").map_or(&self.name, |(short, _)| short)
    }

    /// All tests in their order (public, private, generated), each as (`private 2`, input, expected output).
    pub fn tests(&self) -> impl Iterator<Item = (String, &str, &str)> + Clone {
        [
            ("public", &self.public_tests),
            ("private", &self.private_tests),
            ("generated", &self.generated_tests),
        ]
        .into_iter()
        .flat_map(|(kind, tests)| {
            let pairs = tests.input.iter().zip(&tests.output).zip(1..);
            pairs.map(move |((input, output), number)| (format!("{kind} {number}"), input.as_str(), output.as_str()))
        })
    }

    /// The problem as a row: every solution that `filter` takes, correct ones first, with rewards 1 and 0.
    /// `body` makes a program into the text to train on. None if the filter leaves no solution.
    pub fn record(&self, file: &Arc<str>, filter: &Filter, body: impl Fn(&Self, &str) -> Body) -> Option<Record> {
        if !filter.difficulty.contains(&self.difficulty) {
            return None;
        }
        let correct = self.solutions.of(filter).map(|solution| (solution, 1.0));
        let incorrect = self.incorrect_solutions.of(filter).map(|solution| (solution, 0.0));
        let solutions: Vec<((u32, &str), f32)> = correct.chain(incorrect).collect();
        let ((first, _), _) = solutions.first()?;
        let one = solutions.iter().all(|((language, _), _)| language == first);
        Some(Record {
            place: self.place(file),
            schema: "code-contests",
            task_id: Some(self.name.clone()),
            samples: solutions
                .iter()
                .map(|((_, code), reward)| Sample {
                    reward: Some(*reward),
                    ..Sample::new(body(self, code))
                })
                .collect(),
            tests: Some(Tests::InputOutput(
                self.tests()
                    .map(|(_, input, output)| (input.to_owned(), output.to_owned()))
                    .collect(),
            )),
            language: one.then(|| language(*first).to_owned()),
        })
    }

    fn place(&self, file: &Arc<str>) -> Place {
        Place {
            file: file.clone(),
            row: self.line,
        }
    }
}

/// Reads and checks problems, in the file's order. `file` is its name in messages.
///
/// # Errors
/// A row with missing or empty fields, with solutions without a language or tests without an output, or a name
/// that comes twice, with its line.
pub fn parse(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let mut names = std::collections::HashSet::new();
    let mut problems = Vec::new();
    for (line, mut problem) in rows::<Problem>(file, text)? {
        let wrong = |problem: String| {
            Err(DataError::Row {
                file: file.to_owned(),
                line,
                problem,
            })
        };
        let name = problem.name.clone();
        if name.trim().is_empty() || problem.description.trim().is_empty() {
            return wrong("field `name` or `description` is empty; fill it or leave the row out".into());
        }
        if !names.insert(name.clone()) {
            return wrong(format!("`{name}` is there a second time; keep one"));
        }
        for (key, [left, right], [a, b]) in problem.lengths() {
            if a != b {
                return wrong(format!(
                    "`{key}` has {a} entries in `{left}` and {b} in `{right}`; give as many"
                ));
            }
        }
        for program in problem
            .solutions
            .solution
            .iter_mut()
            .chain(&mut problem.incorrect_solutions.solution)
        {
            *program = unix_line_ends(program);
        }
        problem.line = line;
        problems.push(problem);
    }
    Ok(problems)
}

impl Problem {
    /// Lists that have to be equally long, by their keys.
    fn lengths(&self) -> impl Iterator<Item = (&'static str, [&'static str; 2], [usize; 2])> {
        let tests = |key, t: &InputOutput| (key, ["input", "output"], [t.input.len(), t.output.len()]);
        let programs = |key, s: &Solutions| (key, ["language", "solution"], [s.language.len(), s.solution.len()]);
        [
            tests("public_tests", &self.public_tests),
            tests("private_tests", &self.private_tests),
            tests("generated_tests", &self.generated_tests),
            programs("solutions", &self.solutions),
            programs("incorrect_solutions", &self.incorrect_solutions),
        ]
        .into_iter()
    }
}

/// Pairs balanced in length: each incorrect solution with the correct one of the same problem and language that
/// is nearest in length (in characters; the first of equally near ones). A correct solution may be in several
/// pairs; one that is in none is left out, and so is an incorrect one without a correct one in its language.
///
/// `file` is the name of the file that the problems were read from.
pub fn pairs(file: &str, problems: &[Problem], filter: &Filter) -> Vec<Pair> {
    let file: Arc<str> = file.into();
    let mut pairs: Vec<Pair> = Vec::new();
    for problem in problems.iter().filter(|p| filter.difficulty.contains(&p.difficulty)) {
        for (number, incorrect) in problem.incorrect_solutions.of(filter) {
            let length = incorrect.chars().count();
            let same = problem
                .solutions
                .of(filter)
                .filter(|(other, code)| *other == number && *code != incorrect);
            let nearest = same.min_by_key(|(_, code)| code.chars().count().abs_diff(length));
            let Some((_, correct)) = nearest else { continue };
            pairs.push(Pair {
                place: problem.place(&file),
                problem: problem.name.clone(),
                number: u32::try_from(pairs.len()).unwrap_or(u32::MAX),
                correct: correct.to_owned(),
                incorrect: incorrect.to_owned(),
                language: language(number).to_owned(),
                edit: problem.incorrect_origin.is_some().then(|| edit(correct, incorrect)),
                difficulty: Some(problem.difficulty),
            });
        }
    }
    pairs
}
