//! HumanEval (Chen et al. 2021, arXiv 2107.03374): the 164 problems, checked. It runs no program.

use crate::bench::known::Shipped;
use serde::Deserialize;
use wmtp_data::{DataError, EvaluationProblem, rows};

/// Name of the problem file in a directory.
pub const PROBLEMS_FILE: &str = "HumanEval.jsonl";

const SHIPPED: Shipped = Shipped {
    benchmark: "humaneval",
    file: PROBLEMS_FILE,
    text: include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../data/humaneval/HumanEval.jsonl"
    )),
};

/// A function to complete.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// `HumanEval/0` to `HumanEval/163`.
    pub task_id: String,
    /// Imports, helpers and the function's head with its docstring.
    pub prompt: String,
    /// The function's name.
    pub entry_point: String,
    /// The function's body.
    pub canonical_solution: String,
    /// Defines `check(candidate)`.
    pub test: String,
}

impl Problem {
    /// The number in the task's id.
    pub fn number(&self) -> Option<u32> {
        self.task_id.strip_prefix("HumanEval/")?.parse().ok()
    }
}

/// Reads and checks the problems of `source`, `builtin:humaneval` or a directory with
/// `HumanEval.jsonl`, in order of their numbers.
///
/// # Errors
/// An unreadable file, a row with missing or empty fields or a bad or repeated id; and, unless
/// `altered` sets are allowed, rows that are not the known ones.
pub fn load(source: &str, altered: bool) -> Result<Vec<Problem>, DataError> {
    SHIPPED.load(source, altered, parse, |problem| problem.task_id.clone())
}

/// What training data must not have: every problem under its name, more than once.
///
/// # Errors
/// As [`load`].
pub(super) fn evaluation_problems() -> Result<Vec<EvaluationProblem>, DataError> {
    let problems = load("builtin:humaneval", false)?;
    Ok(problems.iter().flat_map(forms).collect())
}

/// With the docstring and without it.
fn forms(problem: &Problem) -> [EvaluationProblem; 2] {
    let name = problem.task_id.replace("HumanEval", "humaneval");
    let whole = format!("{}{}", problem.prompt, problem.canonical_solution);
    let bare = ["\"\"\"", "'''"]
        .iter()
        .find_map(|quotes| {
            let (head, docstring) = problem.prompt.rsplit_once(quotes)?.0.rsplit_once(quotes)?;
            (!docstring.is_empty()).then(|| format!("{head}{}", problem.canonical_solution))
        })
        .unwrap_or_default();
    [(problem.test.clone(), whole), (String::new(), bare)].map(|(task, code)| EvaluationProblem {
        name: name.clone(),
        task,
        code,
    })
}

fn parse(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let mut problems: Vec<(u32, Problem)> = Vec::new();
    for (line, problem) in rows::<Problem>(file, text)? {
        let wrong = |what: String| DataError::Row {
            file: file.to_owned(),
            line,
            problem: what,
        };
        let number = problem
            .number()
            .ok_or_else(|| wrong(format!("task_id `{}` is not of the form HumanEval/12", problem.task_id)))?;
        if problems.iter().any(|(other, _)| *other == number) {
            return Err(wrong(format!(
                "task_id {} is there a second time; keep one",
                problem.task_id
            )));
        }
        for (field, value) in [
            ("prompt", &problem.prompt),
            ("entry_point", &problem.entry_point),
            ("test", &problem.test),
        ] {
            if value.trim().is_empty() {
                return Err(wrong(format!("field `{field}` of {} is empty", problem.task_id)));
            }
        }
        problems.push((number, problem));
    }
    if problems.is_empty() {
        return Err(DataError::Empty {
            what: format!("problem in {file}"),
            why: "it has no row".into(),
        });
    }
    problems.sort_by_key(|(number, _)| *number);
    Ok(problems.into_iter().map(|(_, problem)| problem).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_set_is_whole() {
        let problems = load("builtin:humaneval", false).unwrap();
        let numbers: Vec<u32> = problems.iter().filter_map(Problem::number).collect();
        assert_eq!(numbers, (0..164).collect::<Vec<_>>());
        assert!(problems.iter().all(|problem| problem.prompt.ends_with('\n')));
    }

    #[test]
    fn a_short_or_altered_set_is_refused_by_name_unless_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().to_str().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join(PROBLEMS_FILE), text).unwrap();
        write(SHIPPED.text);
        assert_eq!(load(source, false).unwrap().len(), 164);

        let short: Vec<&str> = SHIPPED
            .text
            .lines()
            .filter(|line| !line.contains("\"HumanEval/7\""))
            .collect();
        write(&short.join("\n"));
        let error = load(source, false).unwrap_err().to_string();
        assert!(error.contains("lacks HumanEval/7"), "{error}");
        assert_eq!(load(source, true).unwrap().len(), 163);

        write(&SHIPPED.text.replacen("1.0, 2.0, 3.9", "1.0, 2.0, 4.9", 1));
        let error = load(source, false).unwrap_err().to_string();
        assert!(error.contains("altered HumanEval/0"), "{error}");
    }

    #[test]
    fn rows_are_checked_with_their_line() {
        let row = |id: &str, entry: &str| {
            format!(r#"{{"task_id":"{id}","prompt":"p","entry_point":"{entry}","canonical_solution":"","test":"t"}}"#)
        };
        for (text, expected) in [
            (row("Mbpp/1", "f"), "line 1: task_id `Mbpp/1`"),
            (row("HumanEval/1", ""), "field `entry_point`"),
            (
                format!("{}\n{}", row("HumanEval/1", "f"), row("HumanEval/1", "f")),
                "line 2: task_id HumanEval/1 is there a second time",
            ),
            (r#"{"task_id":"HumanEval/1"}"#.to_owned(), "missing field `prompt`"),
            (String::new(), "it has no row"),
        ] {
            let error = parse("f", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
