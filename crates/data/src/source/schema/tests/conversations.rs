//! Messages in their spellings.

use super::{assistant, chats, read, try_read, user, wrong};
use crate::Body;
use serde_json::{Value, json};

/// The first conversation's messages.
fn messages(row: Value) -> Value {
    chats(&read(row)).remove(0).0
}

fn tools(row: Value) -> Option<Value> {
    match read(row).samples.remove(0).body {
        Body::Chat { tools, .. } => tools,
        other => panic!("{other:?}"),
    }
}

#[test]
fn roles_have_aliases() {
    for (role, expected) in [
        ("human", "user"),
        ("Human", "user"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("developer", "system"),
        ("observation", "tool"),
        ("function", "tool"),
    ] {
        let found = messages(json!({"messages": [{"role": role, "content": "x"}, assistant("y")]}));
        assert_eq!(found[0]["role"], expected, "{role}");
    }
    // `role` and `content` in `conversations`, `from` and `value` in `messages`.
    let expected = json!([user("q"), assistant("a")]);
    assert_eq!(
        messages(json!({"conversations": [user("q"), assistant("a")]})),
        expected
    );
    let sharegpt = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
    assert_eq!(messages(json!({"messages": sharegpt})), expected);
}

#[test]
fn a_system_column_is_used_where_the_conversation_has_none() {
    let system = json!({"role": "system", "content": "s"});
    let given = json!([user("q"), assistant("a")]);
    assert_eq!(messages(json!({"messages": given, "system": "s"}))[0], system);
    assert_eq!(messages(json!({"messages": given, "system": " "}))[0], user("q"));
    let own = json!([system, user("q"), assistant("a")]);
    assert_eq!(messages(json!({"messages": own, "system": "other"})), own);
}

#[test]
fn parts_are_text_reasoning_and_calls() {
    let parts = json!([
        {"type": "reasoning", "value": "think"},
        {"type": "text", "text": "a"},
        {"type": "text", "value": "b"},
        {"type": "tool_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}
    ]);
    let found = messages(json!({"messages": [user("q"), {"role": "assistant", "content": parts}]}));
    assert_eq!(
        found[1],
        json!({"role": "assistant", "content": "ab", "reasoning_content": "think",
               "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]})
    );
    // Axolotl's weights for parts of a message have no place here and may not be lost.
    let masked = json!({"role": "assistant", "content": [{"type": "text", "text": "a", "train": false}]});
    let detailed = json!({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0, "end_offset": 0}]});
    for message in [masked, detailed] {
        let error = wrong(json!({"messages": [user("q"), message]}));
        assert!(
            error.contains("parts of a message with their own weight are not read"),
            "{error}"
        );
    }
}

#[test]
fn calls_are_wrapped_and_their_arguments_are_objects() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    for message in [
        json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]}),
        json!({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]}),
        json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"x\": 1}"}}),
        json!({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "\"{\\\"x\\\": 1}\""}]}),
        json!({"from": "function_call", "value": "[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]"}),
    ] {
        let found = messages(json!({"messages": [user("q"), message]}));
        assert_eq!(found[1], json!({"role": "assistant", "tool_calls": call}), "{message}");
    }
    // Arguments that are no object stay as they are.
    let message = json!({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x"}]});
    let found = messages(json!({"messages": [user("q"), message]}));
    assert_eq!(found[1]["tool_calls"][0]["function"]["arguments"], "x");
    let nameless = json!({"role": "assistant", "tool_calls": [{"arguments": "x"}]});
    assert_eq!(
        wrong(json!({"messages": [user("q"), nameless]})),
        "column `messages[1].tool_calls[0]`: the call has no `name`; name the function"
    );
}

#[test]
fn tools_are_a_list_or_its_json() {
    let given = json!([user("q"), assistant("a")]);
    let expected = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    for tools_given in [
        expected.clone(),
        json!("[{\"name\": \"f\", \"parameters\": {}}]"),
        json!(["{\"name\": \"f\", \"parameters\": {}}"]),
    ] {
        assert_eq!(
            tools(json!({"messages": given, "tools": tools_given})),
            Some(expected.clone())
        );
    }
    assert_eq!(
        tools(json!({"messages": given, "functions": [{"name": "f", "parameters": {}}]})),
        Some(expected)
    );
    for none in [json!([]), json!(""), json!(null), json!("[]")] {
        assert_eq!(tools(json!({"messages": given, "tools": none})), None, "{none}");
    }
    assert_eq!(
        wrong(json!({"messages": given, "tools": "run"})),
        "column `tools`: found the text `run`, give a list of tools, or its JSON"
    );
}

#[test]
fn weights_of_messages_are_numbers() {
    let weighted = |message: Value| try_read(&json!({"messages": [user("q"), message]}));
    assert!(weighted(json!({"role": "assistant", "content": "a", "weight": 0.5})).is_ok());
    for weight in [json!(-0.5), json!("1"), json!(true), json!(1e300)] {
        let error = weighted(json!({"role": "assistant", "content": "a", "weight": weight})).unwrap_err();
        assert!(error.contains("column `messages[1].weight`: found"), "{error}");
    }
    // Null is absent.
    let found =
        messages(json!({"messages": [user("q"), {"role": "assistant", "content": "a", "weight": null, "name": null}]}));
    assert_eq!(found[1], assistant("a"));
}

#[test]
fn something_is_trained() {
    let nothing = "so nothing is trained";
    assert!(wrong(json!({"messages": [user("q"), assistant(" ")]})).contains(nothing));
    assert!(wrong(json!({"messages": [user("q")]})).contains(nothing));
    assert!(wrong(json!({"messages": []})).contains("has no messages"));
    // Any turn of the assistant will do.
    assert!(try_read(&json!({"messages": [user("q"), assistant("a"), user("r")]})).is_ok());
}

#[test]
fn messages_with_pictures_are_refused() {
    let given = json!([user("<image>q"), assistant("a")]);
    assert_eq!(
        wrong(json!({"messages": given, "images": ["a.png"]})),
        "column `images`: belongs to the messages, but only text is read; remove such rows"
    );
    assert!(try_read(&json!({"messages": given, "images": []})).is_ok());
}
