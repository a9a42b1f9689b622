//! Chat templates, and conversations through real ones.

use super::{files, tokenizers, words};
use crate::{Kind, Outcome, Target, mutate::Shape, scratch::put, target::POOL};
use serde_json::{Map, Value, json};
use std::path::Path;
use wmtp_data::{ConversationOptions, Tokenizer, TrainOn, chat::Message};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Messages of every role, with tools.
fn conversation() -> (Vec<Message>, Value) {
    let call = json!({"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, "x"]}}});
    let messages = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "What is 1 + 2? é"}),
        json!({"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "It is a sum."}),
        json!({"role": "tool", "name": "add", "content": "3"}),
        json!({"role": "assistant", "content": "3", "weight": 0.5}),
    ];
    let parameters = json!({"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]});
    let tool =
        json!({"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": parameters}});
    (messages.into_iter().map(object).collect(), json!([tool]))
}

fn render(tokenizer: &Tokenizer, messages: &[Message], tools: Option<&Value>) -> Outcome {
    let outcome = Outcome::of(&tokenizer.conversation(messages, true));
    for train_on in [TrainOn::Assistant, TrainOn::All] {
        let options = ConversationOptions {
            train_on,
            trained_from: 1,
        };
        if let Ok(found) = tokenizer.trained_conversation(messages, tools, options) {
            let _ = found.content_range(1, "What is");
        }
    }
    outcome
}

pub(super) const TEMPLATE: Target = Target {
    name: "chat-template",
    what: "a chat template, rendered with a conversation",
    kind: Kind::Memory,
    shape: Shape::Text,
    words: words::TEMPLATE,
    // Templates are rendered on a pool.
    stack: POOL,
    seeds: || files("tests/fixtures/chat/templates", ".jinja"),
    open: |dir| {
        tokenizers::tiny(dir);
        let dir = dir.to_owned();
        let (messages, tools) = conversation();
        let mut executions = 0usize;
        Box::new(move |input| {
            put(&dir.join("chat_template.jinja"), input);
            let tokenizer = match Tokenizer::load(&dir) {
                Ok(tokenizer) => tokenizer,
                Err(error) => return Outcome::refused(&error.to_string()),
            };
            executions += 1;
            // Marks of what is trained need several renderings.
            match executions % 4 {
                0 => render(&tokenizer, &messages, Some(&tools)),
                _ => Outcome::of(&tokenizer.conversation(&messages, true)),
            }
        })
    },
};

pub(super) const CONVERSATION: Target = Target {
    name: "conversation",
    what: "messages and tools, through published templates",
    kind: Kind::Loader,
    shape: Shape::Json,
    words: words::ROWS,
    seeds: || {
        let (messages, tools) = conversation();
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]);
        let all = [
            json!({"messages": messages, "tools": tools}),
            json!({"messages": parts}),
        ];
        all.map(|value| value.to_string().into_bytes()).into()
    },
    open: |dir| {
        let tokenizers: Vec<Tokenizer> = files("tests/fixtures/chat/templates", ".jinja")
            .iter()
            .enumerate()
            .filter_map(|(number, template)| of_template(&dir.join(number.to_string()), template))
            .collect();
        assert!(tokenizers.len() > 10, "the templates are where they are looked for");
        Box::new(move |input| {
            let Ok(value) = serde_json::from_slice::<Value>(input) else {
                return Outcome::refused("no JSON");
            };
            let messages: Vec<Message> = value["messages"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .cloned()
                .collect();
            let tools = value.get("tools").filter(|tools| !tools.is_null());
            let tokenizer = &tokenizers[input.len() % tokenizers.len()];
            render(tokenizer, &messages, tools)
        })
    },
    ..TEMPLATE
};

fn of_template(dir: &Path, template: &[u8]) -> Option<Tokenizer> {
    std::fs::create_dir_all(dir).ok()?;
    tokenizers::tiny(dir);
    put(&dir.join("chat_template.jinja"), template);
    Tokenizer::load(dir).ok()
}
