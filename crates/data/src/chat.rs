//! Messages through a model's chat template, as transformers 5 does it.

use super::template::{self, Clock};
use serde_json::{Map, Value, json};

/// A message of a conversation: `role`, `content` and whatever else the template reads.
pub type Message = Map<String, Value>;

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
/// As [`template::render`].
pub(super) fn render(
    template: &str,
    messages: &[Message],
    special: &[(String, String)],
    add_generation_prompt: bool,
    clock: &Clock,
) -> Result<String, String> {
    let messages: Vec<Value> = messages.iter().map(|message| normalised(message).into()).collect();
    let mut names: Map<String, Value> = special
        .iter()
        .map(|(name, token)| (name.clone(), token.as_str().into()))
        .collect();
    names.insert("messages".into(), messages.into());
    names.insert("tools".into(), json!(null));
    names.insert("documents".into(), json!(null));
    names.insert("add_generation_prompt".into(), add_generation_prompt.into());
    template::render(template, &names, clock).map_err(|error| error.to_string())
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
