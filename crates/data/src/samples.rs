//! Training samples from any file, for comparison with evaluation problems.

use super::{DataError, Example, rows};
use serde_json::Value;
use std::path::Path;

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
        "jsonl" | "ndjson" => rows(&file, &text)?,
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

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
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
