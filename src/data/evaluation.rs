//! The problems of every benchmark as training data must not have them, and training data from any
//! file: the two sides of decontamination.

use super::{
    DataError, EvaluationProblem, Example, contest, humaneval, mbpp,
    plus::{self, PlusSet},
};
use serde_json::Value;
use std::path::Path;

/// Benchmarks that training data can be compared with.
pub const BENCHMARKS: [&str; 4] = ["mbpp", "sanitized", "humaneval", "contest"];

/// Whether training data can be compared with it: one of [`BENCHMARKS`], or `mbpp+=FILE` or
/// `humaneval+=FILE`, which are not shipped.
pub fn is_benchmark(name: &str) -> bool {
    BENCHMARKS.contains(&name) || plus_file(name).is_some()
}

/// The set and the file of `mbpp+=FILE`.
fn plus_file(name: &str) -> Option<(PlusSet, &str)> {
    let (set, file) = name.split_once('=')?;
    let set = [PlusSet::HumanEval, PlusSet::Mbpp]
        .into_iter()
        .find(|plus| plus.name() == set)?;
    Some((set, file))
}

/// The evaluation problems of a benchmark, as shipped: MBPP's test split (full or sanitized), all of
/// HumanEval, CodeContests' valid and test; or of a file of HumanEval+ or MBPP+, without MBPP's own
/// training tasks (601 and up). A problem with several solutions, or with one that stands
/// alone as well as in its prompt, comes several times under its name.
///
/// # Errors
/// [`DataError::UnknownBuiltin`] for another name; as [`plus::load`] for a file.
pub fn problems(benchmark: &str) -> Result<Vec<EvaluationProblem>, DataError> {
    if let Some((set, file)) = plus_file(benchmark) {
        return Ok(plus::evaluation_problems(&plus::load(Path::new(file), set)?.0, set));
    }
    Ok(match benchmark {
        "mbpp" => mbpp_test("mbpp", &mbpp::load("builtin:mbpp")?),
        "sanitized" => mbpp_test("mbpp-sanitized", &mbpp::load_sanitized("builtin:mbpp", false)?),
        "humaneval" => humaneval::load("builtin:humaneval", false)?
            .iter()
            .flat_map(of_humaneval)
            .collect(),
        "contest" => {
            let mut all = Vec::new();
            for split in ["valid", "test"] {
                all.extend(
                    contest::load("builtin:contest", split, false)?
                        .iter()
                        .flat_map(of_contest),
                );
            }
            all
        }
        other => return Err(DataError::UnknownBuiltin { name: other.to_owned() }),
    })
}

/// The test split among MBPP's problems, under `name`.
pub(super) fn mbpp_test(name: &str, problems: &[mbpp::Problem]) -> Vec<EvaluationProblem> {
    let test = problems.iter().filter(|p| mbpp::within(p.task_id, mbpp::TEST_TASKS));
    test.map(|p| EvaluationProblem {
        name: format!("{name}/{}", p.task_id),
        task: mbpp::content(p),
        code: p.code.clone(),
    })
    .collect()
}

/// With the docstring and without it.
fn of_humaneval(problem: &humaneval::Problem) -> [EvaluationProblem; 2] {
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

/// The description once, then every correct solution.
fn of_contest(problem: &contest::Problem) -> Vec<EvaluationProblem> {
    let entry = |task: &str, code: &str| EvaluationProblem {
        name: format!("contest/{}", problem.name),
        task: task.to_owned(),
        code: code.to_owned(),
    };
    std::iter::once(entry(&problem.description, ""))
        .chain(problem.solutions.python().map(|code| entry("", code)))
        .collect()
}

/// Fields that hold a sample's program, the first that is there.
const CODE: [&str; 9] = [
    "code",
    "solution",
    "completion",
    "canonical_solution",
    "response",
    "output",
    "answer",
    "content",
    "text",
];
/// Fields that hold its task.
const TASK: [&str; 6] = ["prompt", "instruction", "question", "description", "task", "text"];

/// Training samples from a file: JSON Lines or a JSON array of objects, of which the usual fields are
/// taken (`code`, `solution`, `completion`, ... for the program; `prompt`, `instruction`,
/// `description`, ... for the task), or any other text as one program.
///
/// # Errors
/// A file that cannot be read; a row that is no object or has none of the fields.
pub fn samples(path: &Path) -> Result<Vec<Example>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = path.display().to_string();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let rows: Vec<(usize, Value)> = match extension {
        "jsonl" | "ndjson" => mbpp::rows(&file, &text)?,
        "json" => {
            let rows: Vec<Value> = serde_json::from_str(&text).map_err(|e| DataError::Row {
                file: file.clone(),
                line: e.line(),
                problem: format!("not a JSON array: {e}"),
            })?;
            (1..).zip(rows).collect()
        }
        _ => return Ok(vec![example(&file, 0, String::new(), text)]),
    };
    rows.into_iter()
        .enumerate()
        .map(|(index, (line, row))| {
            let field = |names: &[&'static str]| {
                let found = names
                    .iter()
                    .find_map(|name| row.get(name).and_then(Value::as_str).map(|text| (*name, text)));
                found.map(|(name, text)| (name, text.to_owned()))
            };
            let code = field(&CODE);
            let task = field(&TASK).filter(|(name, _)| code.as_ref().is_none_or(|(other, _)| name != other));
            if code.is_none() && task.is_none() {
                return Err(DataError::Row {
                    file: file.clone(),
                    line,
                    problem: format!(
                        "none of the fields {} holds a text",
                        [&CODE[..], &TASK[..5]].concat().join(", ")
                    ),
                });
            }
            let text = |part: Option<(&str, String)>| part.map(|(_, text)| text).unwrap_or_default();
            Ok(example(&format!("{file}:{line}"), index, text(task), text(code)))
        })
        .collect()
}

