//! Problems of benchmarks in their own fields: MBPP (Austin et al. 2021), HumanEval (Chen et al. 2021) and
//! CodeContests (Li et al. 2022), with their tests and, of CodeContests, wrong solutions as well.

use super::{
    Schema,
    fields::Fields,
    optional::{self, Part},
};
use crate::{Body, DataError, Instruction, Record, Tests};
use serde_json::Value;

/// MBPP's fields, also those of its sanitized set, where the task is called `prompt`.
pub(super) const MBPP: Schema = Schema {
    name: "mbpp",
    fits: |row| row.have(&["code", "test_list"]) && row.first(&["text", "prompt"]).is_some(),
    read: mbpp,
};

/// HumanEval's fields.
pub(super) const HUMANEVAL: Schema = Schema {
    name: "humaneval",
    fits: |row| row.have(&["prompt", "canonical_solution", "test"]),
    read: humaneval,
};

/// CodeContests' fields.
pub(super) const CONTEST: Schema = Schema {
    name: "contest",
    fits: |row| row.have(&["description", "solutions"]),
    read: contest,
};

/// CodeContests' enumeration of languages.
const LANGUAGES: [Option<&str>; 5] = [None, Some("python2"), Some("cpp"), Some("python"), Some("java")];

fn mbpp(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let instruction = mbpp_task(row)?;
    let code = row.trained_text("code")?.replace("\r\n", "\n");
    let tests = mbpp_tests(row)?;
    let body = Body::Instruction(Instruction {
        instruction,
        output: code,
        ..Instruction::default()
    });
    in_language(
        "python",
        optional::record_with(row, schema, vec![Part::new(body)], tests),
    )
}

/// What MBPP asks for.
///
/// # Errors
/// A column that is no text.
pub(super) fn mbpp_task(row: &mut Fields) -> Result<String, DataError> {
    let task = row.first(&["text", "prompt"]).unwrap_or("text");
    row.text(task)
}

/// MBPP's tests, if there are any.
///
/// # Errors
/// Columns that are no texts.
pub(super) fn mbpp_tests(row: &mut Fields) -> Result<Option<Tests>, DataError> {
    let setup = match row.text_if_there("test_setup_code")? {
        Some(setup) => setup,
        None => texts(row, "test_imports")?.join("\n"),
    };
    let asserts = texts(row, "test_list")?;
    Ok((!asserts.is_empty()).then_some(Tests::Asserts {
        setup,
        asserts,
        entry_point: None,
    }))
}

fn humaneval(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let prompt = row.text("prompt")?;
    let completion = row.trained_text("canonical_solution")?;
    let tests = humaneval_tests(row)?;
    let body = Body::Completion { prompt, completion };
    let part = Part::new(body);
    in_language("python", optional::record_with(row, schema, vec![part], tests))
}

/// HumanEval's tests, if the row names the function: they define `check`, which takes it.
///
/// # Errors
/// Columns that are no texts.
pub(super) fn humaneval_tests(row: &mut Fields) -> Result<Option<Tests>, DataError> {
    let setup = row.text("test")?;
    Ok(row.text_if_there("entry_point")?.map(|function| Tests::Asserts {
        setup,
        asserts: vec![format!("check({function})")],
        entry_point: Some(function),
    }))
}

/// The records, with this language unless the row has another.
fn in_language(language: &str, records: Result<Vec<Record>, DataError>) -> Result<Vec<Record>, DataError> {
    let mut records = records?;
    for record in &mut records {
        record.language.get_or_insert_with(|| language.to_owned());
    }
    Ok(records)
}

/// A record for each language, in the enumeration's order: a problem without solutions gives none.
fn contest(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let description = row.text("description")?;
    let task_id = optional::name(row, "task_id")?;
    let name = optional::name(row, "name")?;
    let tests = contest_tests(row)?;
    let mut programs = Vec::new();
    for (column, reward) in [("solutions", 1.0), ("incorrect_solutions", 0.0)] {
        let written = solutions(row, column)?.into_iter();
        for (language, program) in written.filter(|(_, program)| !program.trim().is_empty()) {
            programs.push((language, reward, program));
        }
    }
    let mut records = Vec::new();
    for (number, language) in LANGUAGES.iter().enumerate() {
        let own = programs.iter().filter(|(language, ..)| *language == number);
        let parts: Vec<Part> = own
            .map(|(_, reward, program)| Part {
                body: Body::Instruction(Instruction {
                    instruction: description.clone(),
                    output: program.clone(),
                    ..Instruction::default()
                }),
                reward: Some(*reward),
            })
            .collect();
        if parts.is_empty() {
            continue;
        }
        for mut record in optional::record_with(row, schema, parts, tests.clone())? {
            record.task_id = task_id.clone().or_else(|| name.clone());
            record.language = language.map(str::to_owned);
            records.push(record);
        }
    }
    Ok(records)
}

/// CodeContests' tests, if there are any: public, private and generated ones.
///
/// # Errors
/// Columns that are no inputs and outputs.
pub(super) fn contest_tests(row: &mut Fields) -> Result<Option<Tests>, DataError> {
    let mut pairs = Vec::new();
    for column in ["public_tests", "private_tests", "generated_tests"] {
        if let Some(value) = row.take(column) {
            pairs.extend(optional::pairs(&row.at(column), value)?);
        }
    }
    Ok((!pairs.is_empty()).then_some(Tests::InputOutput(pairs)))
}

/// Programs with the numbers of their languages: `{language: [...], solution: [...]}`, or a list of
/// `{language, solution}`.
fn solutions(row: &mut Fields, column: &'static str) -> Result<Vec<(usize, String)>, DataError> {
    const EXPECTED: &str = "`{language: [...], solution: [...]}`, languages as numbers from 0 to 4";
    let Some(value) = row.take(column) else {
        return Ok(Vec::new());
    };
    let at = row.at(column);
    let one = |language: &Value, program: &Value| {
        let language = language.as_u64().and_then(|number| usize::try_from(number).ok());
        let language = language.filter(|number| *number < LANGUAGES.len());
        Some((language?, program.as_str()?.replace("\r\n", "\n")))
    };
    let found: Option<Vec<(usize, String)>> = match &value {
        Value::Array(items) => items
            .iter()
            .map(|item| one(item.get("language")?, item.get("solution")?))
            .collect(),
        Value::Object(lists) => {
            let list = |name: &str| lists.get(name).and_then(Value::as_array);
            match (list("language"), list("solution")) {
                (Some(languages), Some(programs)) if languages.len() == programs.len() => {
                    languages.iter().zip(programs).map(|(a, b)| one(a, b)).collect()
                }
                _ => None,
            }
        }
        _ => None,
    };
    found.ok_or_else(|| at.found(&value, EXPECTED))
}

/// A list of texts; empty if the column is absent.
fn texts(row: &mut Fields, column: &str) -> Result<Vec<String>, DataError> {
    let Some(value) = row.take(column) else {
        return Ok(Vec::new());
    };
    let found: Option<Vec<String>> = value
        .as_array()
        .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    found.ok_or_else(|| row.at(column).found(&value, "a list of texts"))
}
