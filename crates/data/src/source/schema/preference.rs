//! Preference pairs: two completions of one prompt, `chosen` with reward 1 and `rejected` with reward 0.
//!
//! Five spellings: a message each next to `messages` or `conversations` (LLaMA-Factory); two whole
//! conversations that share their beginning, or whose beginning is `prompt` (TRL); `chosen_messages` and
//! `rejected_messages`; two strings with `prompt`, or with `instruction` and `input`; two strings alone that
//! share their beginning (TRL's implicit prompt, Anthropic's HH-RLHF).

use super::{
    Schema, conversation,
    conversation::{tools_of, with_system},
    fields::{Fields, not_blank},
    instruction,
    message::{answer, has_answer, is_answer, messages, one_or_more},
    optional,
};
use crate::{
    Body, DataError, Instruction, Record,
    chat::{Message, message},
};
use serde_json::Value;

const PAIR: [&str; 2] = ["chosen", "rejected"];
const MESSAGE_PAIR: [&str; 2] = ["chosen_messages", "rejected_messages"];

/// Next to a conversation.
pub(super) const MESSAGES: Schema = Schema {
    name: "messages-chosen-rejected",
    fits: |row| row.first(&conversation::COLUMNS).is_some() && pair(row).is_some(),
    read,
};

/// Conversations alone.
pub(super) const CONVERSATIONS: Schema = Schema {
    name: "chosen-rejected",
    fits: |row| row.have(&MESSAGE_PAIR) || row.have(&PAIR) && row.first(&["prompt", "instruction"]).is_none(),
    read,
};

/// With a prompt or an instruction.
pub(super) const PROMPT: Schema = Schema {
    name: "prompt-chosen-rejected",
    fits: |row| row.have(&PAIR),
    read,
};

fn pair(row: &Fields) -> Option<[&'static str; 2]> {
    [MESSAGE_PAIR, PAIR].into_iter().find(|names| row.have(names))
}

fn read(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let [chosen_column, rejected_column] = pair(row).unwrap_or(PAIR);
    let chosen = row.take(chosen_column).unwrap_or_default();
    let rejected = row.take(rejected_column).unwrap_or_default();
    let columns = [chosen_column, rejected_column];
    let bodies = match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) => strings(row, columns, [chosen, rejected])?,
        (chosen @ Value::Object(_), rejected @ Value::Object(_)) => continued(row, columns, [chosen, rejected])?,
        (chosen @ Value::Array(_), rejected @ Value::Array(_)) => lists(row, columns, [chosen, rejected])?,
        (Value::String(_) | Value::Object(_) | Value::Array(_), rejected) => {
            return Err(row
                .at(rejected_column)
                .found(&rejected, &format!("the same kind as `{chosen_column}`")));
        }
        (chosen, _) => {
            return Err(row
                .at(chosen_column)
                .found(&chosen, "a text, a message or a list of messages"));
        }
    };
    let rewards = [1.0, 0.0];
    let parts = bodies.into_iter().zip(rewards).map(|(body, reward)| optional::Part {
        body,
        reward: Some(reward),
    });
    optional::record(row, schema, parts.collect())
}

/// Two answers in plain text.
fn strings(row: &mut Fields, columns: [&str; 2], texts: [String; 2]) -> Result<[Body; 2], DataError> {
    for (column, text) in columns.iter().zip(&texts) {
        not_blank(&row.at(column), text.clone())?;
    }
    if row.first(&conversation::COLUMNS).is_some() || row.get("prompt").is_some_and(Value::is_array) {
        let context = context(row, columns)?;
        let tools = tools_of(row)?;
        return Ok(texts.map(|text| Body::Chat {
            messages: [context.as_slice(), &[answer(text)]].concat(),
            tools: tools.clone(),
            trained_from: context.len(),
        }));
    }
    if row.has("prompt") {
        let prompt = row.text("prompt")?;
        return Ok(texts.map(|completion| Body::Completion {
            prompt: prompt.clone(),
            completion,
        }));
    }
    if row.has("instruction") {
        let question = instruction::question(row)?;
        return Ok(texts.map(|output| {
            Body::Instruction(Instruction {
                output,
                ..question.clone()
            })
        }));
    }
    match shared_words(&texts) {
        Some(length) => Ok(texts.map(|text| {
            let (prompt, completion) = text.split_at(length);
            Body::Completion {
                prompt: prompt.to_owned(),
                completion: completion.to_owned(),
            }
        })),
        None => Err(row.at(columns[0]).wrong(format!(
            "has no prompt, and `{}` does not begin with the same word; add a column `prompt`",
            columns[1]
        ))),
    }
}

