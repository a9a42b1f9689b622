//! Messages in the spellings of OpenAI, TRL, axolotl and LLaMA-Factory, as those that chat templates read.

use super::fields::{self, not_blank};
use crate::{DataError, chat::Message, source::row::At};
use serde_json::{Map, Value, json};

/// Roles as data files write them, with those of chat templates.
const ROLES: [(&str, &str); 14] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("human", "user"),
    ("assistant", "assistant"),
    ("gpt", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("function_call", CALL),
    ("tool_call", CALL),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function", "tool"),
    ("tool_response", "tool"),
];
/// The role of an assistant's turn that only calls functions.
const CALL: &str = "call";
const PARTS_HAVE_NO_WEIGHT: &str =
    "parts of a message with their own weight are not read; give the message `train`, or the row `spans`";
const KNOWN: &str = "`system`, `user`, `assistant` or `tool`";

/// The messages of a list.
///
/// # Errors
/// Something that is no list of messages; an empty list.
pub(super) fn messages(at: &At, value: Value) -> Result<Vec<Message>, DataError> {
    let Value::Array(items) = value else {
        return Err(at.found(&value, "a list of messages"));
    };
    if items.is_empty() {
        return Err(at.wrong("has no messages; remove the row or fill it"));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| message(&at.item(index), item))
        .collect()
}

/// A list of messages, or a message alone.
///
/// # Errors
/// As [`messages`].
pub(super) fn one_or_more(at: &At, value: Value) -> Result<Vec<Message>, DataError> {
    match value {
        Value::Object(_) => Ok(vec![message(at, value)?]),
        other => messages(at, other),
    }
}

/// A message with the assistant's words.
pub(super) fn answer(text: String) -> Message {
    crate::chat::message("assistant", &text)
}

/// A message: `role` and `content` first, then what else it has. `from` and `value`, tool calls and weights
/// get the names that are read later.
fn message(at: &At, value: Value) -> Result<Message, DataError> {
    let Value::Object(mut given) = value else {
        return Err(at.found(&value, "a message: an object of `role` and `content`"));
    };
    given.retain(|_, value| !value.is_null());
    let (role_key, content_key) = match given.contains_key("role") {
        true => ("role", "content"),
        false if given.contains_key("from") => ("from", "value"),
        false => return Err(at.wrong("the message has no `role`; give each message `role` and `content`")),
    };
    let role = given.shift_remove(role_key).unwrap_or_default();
    let role = role_of(&at.field(role_key), &role)?;
    if given.contains_key("train_detail") {
        return Err(at.field("train_detail").wrong(PARTS_HAVE_NO_WEIGHT));
    }
    let content = given.shift_remove(content_key);
    let content = content
        .map(|content| content_of(&at.field(content_key), content))
        .transpose()?
        .unwrap_or_default();
    let mut message = Message::new();
    if role == CALL {
        let text = content
            .text
            .ok_or_else(|| at.wrong(format!("the message has no `{content_key}`; add it")))?;
        message.insert("role".into(), "assistant".into());
        message.insert(
            "tool_calls".into(),
            calls_in_text(&at.field(content_key), &text)?.into(),
        );
    } else {
        message.insert("role".into(), role.into());
        let called = ["tool_calls", "function_call"]
            .iter()
            .any(|name| given.contains_key(*name));
        match content.text {
            Some(text) => _ = message.insert("content".into(), text.into()),
            None if role == "assistant" && (called || !content.calls.is_empty()) => {}
            None => return Err(at.wrong(format!("the message has no `{content_key}`; add it"))),
        }
        if !content.reasoning.is_empty() {
            message.insert("reasoning_content".into(), content.reasoning.into());
        }
        if !content.calls.is_empty() {
            message.insert("tool_calls".into(), content.calls.into());
        }
    }
    weights(at, &mut given, &mut message)?;
    if let Some(call) = given.shift_remove("function_call") {
        message.insert("tool_calls".into(), json!([call_of(&at.field("function_call"), call)?]));
    }
    match given.shift_remove("tool_calls") {
        Some(Value::Array(calls)) if calls.is_empty() => {}
        Some(Value::Array(calls)) => {
            let list = at.field("tool_calls");
            let calls: Result<Vec<Value>, DataError> = calls
                .into_iter()
                .enumerate()
                .map(|(index, call)| call_of(&list.item(index), call))
                .collect();
            message.insert("tool_calls".into(), calls?.into());
        }
        Some(other) => return Err(at.field("tool_calls").found(&other, "a list of calls")),
        None => {}
    }
    message.extend(given);
    Ok(message)
}

fn role_of(at: &At, role: &Value) -> Result<&'static str, DataError> {
    let Value::String(name) = role else {
        return Err(at.found(role, KNOWN));
    };
    let known = ROLES
        .iter()
        .find(|(spelled, _)| name.trim().eq_ignore_ascii_case(spelled));
    known
        .map(|(_, role)| *role)
        .ok_or_else(|| at.wrong(format!("unknown role `{name}`; give {KNOWN}")))
}

/// What a message says.
#[derive(Default)]
struct Content {
    text: Option<String>,
    reasoning: String,
    calls: Vec<Value>,
}

