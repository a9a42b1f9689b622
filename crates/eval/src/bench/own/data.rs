//! One's own problems, a JSONL file: a prompt, and tests of one of three kinds. Reads and checks rows;
//! it runs no program.
//!
//! | field | |
//! |---|---|
//! | `id` | any text or number, each once |
//! | `prompt` | what the model continues |
//! | `tests` | a list of statements, `["assert f(1) == 2"]`, or of `{"input": "1\n", "output": "2\n"}` |
//! | `test` | instead: code; if it defines `check`, `check(entry_point)` is called after it |
//! | `entry_point` | the function's name; where the prompt has its head, an answer continues the prompt |
//! | `setup` | code that runs after the solution and before the tests |
//! | `solution` | a whole program that is right, for the share of exact answers |

use crate::bench::plus::is_identifier;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path};
use wmtp_data::{DataError, TextFile};

/// How an answer is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTests {
    /// Code that runs after the solution, piece after piece; the first that raises ends the run.
    Code(Vec<String>),
    /// Standard input and the output that belongs to it.
    Output(Vec<(String, String)>),
}

/// A problem of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub id: String,
    /// What the model continues.
    pub prompt: String,
    /// The function that is asked for.
    pub entry_point: Option<String>,
    /// The prompt is the beginning of the program: what follows it is the rest of a function.
    pub continues: bool,
    /// Tests, `setup` first.
    pub tests: OwnTests,
    /// A right program.
    pub solution: Option<String>,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// Reads and checks a file's problems, in the file's order.
///
/// # Errors
/// A file that cannot be read or has no row; with line and field: no JSON object, a field that is
/// missing, empty or of another type, an id that comes twice, tests of two kinds, a problem whose
/// prompt is of another kind than the first's.
pub fn load(source: &Path) -> Result<(Vec<Problem>, TextFile), DataError> {
    let file = TextFile::read(source)?;
    let problems = parse(&file.name(), &file.text)?;
    Ok((problems, file))
}

