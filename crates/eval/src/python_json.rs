//! JSON as Python's `json` module writes and reads it: with `NaN`, `Infinity` and halves of surrogate
//! pairs, none of which RFC 8259 has.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a JSON text. `NaN` and infinities become null, the half of a surrogate pair becomes U+FFFD.
///
/// # Errors
/// What serde_json says of a text that is no JSON with these replaced either.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    parse_as(text)
}

/// The same for any type.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_as<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match replaced(text) {
        Some(text) => serde_json::from_str(&text).map_err(|_| error),
        None => Err(error),
    })
}

/// The text with replacements; None where there is nothing to replace.
fn replaced(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    let mut inside = false; // of a string
    while let Some(c) = rest.chars().next() {
        let (taken, put) = match c {
            '"' => {
                inside = !inside;
                (1, None)
            }
            '\\' if inside => escape(rest),
            'N' | 'I' | '-' if !inside => match ["NaN", "-Infinity", "Infinity"].iter().find(|w| rest.starts_with(**w))
            {
                Some(word) => (word.len(), Some("null")),
                None => (1, None),
            },
            c => (c.len_utf8(), None),
        };
        changed |= put.is_some();
        let (now, later) = rest.split_at_checked(taken)?;
        out.push_str(put.unwrap_or(now));
        rest = later;
    }
    changed.then_some(out)
}

/// The bytes of the escape that `text` begins with, and what replaces it if it is half a surrogate pair.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    match unit(text) {
        Some(0xd800..=0xdbff) => match text.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => (12, None),
            _ => (6, Some("\\ufffd")),
        },
        Some(0xdc00..=0xdfff) => (6, Some("\\ufffd")),
        Some(_) => (6, None),
        None => (1 + text.chars().nth(1).map_or(0, char::len_utf8), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            (
                r#"{"a": NaN, "b": [Infinity, -Infinity, -1]}"#,
                json!({"a": null, "b": [null, null, -1]}),
            ),
            (r#"["NaN \" Infinity", NaN]"#, json!(["NaN \" Infinity", null])),
            (
                r#"["\ud83d\ude00", "\ud83d", "\ude00x", "\\ud83d", "\ud83d\ud83d\ude00"]"#,
                json!(["😀", "\u{fffd}", "\u{fffd}x", "\\ud83d", "\u{fffd}😀"]),
            ),
            (r#"["é\n\u00e9", "\ud83d\n"]"#, json!(["é\né", "\u{fffd}\n"])),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["{\"a\": NaNa}", "{\"a\": nan}", "\"\\u12\"", "[NaN", "\"\\"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