/// The prompt of two texts that have none of their own: the words that both begin with, as TRL takes it. Its
/// length in bytes, without the white space after it; None if the first words differ.
fn shared_words([a, b]: &[String; 2]) -> Option<usize> {
    let mut pairs = a.char_indices().zip(b.chars());
    let differs = pairs.find(|((_, left), right)| left != right).map(|((at, _), _)| at);
    let shared = a.get(..differs.unwrap_or(a.len().min(b.len())))?;
    // Where a word ends in one text and continues in the other, it is no shared word.
    let end = shared.rfind(char::is_whitespace)?;
    let prompt = shared.get(..end)?.trim_end();
    (!prompt.trim().is_empty()).then_some(prompt.len())
}

/// Two answers that continue the context.
fn continued(row: &mut Fields, columns: [&str; 2], values: [Value; 2]) -> Result<[Body; 2], DataError> {
    let context = context(row, columns)?;
    let tools = tools_of(row)?;
    let [chosen, rejected] = values;
    let body = |column: &str, value: Value| -> Result<Body, DataError> {
        let at = row.at(column);
        let completion = one_or_more(&at, value)?;
        has_answer(&at, &completion, 0)?;
        Ok(Body::Chat {
            trained_from: context.len(),
            messages: [context.as_slice(), &completion].concat(),
            tools: tools.clone(),
        })
    };
    Ok([body(columns[0], chosen)?, body(columns[1], rejected)?])
}

/// Two lists: whole conversations, or what continues the context.
fn lists(row: &mut Fields, columns: [&str; 2], values: [Value; 2]) -> Result<[Body; 2], DataError> {
    let [chosen, rejected] = values;
    let whole = [
        messages(&row.at(columns[0]), chosen.clone())?,
        messages(&row.at(columns[1]), rejected.clone())?,
    ];
    let begins = |messages: &[Message]| messages.first().is_some_and(|message| !asks(message));
    if whole.iter().any(|messages| begins(messages)) {
        return continued(row, columns, [chosen, rejected]);
    }
    let [a, b] = &whole;
    let equal = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let shared = equal.min(a.len() - 1).min(b.len() - 1);
    if shared == 0 {
        return Err(row.at(columns[1]).wrong(format!(
            "does not begin with the same message as `{}`; give both the same beginning",
            columns[0]
        )));
    }
    for (column, messages) in columns.iter().zip(&whole) {
        has_answer(&row.at(column), messages, shared)?;
    }
    let tools = tools_of(row)?;
    let [chosen, rejected] = whole;
    let rest = |messages: Vec<Message>| messages.into_iter().skip(shared).collect::<Vec<_>>();
    let context = with_system(row, chosen.iter().take(shared).cloned().collect())?;
    Ok([rest(chosen), rest(rejected)].map(|rest| Body::Chat {
        trained_from: context.len(),
        messages: [context.as_slice(), &rest].concat(),
        tools: tools.clone(),
    }))
}

/// Whether a message begins a conversation.
fn asks(message: &Message) -> bool {
    let role = message.get("role").and_then(Value::as_str);
    !is_answer(message) && role != Some("tool")
}

/// What both answers follow: the conversation, or the prompt.
fn context(row: &mut Fields, columns: [&str; 2]) -> Result<Vec<Message>, DataError> {
    let given = if let Some(column) = row.first(&conversation::COLUMNS) {
        let value = row.take(column).unwrap_or_default();
        messages(&row.at(column), value)?
    } else {
        match row.take("prompt") {
            Some(Value::String(prompt)) => vec![message("user", &prompt)],
            Some(list @ Value::Array(_)) => messages(&row.at("prompt"), list)?,
            Some(other) => return Err(row.at("prompt").found(&other, "a text or a list of messages")),
            None => {
                return Err(row
                    .at(columns[0])
                    .wrong("has nothing before the answer; add `messages` or `prompt`, or write whole conversations"));
            }
        }
    };
    with_system(row, given)
}