fn parse(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let mut seen = BTreeSet::new();
    let mut problems: Vec<Problem> = Vec::new();
    for (line, row) in (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty()) {
        let wrong = |problem: String| DataError::Row {
            file: file.to_owned(),
            line,
            problem,
        };
        let problem = problem(row, line).map_err(wrong)?;
        if !seen.insert(problem.id.clone()) {
            return Err(wrong(format!("`id` is `{}` for a second time; keep one", problem.id)));
        }
        if let Some(first) = problems.first()
            && first.continues != problem.continues
        {
            let kind = |continues| {
                if continues {
                    "begins a function"
                } else {
                    "is a task in words"
                }
            };
            return Err(wrong(format!(
                "the prompt {}, and that of line {} {}: put the two kinds into two files",
                kind(problem.continues),
                first.line,
                kind(first.continues)
            )));
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

/// One row; what is wrong with it names the field.
fn problem(row: &str, line: usize) -> Result<Problem, String> {
    let value: Value = serde_json::from_str(row).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("not a JSON object: each line is one problem".into());
    };
    let id = match fields.get("id").or(fields.get("task_id")) {
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        None | Some(Value::Null) => return Err("field `id` is missing: a text or number, each once".into()),
        Some(_) => return Err("field `id` is neither a number nor a text with something in it".into()),
    };
    let prompt = required(&fields, "prompt")?;
    let entry_point = optional(&fields, "entry_point")?;
    if let Some(name) = entry_point.as_deref().filter(|name| !is_identifier(name)) {
        return Err(format!(
            "field `entry_point` is `{name}`, which is no name of a function"
        ));
    }
    let continues = entry_point.as_deref().is_some_and(|name| begins(&prompt, name));
    let setup = optional(&fields, "setup")?;
    let tests = tests(&fields, entry_point.as_deref())?;
    let tests = match (tests, setup) {
        (OwnTests::Code(mut pieces), Some(setup)) => {
            pieces.insert(0, setup);
            OwnTests::Code(pieces)
        }
        (OwnTests::Output(_), Some(_)) => {
            return Err("field `setup` is for tests in Python: a program is tested by what it prints".into());
        }
        (tests, None) => tests,
    };
    if continues && matches!(tests, OwnTests::Output(_)) {
        return Err(
            "the prompt begins the function `entry_point`, but `tests` hold input and output: leave out \
                    `entry_point`, or test the function by code"
                .into(),
        );
    }
    Ok(Problem {
        id,
        prompt,
        entry_point,
        continues,
        tests,
        solution: optional(&fields, "solution")?,
        line,
    })
}

fn tests(fields: &Map<String, Value>, entry_point: Option<&str>) -> Result<OwnTests, String> {
    let code = optional(fields, "test")?;
    let list = match fields.get("tests") {
        None | Some(Value::Null) => None,
        Some(Value::Array(list)) if !list.is_empty() => Some(list),
        Some(_) => return Err("field `tests` is no list with something in it".into()),
    };
    match (code, list) {
        (None, None) => Err("there is neither `tests`, a list, nor `test`, code".into()),
        (Some(_), Some(_)) => Err("there are both `tests` and `test`: give one".into()),
        (Some(code), None) => match (code.lines().any(|line| line.starts_with("def check(")), entry_point) {
            (true, Some(name)) => Ok(OwnTests::Code(vec![code, format!("check({name})")])),
            (true, None) => {
                Err("field `test` defines `check`, which takes the function: `entry_point` is missing".into())
            }
            (false, _) => Ok(OwnTests::Code(vec![code])),
        },
        (None, Some(list)) if list.iter().all(Value::is_string) => Ok(OwnTests::Code(
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        )),
        (None, Some(list)) => {
            let pair = |(at, test): (usize, &Value)| -> Result<(String, String), String> {
                let text = |field: &str| {
                    test.get(field)
                        .and_then(Value::as_str)
                        .map(str::to_owned)
                        .ok_or_else(|| format!("`tests[{at}]` is neither a text nor has `{field}`, a text: all are statements, or all have `input` and `output`"))
                };
                Ok((text("input")?, text("output")?))
            };
            Ok(OwnTests::Output(
                list.iter().enumerate().map(pair).collect::<Result<_, String>>()?,
            ))
        }
    }
}

fn required(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    optional(fields, name)?.ok_or_else(|| format!("field `{name}` is missing: a text"))
}

/// A text with something in it; null is as good as absent.
fn optional(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(format!("field `{name}` is empty")),
        Some(_) => Err(format!("field `{name}` is no text")),
    }
}

/// Whether a prompt has the head of the function in column 0.
pub fn begins(prompt: &str, name: &str) -> bool {
    prompt.lines().any(|line| {
        let head = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
        let rest = head.and_then(|head| head.trim_start().strip_prefix(name));
        rest.is_some_and(|rest| rest.trim_start().starts_with('('))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_kinds_are_read() {
        let words = concat!(
            r#"{"id": "sum/1", "prompt": "Write add.", "tests": ["assert add(1, 2) == 3"], "setup": "x = 1", "solution": "s"}"#,
            "\n\n",
            r#"{"id": 7, "prompt": "Print it.", "tests": [{"input": "1\n", "output": "2\n"}]}"#,
            "\n",
            r#"{"task_id": "c", "prompt": "Write f.", "entry_point": "f", "test": "def check(g):\n    assert g(1)\n"}"#,
            "\n",
            r#"{"id": "d", "prompt": "Write f.", "test": "assert f(1)"}"#,
        );
        let problems = parse("f", words).unwrap();
        assert_eq!(
            problems.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(),
            ["sum/1", "7", "c", "d"]
        );
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert!(problems.iter().all(|p| !p.continues));
        let code = |pieces: &[&str]| OwnTests::Code(pieces.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(problems[0].tests, code(&["x = 1", "assert add(1, 2) == 3"]));
        assert_eq!(problems[0].solution.as_deref(), Some("s"));
        assert_eq!(problems[1].tests, OwnTests::Output(vec![("1\n".into(), "2\n".into())]));
        assert_eq!(
            problems[2].tests,
            code(&["def check(g):\n    assert g(1)\n", "check(f)"])
        );
        assert_eq!(problems[3].tests, code(&["assert f(1)"]));
        let head = r#"{"id": "e", "prompt": "import x\ndef f (a):\n    '''Doc.'''\n", "entry_point": "f", "tests": ["assert f(1)"]}"#;
        assert!(parse("f", head).unwrap()[0].continues);
    }

    #[test]
    fn what_is_wrong_with_a_row_names_line_and_field() {
        let row = |fields: &str| format!(r#"{{"id": "a", "prompt": "p", {fields}}}"#);
        let good = row(r#""tests": ["assert f()"]"#);
        for (second, expected) in [
            ("{".to_owned(), "line 2: not JSON"),
            ("[]".to_owned(), "line 2: not a JSON object"),
            (r#"{"prompt": "p"}"#.to_owned(), "line 2: field `id` is missing"),
            (
                r#"{"id": [], "prompt": "p"}"#.to_owned(),
                "line 2: field `id` is neither",
            ),
            (
                r#"{"id": "b", "tests": ["x"]}"#.to_owned(),
                "line 2: field `prompt` is missing",
            ),
            (
                r#"{"id": "b", "prompt": " "}"#.to_owned(),
                "line 2: field `prompt` is empty",
            ),
            (
                r#"{"id": "b", "prompt": 1}"#.to_owned(),
                "line 2: field `prompt` is no text",
            ),
            (good.clone(), "line 2: `id` is `a` for a second time"),
            (row(r#""x": 1"#), "line 2: there is neither `tests`, a list, nor `test`"),
            (row(r#""tests": []"#), "line 2: field `tests` is no list"),
            (row(r#""tests": ["x"], "test": "y""#), "line 2: there are both"),
            (row(r#""tests": ["x", 1]"#), "line 2: `tests[0]` is neither"),
            (
                row(r#""tests": [{"input": ""}]"#),
                "line 2: `tests[0]` is neither a text nor has `output`",
            ),
            (
                row(r#""test": "def check(f): pass""#),
                "line 2: field `test` defines `check`",
            ),
            (
                row(r#""entry_point": "f()", "tests": ["x"]"#),
                "line 2: field `entry_point` is `f()`",
            ),
            (
                row(r#""setup": "x", "tests": [{"input": "", "output": ""}]"#),
                "line 2: field `setup` is for tests in Python",
            ),
            (
                r#"{"id": "b", "prompt": "def f():", "entry_point": "f", "tests": ["assert f()"]}"#.to_owned(),
                "line 2: the prompt begins a function, and that of line 1 is a task in words",
            ),
            (
                r#"{"id": "b", "prompt": "def f():", "entry_point": "f", "tests": [{"input": "", "output": ""}]}"#
                    .to_owned(),
                "line 2: the prompt begins the function `entry_point`, but `tests` hold input",
            ),
        ] {
            let error = parse("f", &format!("{good}\n{second}\n")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
        assert!(parse("f", "\n").unwrap_err().to_string().contains("it has no row"));
    }
}
