//! Chat templates as transformers keeps them: Jinja, rendered with minijinja.
//!
//! Covers what the templates of Llama-style models use: blocks trimmed as transformers does it,
//! `raise_exception`, `tojson`, and the Python methods of strings and dictionaries listed in
//! [`method`]. It does not cover `{% break %}`, `strftime_now` or tools; a template that needs them
//! gives an error, never a different text.

use minijinja::{Environment, Error, ErrorKind, State, Value, context, value::ValueKind};

/// Renders `template` for (role, content) messages. `special` are the tokenizer's named tokens
/// (`bos_token`, `eos_token`, …), which templates write out.
///
/// # Errors
/// The template's syntax, a feature that is not covered, or what `raise_exception` says.
pub(super) fn render(
    template: &str,
    messages: &[(&str, &str)],
    special: &[(String, String)],
    add_generation_prompt: bool,
) -> Result<String, String> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    let messages: Vec<Value> = messages
        .iter()
        .map(|(role, content)| context! { role, content })
        .collect();
    let named: Value = special
        .iter()
        .map(|(k, v)| (k.clone(), Value::from(v.clone())))
        .collect();
    let values = context! { messages, add_generation_prompt, ..named };
    env.template_from_str(template)
        .and_then(|t| t.render(values))
        .map_err(|e| e.to_string())
}

/// transformers' `tojson`: `json.dumps(…, ensure_ascii=False)`, spaces after `:` and `,`.
fn tojson(value: Value) -> Result<Value, Error> {
    let json = serde_json::to_value(&value).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))?;
    let mut out = String::new();
    write_json(&json, &mut out);
    Ok(Value::from_safe_string(out))
}

fn write_json(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_json(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(fields) => {
            out.push('{');
            for (i, (key, item)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                write_json(item, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Python's methods on strings (`strip`, `lstrip`, `rstrip`, `startswith`, `endswith`, `upper`,
/// `lower`, `replace`, `split`) and on dictionaries (`items`, `keys`, `get`).
fn method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    let text = |i: usize| args.get(i).and_then(Value::as_str);
    if let Some(s) = value.as_str() {
        let chars: Option<Vec<char>> = text(0).map(|t| t.chars().collect());
        let stripped = |c: char| chars.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
        return Ok(match (name, text(0), text(1)) {
            ("strip", _, _) => s.trim_matches(stripped).into(),
            ("lstrip", _, _) => s.trim_start_matches(stripped).into(),
            ("rstrip", _, _) => s.trim_end_matches(stripped).into(),
            ("startswith", Some(prefix), _) => s.starts_with(prefix).into(),
            ("endswith", Some(suffix), _) => s.ends_with(suffix).into(),
            ("upper", _, _) => s.to_uppercase().into(),
            ("lower", _, _) => s.to_lowercase().into(),
            ("replace", Some(from), Some(to)) => s.replace(from, to).into(),
            ("split", Some(separator), None) if !separator.is_empty() && args.len() == 1 => {
                s.split(separator).map(Value::from).collect()
            }
            ("split", None, None) if args.is_empty() => s.split_whitespace().map(Value::from).collect(),
            _ => return Err(unknown()),
        });
    }
    if value.kind() == ValueKind::Map {
        return match (name, args) {
            ("items", []) => state.apply_filter("items", std::slice::from_ref(value)),
            ("keys", []) => value.try_iter().map(|keys| keys.collect()),
            ("get", [key, rest @ ..]) => {
                let found = value.get_item(key)?;
                Ok(if found.is_undefined() {
                    rest.first().cloned().unwrap_or(Value::from(()))
                } else {
                    found
                })
            }
            _ => Err(unknown()),
        };
    }
    Err(unknown())
}
