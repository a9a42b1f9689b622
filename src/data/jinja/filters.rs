//! Filters, as in `value|trim`.

use super::{
    eval::{Given, Interpreter},
    format, methods, numbers, sequences, strings,
    text::{JsonStyle, bounded, escape, is_space, json, str_of},
    value::{Fallible, LARGEST_TEXT, Value},
};
use std::rc::Rc;

/// All filters that Jinja has, those that are not supported here included.
pub const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// Widest indentation.
const WIDEST: usize = 1 << 16;

/// `value|name(…)`.
pub fn apply(interpreter: &mut Interpreter<'_>, name: &str, value: Value, given: Given) -> Fallible<Value> {
    match name {
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => sequences::chosen(interpreter, name, value, given),
        "sort" | "unique" | "min" | "max" | "groupby" | "sum" | "join" | "dictsort" => {
            sequences::ordered(interpreter, name, value, given)
        }
        "abs" | "int" | "float" | "round" => numbers::apply(name, value, given),
        "first" | "last" | "length" | "count" | "list" | "items" | "reverse" | "batch" | "slice" => {
            sequences::apply(name, value, given)
        }
        "attr" => {
            let [attribute] = given.bind(name, ["name"])?;
            match attribute {
                Some(Value::Str(attribute)) => {
                    let found = interpreter.attribute(&value, &attribute)?;
                    // `attr` finds attributes only, never items.
                    let item = matches!(value, Value::Dict(_)) && !methods::exists(&value, &attribute);
                    Ok(if item {
                        Value::undefined("no such attribute")
                    } else {
                        found
                    })
                }
                _ => Err("`attr` needs a name".into()),
            }
        }
        _ => textual(name, value, given),
    }
}

pub fn undefined(value: &Value) -> Fallible<()> {
    match value {
        Value::Undefined(why) => Err(why.to_string()),
        _ => Ok(()),
    }
}

/// `soft_str`: a text as it is.
fn soft(value: &Value) -> Fallible<String> {
    if matches!(value, Value::Markup(_)) {
        return Err("a filter on marked-up text is not supported".into());
    }
    str_of(value)
}

/// A text for filters that take nothing else.
pub fn text_of(value: &Value, filter: &str) -> Fallible<Rc<str>> {
    undefined(value)?;
    match value {
        Value::Str(text) => Ok(text.clone()),
        other => Err(format!("`{filter}` needs a text, not `{}`", other.kind())),
    }
}

pub fn whole(value: Option<Value>, default: i64, filter: &str) -> Fallible<i64> {
    match value {
        None => Ok(default),
        Some(value) => value
            .as_int()
            .ok_or_else(|| format!("`{filter}` needs a whole number, not `{}`", value.kind())),
    }
}

fn textual(name: &str, value: Value, given: Given) -> Fallible<Value> {
    Ok(match name {
        "default" | "d" => {
            let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
            let falsy = boolean.is_some_and(|boolean| boolean.truth()) && !value.truth();
            if value.is_undefined() || falsy {
                default.unwrap_or_else(|| "".into())
            } else {
                value
            }
        }
        "upper" | "lower" | "capitalize" => {
            let [] = given.bind(name, [])?;
            strings::cased(&soft(&value)?, name)?.into()
        }
        "title" => {
            let [] = given.bind(name, [])?;
            title(&soft(&value)?).into()
        }
        "trim" => {
            let [chars] = given.bind(name, ["chars"])?;
            strings::strip(&soft(&value)?, "strip", &chars)?.into()
        }
        "string" => {
            let [] = given.bind(name, [])?;
            if matches!(value, Value::Markup(_)) {
                value
            } else {
                str_of(&value)?.into()
            }
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let argument = |value: Option<Value>| str_of(&value.ok_or("`replace` lacks an argument")?);
            let count = match count {
                Some(Value::None) | None => None,
                count => usize::try_from(whole(count, -1, name)?).ok(),
            };
            strings::replace(&str_of(&value)?, &argument(old)?, &argument(new)?, count)?.into()
        }
        "tojson" => {
            let [ensure_ascii, indent, separators, sort_keys] =
                given.bind(name, ["ensure_ascii", "indent", "separators", "sort_keys"])?;
            to_json(&value, ensure_ascii, indent, separators, sort_keys)?.into()
        }
        "indent" => {
            let [width, first, blank] = given.bind(name, ["width", "first", "blank"])?;
            let flag = |value: Option<Value>| value.is_some_and(|value| value.truth());
            indent(&text_of(&value, name)?, width, flag(first), flag(blank))?.into()
        }
        "truncate" => {
            let [length, killwords, end, leeway] = given.bind(name, ["length", "killwords", "end", "leeway"])?;
            let end = end.map_or(Ok("...".into()), |end| text_of(&end, name))?;
            let length = usize::try_from(whole(length, 255, name)?).map_err(|e| e.to_string())?;
            let leeway = match leeway {
                Some(Value::None) | None => 5,
                leeway => usize::try_from(whole(leeway, 5, name)?).map_err(|e| e.to_string())?,
            };
            let text = text_of(&value, name)?;
            let kept = length
                .checked_sub(end.chars().count())
                .ok_or("`truncate` is shorter than its end")?;
            if text.chars().count() <= length.saturating_add(leeway) {
                return Ok(value);
            }
            let cut: String = text.chars().take(kept).collect();
            let cut = match killwords.is_some_and(|kill| kill.truth()) {
                true => cut.as_str(),
                false => cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words),
            };
            format!("{cut}{end}").into()
        }
        "center" => {
            let [width] = given.bind(name, ["width"])?;
            let width = Value::Int(whole(width, 80, name)?);
            methods::call(&soft(&value)?.into(), "center", Given::of(vec![width]))?
        }
        "format" => {
            let text = soft(&value)?;
            let values = match (given.positional.is_empty(), given.named.is_empty()) {
                (false, false) => return Err("`format` takes positional or named arguments, not both".into()),
                (_, true) => Value::tuple(given.positional),
                _ => Value::dict(
                    given
                        .named
                        .into_iter()
                        .map(|(name, value)| (Value::Str(name), value))
                        .collect(),
                ),
            };
            format::percent(&text, &values)?.into()
        }
        "wordcount" => {
            let [] = given.bind(name, [])?;
            let text = soft(&value)?;
            if !text.is_ascii() {
                return Err("`wordcount` of a text outside ASCII is not supported".into());
            }
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            Value::int(words.filter(|word| !word.is_empty()).count())?
        }
        "urlencode" => {
            let [] = given.bind(name, [])?;
            url_encode(&value)?.into()
        }
        "safe" => {
            let [] = given.bind(name, [])?;
            Value::Markup(str_of(&value)?.into())
        }
        "escape" | "e" => {
            let [] = given.bind(name, [])?;
            match value {
                Value::Markup(_) => value,
                other => Value::Markup(escape(&str_of(&other)?).into()),
            }
        }
        "forceescape" => {
            let [] = given.bind(name, [])?;
            Value::Markup(escape(&str_of(&value)?).into())
        }
        _ if NAMES.contains(&name) => return Err(format!("the filter `{name}` is not supported")),
        _ => return Err(format!("there is no filter `{name}`")),
    })
}

