//! Values as text: Python's `str`, `repr` and `json.dumps`.

use super::{
    fuel,
    value::{Fallible, LARGEST_TEXT, Value, range_length, too_large},
};

/// `str.isspace` of a character, which is also what `\s` matches in Python.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Fails if a text has grown past what a template may make.
pub fn bounded(text: String) -> Fallible<String> {
    if text.len() > LARGEST_TEXT {
        return Err(format!("the text grew past {} MiB", LARGEST_TEXT >> 20));
    }
    Ok(text)
}

/// `str(value)`.
pub fn str_of(value: &Value) -> Fallible<String> {
    match value {
        Value::Undefined(_) => Ok(String::new()),
        Value::Str(text) | Value::Markup(text) => Ok(text.to_string()),
        _ => repr(value),
    }
}

/// `repr(value)`.
pub fn repr(value: &Value) -> Fallible<String> {
    let mut out = String::new();
    write_repr(value, &mut out, 0)?;
    Ok(out)
}

fn write_repr(value: &Value, out: &mut String, depth: usize) -> Fallible<()> {
    fuel::steps(1)?;
    if depth > 100 || out.len() > LARGEST_TEXT {
        return Err("the value is too large to print".into());
    }
    let mut sequence = |open: &str, items: &[Value], close: &str| -> Fallible<()> {
        out.push_str(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_repr(item, out, depth + 1)?;
        }
        out.push_str(close);
        Ok(())
    };
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(yes) => out.push_str(if *yes { "True" } else { "False" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Str(text) => write_quoted(text, out)?,
        Value::Markup(text) => {
            out.push_str("Markup(");
            write_quoted(text, out)?;
            out.push(')');
        }
        Value::List(items) => sequence("[", items, "]")?,
        Value::Tuple(items) | Value::Group(items) => {
            sequence("(", items, if items.len() == 1 { ",)" } else { ")" })?;
        }
        Value::View(kind, items) => sequence(&format!("{kind}(["), items, "])")?,
        Value::Dict(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(key, out, depth + 1)?;
                out.push_str(": ");
                write_repr(value, out, depth + 1)?;
            }
            out.push('}');
        }
        Value::Range(start, stop, 1) => out.push_str(&format!("range({start}, {stop})")),
        Value::Range(start, stop, step) => out.push_str(&format!("range({start}, {stop}, {step})")),
        Value::Macro(closure) => {
            out.push_str("<Macro ");
            match &closure.name {
                Some(name) => write_quoted(name, out)?,
                None => out.push_str("anonymous"),
            }
            out.push('>');
        }
        Value::Iter(_) | Value::Namespace(_) | Value::Method(..) | Value::Function(_) | Value::Loop(_) => {
            return Err(format!(
                "a `{}` object is printed, which has no fixed text; add `|list` or call it",
                value.kind()
            ));
        }
    }
    Ok(())
}