fn example(name: &str, sample: usize, task: String, code: String) -> Example {
    Example {
        sample,
        name: name.to_owned(),
        problem: u32::try_from(sample).unwrap_or(u32::MAX),
        prompt: task.clone(),
        response: code.clone(),
        task,
        code,
        reward: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decontaminate::compare;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn every_benchmark_recognises_its_own_solutions() {
        for (benchmark, names) in [("mbpp", 500), ("sanitized", 257), ("humaneval", 164), ("contest", 80)] {
            let problems = problems(benchmark).unwrap();
            let distinct: std::collections::BTreeSet<_> = problems.iter().map(|p| &p.name).collect();
            assert_eq!(distinct.len(), names, "{benchmark}");
            let own: Vec<Example> = problems
                .iter()
                .filter(|p| !p.code.is_empty())
                .map(|p| example("mine", 0, String::new(), p.code.clone()))
                .collect();
            assert!(own.len() > 60);
            let report = compare(&own, &problems);
            assert_eq!(report.copies, own.len(), "{benchmark}");
            assert!(report.found.iter().all(|overlap| overlap.equal_code));
        }
        assert!(problems("apps").is_err());
        assert!(!is_benchmark("apps") && !is_benchmark("apps=x") && is_benchmark("mbpp+=x") && is_benchmark("mbpp"));
    }

    #[test]
    fn mbpp_plus_is_compared_without_mbpps_training_tasks() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/evalplus/mbpp_plus.jsonl.gz"
        );
        let problems = problems(&format!("mbpp+={file}")).unwrap();
        let numbers: Vec<u32> = problems
            .iter()
            .map(|p| p.name.strip_prefix("mbpp+/").unwrap().parse().unwrap())
            .collect();
        assert_eq!(
            (numbers.first(), numbers.last(), numbers.len()),
            (Some(&2), Some(&590), 19)
        );
        let copy = example("mine", 0, String::new(), problems[0].code.clone());
        assert_eq!(compare(&[copy], &problems).copies, 1);
    }

    #[test]
    fn a_humaneval_solution_is_recognised_without_its_docstring_and_by_its_task() {
        let problems = problems("humaneval").unwrap();
        let bare = "def truncate_number(number: float) -> float:\n    return number % 1.0\n";
        let report = compare(&[example("mine", 0, String::new(), bare.into())], &problems);
        assert_eq!(report.found.first().map(|o| o.problem.as_str()), Some("humaneval/2"));
        let prompt = crate::data::humaneval::load("builtin:humaneval", false).unwrap()[0]
            .prompt
            .clone();
        let report = compare(&[example("mine", 0, prompt, "pass".into())], &problems);
        assert_eq!(
            report.found.first().map(|o| (o.problem.as_str(), o.equal_code)),
            Some(("humaneval/0", false))
        );
    }

    #[test]
    fn samples_come_from_lines_arrays_and_plain_programs() {
        let (_dir, path) = file(
            "a.jsonl",
            "{\"prompt\": \"p\", \"completion\": \"c\"}\n\n{\"text\": \"t\"}\n",
        );
        let read = samples(&path).unwrap();
        let parts: Vec<(&str, &str)> = read.iter().map(|e| (e.task.as_str(), e.code.as_str())).collect();
        assert_eq!(parts, [("p", "c"), ("", "t")]);
        assert!(read[1].name.ends_with("a.jsonl:3"), "{}", read[1].name);
        let (_dir, path) = file("a.json", "[{\"instruction\": \"i\", \"output\": \"o\"}]");
        assert_eq!(
            (
                samples(&path).unwrap()[0].task.as_str(),
                samples(&path).unwrap()[0].code.as_str()
            ),
            ("i", "o")
        );
        let (_dir, path) = file("a.py", "x = 1\n");
        assert_eq!(samples(&path).unwrap()[0].code, "x = 1\n");
        let (_dir, path) = file("b.jsonl", "{\"a\": 1}\n");
        let error = samples(&path).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("completion"), "{error}");
    }
}
