//! Writes resolved settings as YAML that every reader takes the same way.

use serde_json::Value;
use std::fmt::Write;

/// `value` as a YAML document in block style; lists of scalars in flow style.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(map, 0, &mut out),
        other => {
            out.push_str(&flow(other));
            out.push('\n');
        }
    }
    out
}

fn block(map: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
    for (key, value) in map {
        // Writing to a String can't fail.
        let _ = write!(out, "{:indent$}{}:", "", scalar_text(key));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                block(inner, indent + 2, out);
            }
            other => {
                let _ = writeln!(out, " {}", flow(other));
            }
        }
    }
}

pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => number(n),
        Value::String(s) => scalar_text(s),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", scalar_text(k), flow(v)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// YAML 1.1 readers take `1e-8` for a text: they want a point in it.
fn number(n: &serde_json::Number) -> String {
    let text = match n.as_f64() {
        Some(f) if n.is_f64() => format!("{f:?}"),
        _ => n.to_string(),
    };
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

/// Plain where no reader could take it for anything but this text, else in double quotes (JSON's
/// escapes are YAML's).
fn scalar_text(s: &str) -> String {
    let plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let keyword = matches!(
        s.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if plain && !keyword {
        s.to_owned()
    } else {
        Value::String(s.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use serde_json::json;

    #[test]
    fn what_is_ambiguous_is_quoted() {
        let value = json!({
            "a": {"lr": 1e-8, "beta": 0.95, "m": 3, "name": "no", "uri": "hf://o/n", "empty": {}},
            "tags": ["x", "1", "a b"], "none": [],
        });
        assert_eq!(
            write(&value),
            "a:\n  lr: 1.0e-8\n  beta: 0.95\n  m: 3\n  name: \"no\"\n  uri: \"hf://o/n\"\n  empty: {}\ntags: [x, \"1\", \"a b\"]\nnone: []\n"
        );
    }
}