/// `repr` of a text.
fn write_quoted(text: &str, out: &mut String) -> Fallible<()> {
    fuel::read(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        if out.len() > LARGEST_TEXT {
            return Err(too_large());
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ if is_printable(c) => out.push(c),
            _ => {
                let code = c as u32;
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    out.push(quote);
    Ok(())
}

/// Python's `str.isprintable` of a character outside ASCII: `escape_debug` uses the same categories
/// for any character but a text's first.
fn is_printable(c: char) -> bool {
    let text = format!("a{c}");
    !c.is_control() && text.escape_debug().eq(text.chars())
}

/// `repr` of a float: the shortest digits that read back the same, with an exponent outside
/// 1e-4 to 1e16.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return number.to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// What `json.dumps` takes.
pub struct JsonStyle {
    pub ensure_ascii: bool,
    /// A level's indentation; None for one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

/// `json.dumps(value)`.
pub fn json(value: &Value, style: &JsonStyle) -> Fallible<String> {
    let mut out = String::new();
    write_json(value, style, 0, &mut out)?;
    bounded(out)
}

fn write_json(value: &Value, style: &JsonStyle, depth: usize, out: &mut String) -> Fallible<()> {
    fuel::steps(1)?;
    if depth > 100 || out.len() > LARGEST_TEXT {
        return Err("the value is too large for JSON".into());
    }
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&json_float(*number)),
        Value::Str(text) | Value::Markup(text) => write_json_text(text, style.ensure_ascii, out)?,
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            if items.is_empty() {
                out.push_str("[]");
                return Ok(());
            }
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.item_separator);
                }
                line(depth + 1, out);
                write_json(item, style, depth + 1, out)?;
            }
            line(depth, out);
            out.push(']');
        }
        Value::Dict(pairs) => {
            if pairs.is_empty() {
                out.push_str("{}");
                return Ok(());
            }
            let mut pairs: Vec<&(Value, Value)> = pairs.iter().collect();
            if style.sort_keys {
                let mut failure = Ok(());
                pairs.sort_by(|(a, _), (b, _)| {
                    let order = a.compare(b).map_err(|error| failure = Err(error));
                    order.ok().flatten().unwrap_or(std::cmp::Ordering::Equal)
                });
                failure?;
            }
            out.push('{');
            for (i, (key, item)) in pairs.into_iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.item_separator);
                }
                line(depth + 1, out);
                let key = match key {
                    Value::Str(text) | Value::Markup(text) => text.to_string(),
                    Value::Int(number) => number.to_string(),
                    Value::Float(number) => json_float(*number),
                    Value::Bool(yes) => yes.to_string(),
                    Value::None => "null".into(),
                    other => return Err(format!("`{}` cannot be a key in JSON", other.kind())),
                };
                write_json_text(&key, style.ensure_ascii, out)?;
                out.push_str(&style.key_separator);
                write_json(item, style, depth + 1, out)?;
            }
            line(depth, out);
            out.push('}');
        }
        _ => return Err(format!("a `{}` object cannot be written as JSON", value.kind())),
    }
    Ok(())
}

fn json_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".into(),
        _ if number.is_infinite() && number > 0.0 => "Infinity".into(),
        _ if number.is_infinite() => "-Infinity".into(),
        _ => float(number),
    }
}

fn write_json_text(text: &str, ensure_ascii: bool, out: &mut String) -> Fallible<()> {
    fuel::read(text.len())?;
    // Six bytes for a control character are the most.
    let escaped = text.bytes().filter(|byte| *byte < b' ').count();
    if out.len() + text.len() + 5 * escaped > LARGEST_TEXT {
        return Err(too_large());
    }
    let quoted = serde_json::to_string(text).map_err(|error| error.to_string())?;
    for c in quoted.chars() {
        if c.is_ascii() || !ensure_ascii {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(())
}

/// `escape`: the characters that HTML gives a meaning.
pub fn escape(text: &str) -> Fallible<String> {
    fuel::read(text.len())?;
    let escaped = text.bytes().filter(|byte| b"&<>'\"".contains(byte)).count();
    if text.len() + 4 * escaped > LARGEST_TEXT {
        return Err(too_large());
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(text.replace('\'', "&#39;").replace('"', "&#34;"))
}

/// A slice with Python's bounds: the indices that it takes, in order.
pub fn slice_indices(length: usize, bounds: [Option<i64>; 3]) -> Fallible<Vec<usize>> {
    let [start, stop, step] = bounds;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err("the step of a slice is 0".into());
    }
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
        bound.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let range = Value::Range(start.map_or(first, clamp), stop.map_or(last, clamp), step);
    let Value::Range(start, ..) = range else {
        return Ok(Vec::new());
    };
    Ok((0..range_length(&range))
        .filter_map(|i| usize::try_from(start.checked_add(step.checked_mul(i as i64)?)?).ok())
        .collect())
}
