//! Messages from flags and files, for a chat template.

use super::{Failure, common::read_text};
use crate::data::chat::{Message, message};
use serde_json::Value;

/// `ROLE:TEXT`.
pub(super) fn parse_message(text: &str) -> Result<Message, Failure> {
    let role = text.split_once(':').filter(|(role, _)| is_role(role));
    role.map(|(role, content)| message(role, content)).ok_or_else(|| {
        Failure::usage(format!(
            "--message `{}` does not begin with a role: write `user:TEXT`, `assistant:TEXT` or `system:TEXT`",
            text.chars().take(40).collect::<String>()
        ))
    })
}

fn is_role(role: &str) -> bool {
    !role.is_empty() && role.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// A JSON file with a list of messages, or an object that holds it as `messages`; `-` is standard input.
pub(super) fn read_messages(path: &str) -> Result<Vec<Message>, Failure> {
    let text = read_text(path)?;
    let wrong = |problem: String| Failure::usage(format!("--messages `{path}`: {problem}"));
    let mut json: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| wrong(format!("not JSON: {e}")))?;
    if let Some(messages) = json.get_mut("messages") {
        json = messages.take();
    }
    let Value::Array(items) = json else {
        return Err(wrong(
            "not a list of messages such as [{\"role\": \"user\", \"content\": \"...\"}]".into(),
        ));
    };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::Object(fields) if fields.get("role").is_some_and(Value::is_string) => Ok(fields),
            _ => Err(wrong(format!("message {} has no `role`", index + 1))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_from_flags_and_files() {
        let read = parse_message("user:a: b\n").unwrap();
        assert_eq!(read, message("user", "a: b\n"));
        for wrong in ["hello", ":x", "a b:c"] {
            assert!(
                parse_message(wrong)
                    .unwrap_err()
                    .message()
                    .contains("write `user:TEXT`"),
                "{wrong}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.json");
        let path = file.to_string_lossy();
        for (text, expected) in [
            (r#"[{"role": "user", "content": "x"}]"#, Ok(1)),
            (
                r#"{"messages": [{"role": "user"}, {"role": "tool", "name": "f"}]}"#,
                Ok(2),
            ),
            ("[]", Ok(0)),
            ("{", Err("not JSON")),
            ("{}", Err("not a list of messages")),
            (
                r#"[{"role": "user"}, {"content": "x"}]"#,
                Err("message 2 has no `role`"),
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            match (read_messages(&path), expected) {
                (Ok(messages), Ok(count)) => assert_eq!(messages.len(), count),
                (Err(error), Err(part)) => assert!(error.message().contains(part), "{}", error.message()),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }
}
