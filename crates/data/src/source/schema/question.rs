//! What a row asks, whether or not it has an answer: prompts to draw completions for.
//!
//! The columns are those of the schemas with a prompt. Columns of answers and labels are passed over, and so are
//! the assistant's turns at the end of a conversation.

use super::{
    benchmark,
    completion::Prompt,
    conversation::{self, tools_of, with_system},
    fields::Fields,
    instruction,
    message::messages,
    optional,
};
use crate::{Asked, DataError, Instruction, Question, Tests, chat::Message};

/// Names of the columns that a question is read from, and of answers and labels.
pub(super) const USED: [&str; 41] = [
    "messages",
    "conversations",
    "tools",
    "functions",
    "system",
    "chosen",
    "rejected",
    "chosen_messages",
    "rejected_messages",
    "prompt",
    "completion",
    "completions",
    "rewards",
    "labels",
    "instruction",
    "input",
    "output",
    "history",
    "text",
    "segments",
    "reward",
    "label",
    "spans",
    "task_id",
    "tests",
    "test_setup",
    "language",
    "code",
    "test_list",
    "test_setup_code",
    "test_imports",
    "canonical_solution",
    "test",
    "entry_point",
    "name",
    "description",
    "public_tests",
    "private_tests",
    "generated_tests",
    "solutions",
    "incorrect_solutions",
];

/// The question of a row.
///
/// # Errors
/// Columns in which nothing is asked, a value that its column cannot have.
pub(super) fn question(row: &mut Fields) -> Result<Question, DataError> {
    let (asked, tests) = asked(row)?;
    let task_id = match optional::name(row, "task_id")? {
        Some(task) => Some(task),
        None if row.has("description") => optional::name(row, "name")?,
        None => None,
    };
    Ok(Question {
        place: row.place.clone(),
        task_id,
        asked,
        tests,
        language: row.text_if_there("language")?.map(|name| name.trim().to_lowercase()),
    })
}

fn asked(row: &mut Fields) -> Result<(Asked, Option<Tests>), DataError> {
    if let Some(column) = row.first(&conversation::COLUMNS) {
        let value = row.take(column).unwrap_or_default();
        let given = messages(&row.at(column), value)?;
        let mut messages = with_system(row, given)?;
        while messages.last().is_some_and(is_assistant) {
            messages.pop();
        }
        if messages.is_empty() {
            return Err(row.at(column).wrong("has no message to answer; give a user's turn"));
        }
        let tools = tools_of(row)?;
        return Ok((Asked::Chat { messages, tools }, optional::tests(row)?));
    }
    if row.has("test_list") && row.first(&["text", "prompt"]).is_some() {
        let asked = instruction_alone(benchmark::mbpp_task(row)?);
        return Ok((asked, benchmark::mbpp_tests(row)?));
    }
    if row.has("prompt") {
        let is_humaneval = row.have(&["test", "entry_point"]) && !row.has("tests");
        let asked = match Prompt::read(row)? {
            Prompt::Text(text) if text.is_empty() => {
                return Err(row.at("prompt").wrong("is empty; write what is asked"));
            }
            Prompt::Text(text) => Asked::Text(text),
            Prompt::Chat(messages, tools) => Asked::Chat { messages, tools },
        };
        let tests = match is_humaneval {
            true => benchmark::humaneval_tests(row)?,
            false => optional::tests(row)?,
        };
        return Ok((asked, tests));
    }
    if row.has("instruction") {
        let asked = Asked::Instruction(instruction::question(row)?);
        return Ok((asked, optional::tests(row)?));
    }
    if row.has("description") {
        let asked = instruction_alone(row.text("description")?);
        return Ok((asked, benchmark::contest_tests(row)?));
    }
    Err(row.unasked())
}

fn instruction_alone(instruction: String) -> Asked {
    Asked::Instruction(Instruction {
        instruction,
        ..Instruction::default()
    })
}

fn is_assistant(message: &Message) -> bool {
    message.get("role").and_then(serde_json::Value::as_str) == Some("assistant")
}
