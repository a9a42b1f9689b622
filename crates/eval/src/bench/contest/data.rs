//! CodeContests (Li et al. 2022, arXiv 2203.07814): programs that read standard input and write
//! standard output. Reads and checks problems; it runs no program.
//!
//! The shipped subset and its split are described in `data/contest/README.md`.

use crate::bench::known;
use std::path::Path;
use wmtp_data::{DataError, EvaluationProblem, rows};

pub use wmtp_data::labels::contest::{InputOutput as Tests, Problem, Solutions};

const BUILTIN: [(&str, &str); 2] = [
    (
        "test",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/contest/test.jsonl")),
    ),
    (
        "valid",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/contest/valid.jsonl")),
    ),
];

/// Reads and checks the problems of one split of `source`, `builtin:contest` (splits `valid` and
/// `test`) or a directory with `<split>.jsonl`, in the file's order.
///
/// # Errors
/// An unreadable file, a row with missing or empty fields, tests without output, a name that comes
/// twice; and, for the shipped splits, rows that are not the known ones, unless `altered` sets are
/// allowed. Other splits of a directory are not known here: they need `altered`, too.
pub fn load(source: &str, split: &str, altered: bool) -> Result<Vec<Problem>, DataError> {
    let shipped = BUILTIN.iter().find(|(name, _)| *name == split).map(|(_, text)| *text);
    let builtin = format!("builtin:contest/{split}.jsonl");
    match (source.strip_prefix("builtin:"), shipped) {
        (Some("contest"), Some(text)) => parse(&builtin, text),
        (Some("contest"), None) => Err(DataError::UnknownBuiltin {
            name: format!("contest/{split}"),
            known: "contest (valid and test)".into(),
        }),
        (Some(other), _) => Err(DataError::UnknownBuiltin {
            name: other.to_owned(),
            known: "contest (valid and test)".into(),
        }),
        (None, shipped) => {
            let path = Path::new(source).join(format!("{split}.jsonl"));
            let text = std::fs::read_to_string(&path).map_err(|source| DataError::Read {
                path: path.clone(),
                source,
            })?;
            let file = path.display().to_string();
            let problems = parse(&file, &text)?;
            if !altered {
                let known = shipped.map_or(Ok(Vec::new()), |text| parse(&builtin, text))?;
                known::check(&file, &problems, &known, |problem| problem.name.clone())?;
            }
            Ok(problems)
        }
    }
}

/// What training data must not have: the problems of valid and test with every correct solution.
///
/// # Errors
/// As [`load`].
pub(super) fn evaluation_problems() -> Result<Vec<EvaluationProblem>, DataError> {
    let mut all = Vec::new();
    for split in ["valid", "test"] {
        all.extend(load("builtin:contest", split, false)?.iter().flat_map(forms));
    }
    Ok(all)
}

/// The description once, then every correct solution.
fn forms(problem: &Problem) -> Vec<EvaluationProblem> {
    let entry = |task: &str, code: &str| EvaluationProblem {
        name: format!("contest/{}", problem.name),
        task: task.to_owned(),
        code: code.to_owned(),
    };
    std::iter::once(entry(&problem.description, ""))
        .chain(problem.solutions.python().map(|code| entry("", code)))
        .collect()
}

fn parse(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let mut problems: Vec<Problem> = Vec::new();
    for (line, problem) in rows::<Problem>(file, text)? {
        let wrong = |what: String| {
            Err(DataError::Row {
                file: file.to_owned(),
                line,
                problem: what,
            })
        };
        let name = &problem.name;
        if name.trim().is_empty() || problem.description.trim().is_empty() {
            return wrong("field `name` or `description` is empty".into());
        }
        if problems.iter().any(|other| other.short_name() == problem.short_name()) {
            return wrong(format!("`{name}` is there a second time; keep one"));
        }
        for (kind, tests) in [
            ("public_tests", &problem.public_tests),
            ("private_tests", &problem.private_tests),
            ("generated_tests", &problem.generated_tests),
        ] {
            let (inputs, outputs) = (tests.input.len(), tests.output.len());
            if inputs != outputs {
                return wrong(format!(
                    "`{kind}` of `{name}` has {inputs} inputs and {outputs} outputs"
                ));
            }
        }
        if problem.tests().next().is_none() {
            return wrong(format!("`{name}` has no test"));
        }
        problems.push(problem);
    }
    if problems.is_empty() {
        return Err(DataError::Empty {
            what: format!("problem in {file}"),
            why: "it has no row".into(),
        });
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_splits_are_whole() {
        for (split, correct, incorrect) in [("valid", 33, 94), ("test", 32, 100)] {
            let problems = load("builtin:contest", split, false).unwrap();
            assert_eq!(problems.len(), 40);
            assert_eq!(problems.iter().flat_map(|p| p.solutions.python()).count(), correct);
            assert_eq!(
                problems.iter().flat_map(|p| p.incorrect_solutions.python()).count(),
                incorrect
            );
            assert!(problems.iter().all(|p| p.tests().count() <= 10));
        }
        let error = load("builtin:contest", "train", false).unwrap_err().to_string();
        assert!(error.contains("contest/train"), "{error}");
    }

    #[test]
    fn tests_are_named_by_kind_and_number() {
        let problems = load("builtin:contest", "test", false).unwrap();
        let names: Vec<String> = problems.first().unwrap().tests().map(|(name, ..)| name).collect();
        assert_eq!(names.first().map(String::as_str), Some("public 1"));
        assert!(names.contains(&"private 1".to_owned()));
    }

    #[test]
    fn an_altered_directory_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().to_str().unwrap();
        let (_, text) = BUILTIN[0];
        let first = text.lines().next().unwrap();
        std::fs::write(dir.path().join("test.jsonl"), first).unwrap();
        let error = load(source, "test", false).unwrap_err().to_string();
        assert!(error.contains("lacks") && error.contains("and 31 more"), "{error}");
        assert_eq!(load(source, "test", true).unwrap().len(), 1);
        std::fs::write(dir.path().join("train.jsonl"), first).unwrap();
        let error = load(source, "train", false).unwrap_err().to_string();
        assert!(error.contains("unknown"), "{error}");
        assert_eq!(load(source, "train", true).unwrap().len(), 1);
    }
}
