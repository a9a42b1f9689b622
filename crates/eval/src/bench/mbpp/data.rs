//! MBPP (Austin et al. 2021, arXiv 2108.07732): the problems, checked, and their prompts.
//!
//! Reads `mbpp.jsonl`, built in or from a directory. It runs no program and judges none.

use crate::bench::known::Shipped;
use serde::Deserialize;
use std::collections::BTreeSet;
use wmtp_data::{DataConfig, DataError, EvaluationProblem, Example, PromptStyle, Tokenizer, rows};

/// Name of the problem file in a directory.
pub const PROBLEMS_FILE: &str = "mbpp.jsonl";
/// Name of the file with the problems that the authors verified by hand.
pub const SANITIZED_FILE: &str = "sanitized-mbpp.json";
/// All task ids.
pub const TASKS: (u32, u32) = DataConfig::MBPP_TASKS;
/// The test split, which is never trained on.
pub const TEST_TASKS: (u32, u32) = DataConfig::MBPP_TEST_TASKS;
/// The problems shown in a few-shot prompt.
pub const FEW_SHOT_TASKS: [u32; 3] = [2, 3, 4];
/// What ends a program in prompts and responses.
pub const DONE: &str = "\n[DONE]";

pub(super) const PROBLEMS: Shipped = Shipped {
    benchmark: "mbpp",
    file: PROBLEMS_FILE,
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mbpp/mbpp.jsonl")),
};
const SANITIZED: Shipped = Shipped {
    file: SANITIZED_FILE,
    text: include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../data/mbpp/sanitized-mbpp.json"
    )),
    ..PROBLEMS
};
/// One task with its reference solution and tests. Line ends are LF.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// 1..974.
    pub task_id: u32,
    /// What to write, in words.
    pub text: String,
    /// The reference solution.
    pub code: String,
    /// Code that runs after the solution and before the tests; mostly empty.
    pub test_setup_code: String,
    /// The asserts, shown in the prompt.
    pub test_list: Vec<String>,
    /// More asserts, not shown; mostly empty.
    pub challenge_test_list: Vec<String>,
}

/// Reads and checks all 974 problems, in order of `task_id`.
///
/// `source` is `builtin:mbpp` or a directory that holds `mbpp.jsonl`.
///
/// # Errors
/// An unknown built-in name, an unreadable file, a row with missing or empty fields, an id that is
/// not one of 1..974 or comes twice, or missing ids.
pub fn load(source: &str) -> Result<Vec<Problem>, DataError> {
    let (file, text) = PROBLEMS.read(source)?;
    parse(&file, &text)
}

/// The same, and the rows have to be those that are known, unless `altered` sets are allowed.
///
/// # Errors
/// As [`load`], and [`DataError::Altered`].
pub fn load_known(source: &str, altered: bool) -> Result<Vec<Problem>, DataError> {
    PROBLEMS.load(source, altered, parse, task_name)
}

/// A row of `sanitized-mbpp.json`.
#[derive(Deserialize)]
struct SanitizedRow {
    task_id: u32,
    prompt: String,
    code: String,
    test_imports: Vec<String>,
    test_list: Vec<String>,
}

/// Reads and checks the 427 problems of the sanitized set, in order of `task_id`: fewer ids, some
/// with another task, solution or tests. What the tests import is the set-up code.
///
/// `source` is `builtin:mbpp` or a directory that holds `sanitized-mbpp.json`.
///
/// # Errors
/// An unknown built-in name, an unreadable file, fields that are missing or empty, an id that comes
/// twice; and, unless `altered` sets are allowed, rows that are not the known ones.
pub fn load_sanitized(source: &str, altered: bool) -> Result<Vec<Problem>, DataError> {
    SANITIZED.load(source, altered, parse_sanitized, task_name)
}

fn parse_sanitized(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let wrong = |line: usize, problem: String| DataError::Row {
        file: file.to_owned(),
        line,
        problem,
    };
    let rows: Vec<SanitizedRow> =
        serde_json::from_str(text).map_err(|e| wrong(e.line(), format!("not the sanitized set's JSON: {e}")))?;
    let mut problems: Vec<Problem> = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.task_id;
        if problems.iter().any(|problem| problem.task_id == id) {
            return Err(wrong(1, format!("task_id {id} is there a second time; keep one")));
        }
        if row.prompt.trim().is_empty() || row.code.trim().is_empty() || row.test_list.is_empty() {
            return Err(wrong(
                1,
                format!("`prompt`, `code` or `test_list` of task {id} is empty"),
            ));
        }
        let mut problem = Problem {
            task_id: id,
            text: row.prompt,
            code: row.code,
            test_setup_code: row.test_imports.join("\n"),
            test_list: row.test_list,
            challenge_test_list: Vec::new(),
        };
        unix_line_ends(&mut problem.code);
        problems.push(problem);
    }
    problems.sort_by_key(|problem| problem.task_id);
    Ok(problems)
}

fn task_name(problem: &Problem) -> String {
    format!("Mbpp/{}", problem.task_id)
}