/// Every word's first letter in upper case, the others in lower case.
fn title(text: &str) -> String {
    let separator = |c: char| matches!(c, '-' | '(' | '{' | '[' | '<') || is_space(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_separator = separator(first);
        let end = rest.find(|c| separator(c) != is_separator).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        rest = tail;
        let mut chars = part.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&chars.as_str().to_lowercase());
    }
    out
}

fn indent(text: &str, width: Option<Value>, first: bool, blank: bool) -> Fallible<String> {
    let indentation = match width {
        Some(Value::Str(text)) => text.to_string(),
        width => {
            let width = usize::try_from(whole(width, 4, "indent")?).unwrap_or(0);
            if width > WIDEST {
                return Err(super::value::too_large());
            }
            " ".repeat(width)
        }
    };
    let text = format!("{text}\n");
    let lines = strings::split_lines(&text, false);
    if indentation
        .len()
        .checked_mul(lines.len())
        .is_none_or(|bytes| bytes > LARGEST_TEXT)
    {
        return Err(super::value::too_large());
    }
    let mut out = if first { indentation.clone() } else { String::new() };
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indentation);
            }
        }
        out.push_str(line);
    }
    bounded(out)
}

fn to_json(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    sort_keys: Option<Value>,
) -> Fallible<String> {
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(indent.to_string()),
        Some(width) => {
            let width = width.as_int().ok_or("`indent` of `tojson` is a number or a text")?;
            let width = usize::try_from(width).unwrap_or(0);
            if width > WIDEST {
                return Err(super::value::too_large());
            }
            Some(" ".repeat(width))
        }
    };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => match pair.elements() {
            Some([Value::Str(item), Value::Str(key)]) => (item.to_string(), key.to_string()),
            _ => return Err("`separators` of `tojson` are two texts".into()),
        },
    };
    let style = JsonStyle {
        ensure_ascii: ensure_ascii.is_some_and(|yes| yes.truth()),
        indent,
        item_separator,
        key_separator,
        sort_keys: sort_keys.is_some_and(|yes| yes.truth()),
    };
    json(value, &style)
}

fn url_encode(value: &Value) -> Fallible<String> {
    let quoted = |value: &Value, query: bool| -> Fallible<String> {
        let mut out = String::new();
        for byte in str_of(value)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
                b'/' if !query => out.push('/'),
                b' ' if query => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(out)
    };
    match value {
        Value::Dict(pairs) => {
            let parts: Fallible<Vec<String>> = pairs
                .iter()
                .map(|(key, value)| Ok(format!("{}={}", quoted(key, true)?, quoted(value, true)?)))
                .collect();
            Ok(parts?.join("&"))
        }
        Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None => quoted(value, false),
        other => Err(format!("`urlencode` of a `{}` is not supported", other.kind())),
    }
}