/// A text, or a list of parts: `text`, `reasoning` and `tool_call`, each with its words under `text` or
/// `value`. Texts follow each other without a separator.
fn content_of(at: &At, content: Value) -> Result<Content, DataError> {
    let parts = match content {
        Value::String(text) => {
            return Ok(Content {
                text: Some(text),
                ..Content::default()
            });
        }
        Value::Array(parts) => parts,
        other => return Err(at.found(&other, "a text or a list of `{type: text, text: ...}`")),
    };
    let mut content = Content::default();
    for (index, part) in parts.iter().enumerate() {
        let at = at.item(index);
        if ["train", "weight"]
            .iter()
            .any(|name| part.get(*name).is_some_and(|value| !value.is_null()))
        {
            return Err(at.wrong(PARTS_HAVE_NO_WEIGHT));
        }
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        let words = ["text", "value"].iter().find_map(|name| part.get(*name)?.as_str());
        match (kind, words) {
            ("text", Some(words)) => content.text.get_or_insert_default().push_str(words),
            ("reasoning" | "thinking", Some(words)) => content.reasoning.push_str(words),
            ("tool_call", Some(words)) => content.calls.extend(calls_in_text(&at, words)?),
            _ => {
                return Err(at.found(part, "a part `{type: text, text: ...}`; images and audio are not read"));
            }
        }
    }
    if content.text.is_none() && content.calls.is_empty() {
        content.text = Some(String::new());
    }
    Ok(content)
}

/// `weight` or `loss_weight`, and `train`.
fn weights(at: &At, given: &mut Map<String, Value>, message: &mut Message) -> Result<(), DataError> {
    let (weight, loss_weight) = (given.shift_remove("weight"), given.shift_remove("loss_weight"));
    let weight = weight
        .map(|weight| ("weight", weight))
        .or(loss_weight.map(|weight| ("loss_weight", weight)));
    if let Some((name, weight)) = weight {
        let number = fields::weight(&at.field(name), &weight)?;
        message.insert("weight".into(), json!(number));
    }
    match given.shift_remove("train") {
        None => {}
        Some(Value::Bool(train)) => _ = message.insert("train".into(), train.into()),
        Some(other) => return Err(at.field("train").found(&other, "true or false")),
    }
    Ok(())
}

/// A call as templates read it: `{type: function, function: {name, arguments}}`, where the arguments are an
/// object even if the file has them as JSON in a text.
fn call_of(at: &At, call: Value) -> Result<Value, DataError> {
    let Value::Object(mut call) = call else {
        return Err(at.found(&call, "a call: an object of `name` and `arguments`"));
    };
    call.retain(|_, value| !value.is_null());
    let (outer, mut function) = match call.shift_remove("function") {
        Some(Value::Object(function)) => (call, function),
        Some(other) => {
            return Err(at
                .field("function")
                .found(&other, "an object of `name` and `arguments`"));
        }
        None => (Map::new(), call),
    };
    function.retain(|_, value| !value.is_null());
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(at.wrong("the call has no `name`; name the function"));
    }
    if let Some(Value::String(text)) = function.get("arguments")
        && let Some(arguments) = object_in(text)
    {
        function.insert("arguments".into(), arguments);
    }
    let mut whole = Map::from_iter([("type".to_owned(), json!("function"))]);
    whole.extend(outer);
    whole.insert("function".into(), function.into());
    Ok(whole.into())
}

/// The object that a text holds as JSON, also as JSON of such a text.
fn object_in(text: &str) -> Option<Value> {
    match serde_json::from_str(text).ok()? {
        Value::String(inner) => serde_json::from_str(&inner).ok().filter(Value::is_object),
        other => Some(other).filter(Value::is_object),
    }
}

/// The calls that a message's text is.
fn calls_in_text(at: &At, text: &str) -> Result<Vec<Value>, DataError> {
    let wrong = || at.wrong("is no JSON of a call; write `{\"name\": ..., \"arguments\": {...}}`");
    let calls = match serde_json::from_str(text).map_err(|_| wrong())? {
        Value::Array(calls) if !calls.is_empty() => calls,
        call @ Value::Object(_) => vec![call],
        _ => return Err(wrong()),
    };
    calls.into_iter().map(|call| call_of(at, call)).collect()
}

/// Whether a message is a turn of the assistant.
pub(super) fn is_answer(message: &Message) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

/// Checks that something is trained: an assistant's turn with words or calls from `from` on.
///
/// # Errors
/// No such turn.
pub(super) fn has_answer(at: &At, messages: &[Message], from: usize) -> Result<(), DataError> {
    let mut answers = messages
        .iter()
        .skip(from)
        .filter(|message| is_answer(message))
        .peekable();
    if answers.peek().is_none() {
        return Err(at.wrong("has no assistant turn, so nothing is trained; add a message of the role `assistant`"));
    }
    let filled = |message: &Message| {
        let text = message.get("content").and_then(Value::as_str).unwrap_or_default();
        !text.trim().is_empty() || message.contains_key("tool_calls")
    };
    if answers.any(filled) {
        return Ok(());
    }
    not_blank(at, String::new()).map(drop)
}

/// Definitions of tools: a list, or the JSON of one in a text; nothing if it is empty. A function alone is
/// wrapped as `{type: function, function: ...}`.
///
/// # Errors
/// Something else.
pub(super) fn tools(at: &At, value: Value) -> Result<Option<Value>, DataError> {
    let expected = "a list of tools, or its JSON";
    let parsed = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(&text).map_err(|_| at.found(&Value::String(text), expected))?,
        other => other,
    };
    let Value::Array(items) = parsed else {
        return Err(at.found(&parsed, expected));
    };
    let tool = |(index, item): (usize, Value)| {
        let item = match item {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        match item {
            Value::Object(tool) if tool.contains_key("function") => Ok(Value::Object(tool)),
            Value::Object(function) if function.contains_key("name") => {
                Ok(json!({"type": "function", "function": function}))
            }
            other => Err(at
                .item(index)
                .found(&other, "a tool: an object with `function` or `name`")),
        }
    };
    let tools: Result<Vec<Value>, DataError> = items.into_iter().enumerate().map(tool).collect();
    Ok(Some(tools?).filter(|tools| !tools.is_empty()).map(Value::Array))
}