fn parse(file: &str, text: &str) -> Result<Vec<Problem>, DataError> {
    let numbered: Vec<(usize, Problem)> = rows(file, text)?;
    let mut seen = BTreeSet::new();
    let mut problems = Vec::with_capacity(numbered.len());
    for (line, mut problem) in numbered {
        let wrong = |what: String| DataError::Row {
            file: file.to_owned(),
            line,
            problem: what,
        };
        let id = problem.task_id;
        if !within(id, TASKS) {
            return Err(wrong(format!("task_id {id} is not one of MBPP's ids 1 to 974")));
        }
        if !seen.insert(id) {
            return Err(wrong(format!("task_id {id} is there a second time; keep one")));
        }
        for (field, empty) in [
            ("text", problem.text.trim().is_empty()),
            ("code", problem.code.trim().is_empty()),
            ("test_list", problem.test_list.is_empty()),
        ] {
            if empty {
                return Err(wrong(format!("field `{field}` of task {id} is empty")));
            }
        }
        for field in [&mut problem.text, &mut problem.code, &mut problem.test_setup_code]
            .into_iter()
            .chain(&mut problem.test_list)
            .chain(&mut problem.challenge_test_list)
        {
            unix_line_ends(field);
        }
        problems.push(problem);
    }
    problems.sort_by_key(|p: &Problem| p.task_id);
    let missing: Vec<u32> = (TASKS.0..=TASKS.1).filter(|id| !seen.contains(id)).collect();
    if !missing.is_empty() {
        return Err(DataError::MissingTasks {
            file: file.to_owned(),
            missing: ranges(&missing),
        });
    }
    Ok(problems)
}

/// CRLF becomes LF. Four of MBPP's programs end in the first half of a CRLF, which would become
/// whole with the line end that a prompt puts after it: it goes as well.
pub(super) fn unix_line_ends(text: &mut String) {
    if text.contains('\r') {
        *text = text.replace("\r\n", "\n");
        if text.ends_with('\r') {
            text.pop();
        }
    }
}

/// Whether `id` is in the range, both ends included.
pub fn within(id: u32, (first, last): (u32, u32)) -> bool {
    (first..=last).contains(&id)
}

/// `[1, 2, 3, 7]` as `1-3, 7`.
fn ranges(ids: &[u32]) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for &id in ids {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => spans.push((id, id)),
        }
    }
    let names: Vec<String> = spans
        .iter()
        .map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") })
        .collect();
    names.join(", ")
}

fn task(problem: &Problem) -> String {
    format!(
        "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}\n",
        problem.text,
        problem.test_list.join("\n")
    )
}

fn open(problem: &Problem) -> String {
    format!("{}[BEGIN]\n", task(problem))
}

/// The prompt for a problem (algorithms, section 8); the model continues with the program.
///
/// * few-shot: tasks 2, 3 and 4 with their solutions, then the task left open after `[BEGIN]`;
/// * zero-shot: the open task alone;
/// * chat: the task (without `[BEGIN]`) as the user's message, through the model's chat template,
///   up to where the assistant begins.
///
/// # Errors
/// A few-shot task that is not among `problems`; a chat template that is absent or fails. Only chat
/// needs a tokenizer.
pub fn prompt<'t>(
    problems: &[Problem],
    problem: &Problem,
    style: PromptStyle,
    tokenizer: impl Into<Option<&'t Tokenizer>>,
) -> Result<String, DataError> {
    match style {
        PromptStyle::ZeroShot => Ok(open(problem)),
        PromptStyle::FewShot => {
            let mut text = String::new();
            for id in FEW_SHOT_TASKS {
                let shot = problems
                    .iter()
                    .find(|p| p.task_id == id)
                    .ok_or_else(|| DataError::MissingTasks {
                        file: "the list of problems".into(),
                        missing: id.to_string(),
                    })?;
                text += &format!("{}{}{DONE}\n\n", open(shot), shot.code);
            }
            Ok(text + &open(problem))
        }
        PromptStyle::Chat => Tokenizer::chat_of(tokenizer.into(), &[("user", task(problem).trim_end())]),
    }
}

/// What the model must learn to write after the prompt; EOS follows as a token.
pub fn response(code: &str) -> String {
    format!("{code}{DONE}")
}

/// The task's own words and tests, without the words that all prompts share.
pub fn content(problem: &Problem) -> String {
    format!("{}\n{}\n", problem.text, problem.test_list.join("\n"))
}

/// Examples of the problems for which `wanted` holds, numbered from 0, with the reference solution
/// as the response. Their reward is unknown: nothing was run.
///
/// # Errors
/// As [`prompt`].
pub fn examples(
    problems: &[Problem],
    wanted: impl Fn(u32) -> bool,
    style: PromptStyle,
    tokenizer: &Tokenizer,
) -> Result<Vec<Example>, DataError> {
    problems
        .iter()
        .filter(|p| wanted(p.task_id))
        .enumerate()
        .map(|(sample, p)| {
            Ok(Example {
                sample,
                name: format!("mbpp/{}/reference", p.task_id),
                problem: p.task_id,
                prompt: prompt(problems, p, style, tokenizer)?,
                response: response(&p.code),
                task: content(p),
                code: p.code.clone(),
                reward: None,
            })
        })
        .collect()
}

/// The test split of all 974 problems: what training data must not have.
///
/// # Errors
/// As [`load`].
pub(super) fn evaluation_problems() -> Result<Vec<EvaluationProblem>, DataError> {
    Ok(test_problems("mbpp", &load("builtin:mbpp")?))
}

/// The test split of the sanitized set.
///
/// # Errors
/// As [`load_sanitized`].
pub(super) fn sanitized_evaluation_problems() -> Result<Vec<EvaluationProblem>, DataError> {
    Ok(test_problems("mbpp-sanitized", &load_sanitized("builtin:mbpp", false)?))
}

/// The test split among `problems`, under `name`.
pub(super) fn test_problems(name: &str, problems: &[Problem]) -> Vec<EvaluationProblem> {
    let test = problems.iter().filter(|p| within(p.task_id, TEST_TASKS));
    test.map(|p| EvaluationProblem {
        name: format!("{name}/{}", p.task_id),
        task: content(p),
        code: p.code.clone(),
    })
    .collect()
}
