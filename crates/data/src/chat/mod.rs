//! Messages through a model's chat template, as transformers 5 does it, and which tokens of the text are
//! trained.

mod conversation;
mod selection;
mod turns;

pub use conversation::{Conversation, ConversationOptions};
pub use selection::TrainOn;

use super::template::{Clock, Rendered, Source, Template};
use serde_json::{Map, Value, json};

/// A message of a conversation: `role`, `content` and whatever else the template reads.
pub type Message = Map<String, Value>;

/// A message's content as text; parts of a list one after the other.
pub fn content(message: &Message) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

/// A message with nothing but role and content.
pub fn message(role: &str, content: &str) -> Message {
    [("role", role), ("content", content)]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect()
}

/// Renders `template` for these messages. `special` are the tokenizer's named tokens (`bos_token`,
/// `eos_token`, …), which templates write out; `tools` and `documents` are none; `strftime_now` gives
/// the day of `clock`.
///
/// # Errors
/// As [`super::template::render`].
pub(super) fn render(
    template: &str,
    messages: &[Message],
    special: &[(String, String)],
    add_generation_prompt: bool,
    clock: &Clock,
) -> Result<String, String> {
    let source = Source::read(template).map_err(|error| error.to_string())?;
    let renderer = Renderer::new(&source, special, None, clock)?;
    Ok(renderer.render(messages, add_generation_prompt)?.text)
}

/// A parsed template with everything that it is given except for the messages.
pub(super) struct Renderer<'a> {
    template: Template<'a>,
    special: &'a [(String, String)],
    tools: Option<&'a Value>,
    clock: &'a Clock,
}

impl<'a> Renderer<'a> {
    /// # Errors
    /// The template's syntax; `tools` that are not a list of objects.
    pub(super) fn new(
        source: &'a Source,
        special: &'a [(String, String)],
        tools: Option<&'a Value>,
        clock: &'a Clock,
    ) -> Result<Self, String> {
        let is_list = |tools: &Value| tools.as_array().is_some_and(|list| list.iter().all(Value::is_object));
        if tools.is_some_and(|tools| !is_list(tools)) {
            return Err("the tools must be a list of JSON schemas (objects)".into());
        }
        Ok(Self {
            template: Template::parse(source).map_err(|error| error.to_string())?,
            special,
            tools,
            clock,
        })
    }

    /// The text of these messages, and where each part of it comes from.
    ///
    /// # Errors
    /// What the template refuses or the renderer does not support.
    pub(super) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered, String> {
        let messages: Vec<Value> = messages.iter().map(|message| normalised(message).into()).collect();
        let special = self.special.iter();
        let mut names: Map<String, Value> = special
            .map(|(name, token)| (name.clone(), token.as_str().into()))
            .collect();
        names.insert("messages".into(), messages.into());
        names.insert("tools".into(), self.tools.cloned().unwrap_or_default());
        names.insert("documents".into(), json!(null));
        names.insert("add_generation_prompt".into(), add_generation_prompt.into());
        self.template
            .render(&names, self.clock)
            .map_err(|error| error.to_string())
    }
}

/// Without fields that are null, and with the reasoning under the names that templates read.
fn normalised(message: &Message) -> Message {
    let given = || message.iter().filter(|(_, value)| !value.is_null());
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(|name| message.get(name).filter(|value| !value.is_null()));
    let mut fields = Message::new();
    if let Some(reasoning) = reasoning {
        fields.insert("thinking".into(), reasoning.clone());
    }
    fields.extend(given().map(|(name, value)| (name.clone(), value.clone())));
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".into(), reasoning.clone());
    }
    fields
}
