//! `prompt` and `completion`: two strings, or two lists of messages. Loss is on the completion.

use super::{
    Schema,
    conversation::{tools_of, with_system},
    fields::{Fields, not_blank},
    message::{has_answer, messages, one_or_more},
    optional,
};
use crate::{Body, DataError, chat::Message};
use serde_json::Value;

/// A prompt and its completion.
pub(super) const SCHEMA: Schema = Schema {
    name: "prompt-completion",
    fits: |row| row.have(&["prompt", "completion"]),
    read: |row, schema| {
        let prompt = Prompt::read(row)?;
        let completion = row.take("completion").unwrap_or_default();
        let body = prompt.with(row, "completion", None, completion)?;
        optional::record(row, schema, vec![optional::Part::new(body)])
    },
};

/// What completions are written for.
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    /// Raw text.
    Text(String),
    /// Messages, with the tools of the row.
    Chat(Vec<Message>, Option<Value>),
}

impl Prompt {
    /// Takes the column `prompt`, and `system` and `tools` for messages.
    ///
    /// # Errors
    /// Something that is neither a text nor a list of messages; a system text for a prompt that is a text.
    pub fn read(row: &mut Fields) -> Result<Self, DataError> {
        match row.take("prompt").unwrap_or_default() {
            Value::String(text) => {
                if row.text_if_there("system")?.is_some_and(|text| !text.trim().is_empty()) {
                    return Err(row.at("system").wrong(
                        "is not used with a text as prompt; map the prompt as `instruction`, the answer as `output`",
                    ));
                }
                Ok(Self::Text(text))
            }
            list @ Value::Array(_) => {
                let messages = messages(&row.at("prompt"), list)?;
                let messages = with_system(row, messages)?;
                Ok(Self::Chat(messages, tools_of(row)?))
            }
            other => Err(row.at("prompt").found(&other, "a text or a list of messages")),
        }
    }

    /// The prompt with the completion in `column`, or in its element `index`.
    ///
    /// # Errors
    /// A completion of the other kind, or an empty one.
    pub fn with(&self, row: &Fields, column: &str, index: Option<usize>, completion: Value) -> Result<Body, DataError> {
        let column = row.at(column);
        let at = index.map_or(column, |index| column.item(index));
        match (self, completion) {
            (Self::Text(prompt), Value::String(completion)) => Ok(Body::Completion {
                prompt: prompt.clone(),
                completion: not_blank(&at, completion)?,
            }),
            (Self::Chat(prompt, tools), completion @ (Value::Array(_) | Value::Object(_))) => {
                let completion = one_or_more(&at, completion)?;
                has_answer(&at, &completion, 0)?;
                Ok(Body::Chat {
                    trained_from: prompt.len(),
                    messages: [prompt.as_slice(), &completion].concat(),
                    tools: tools.clone(),
                })
            }
            (Self::Text(_), other @ (Value::Array(_) | Value::Object(_))) => {
                Err(at.found(&other, "a text as `prompt` is, or make both lists of messages"))
            }
            (Self::Text(_), other) => Err(at.found(&other, "a text")),
            (Self::Chat(..), other) => Err(at.found(&other, "a list of messages as `prompt` is, or make both texts")),
        }
    }
}
