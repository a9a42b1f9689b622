//! Conversations: `messages`, or `conversations`; with `tools` and `system` where given.
//!
//! With `label` a conversation has a reward. Loss is on the assistant's turns.

use super::{
    Schema,
    fields::Fields,
    message::{has_answer, messages, tools},
    optional,
};
use crate::{
    Body, DataError, Record,
    chat::{self, Message},
};
use serde_json::Value;

/// The two names of the column.
pub(super) const COLUMNS: [&str; 2] = ["messages", "conversations"];

/// A conversation with a label.
pub(super) const LABELLED: Schema = Schema {
    name: "messages-label",
    fits: |row| row.first(&COLUMNS).is_some() && row.has("label"),
    read,
};

/// A conversation.
pub(super) const PLAIN: Schema = Schema {
    name: "messages",
    fits: |row| row.first(&COLUMNS).is_some(),
    read,
};

/// Columns of what belongs to a message and is not text.
const MEDIA: [&str; 3] = ["images", "videos", "audios"];

fn read(row: &mut Fields, schema: &'static str) -> Result<Vec<Record>, DataError> {
    let media = MEDIA.iter().find(|name| match row.get(name) {
        Some(value) => value.as_array().is_none_or(|list| !list.is_empty()),
        None => row.is_unread(name),
    });
    if let Some(media) = media {
        return Err(row
            .at(media)
            .wrong("belongs to the messages, but only text is read; remove such rows"));
    }
    let column = row.first(&COLUMNS).unwrap_or("messages");
    let value = row.take(column).unwrap_or_default();
    let given = messages(&row.at(column), value)?;
    has_answer(&row.at(column), &given, 0)?;
    let body = Body::Chat {
        messages: with_system(row, given)?,
        tools: tools_of(row)?,
        trained_from: 0,
    };
    optional::record(row, schema, vec![optional::Part::new(body)])
}

/// The messages after the column `system`, if there is one and they have no system message of their own.
///
/// # Errors
/// A system text that is none.
pub(super) fn with_system(row: &mut Fields, mut given: Vec<Message>) -> Result<Vec<Message>, DataError> {
    let system = row.text_if_there("system")?.filter(|text| !text.trim().is_empty());
    let has_one = given.first().and_then(|message| message.get("role")?.as_str()) == Some("system");
    if let Some(system) = system.filter(|_| !has_one) {
        given.insert(0, chat::message("system", &system));
    }
    Ok(given)
}

/// The column `tools`, or OpenAI's older `functions`.
///
/// # Errors
/// Something that is no list of tools.
pub(super) fn tools_of(row: &mut Fields) -> Result<Option<Value>, DataError> {
    let Some(column) = row.first(&["tools", "functions"]) else {
        return Ok(None);
    };
    let value = row.take(column).unwrap_or_default();
    tools(&row.at(column), value)
}
