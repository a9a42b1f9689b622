//! Filters, as in `value|trim`.

use super::{
    ast::Operator,
    eval::{Given, Interpreter, binary},
    format, methods,
    text::{JsonStyle, bounded, escape, is_space, json, str_of},
    value::{Fallible, LARGEST_TEXT, Value, find},
};
use std::{cmp::Ordering, rc::Rc};

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

/// `value|name(…)`.
pub fn apply(interpreter: &mut Interpreter<'_>, name: &str, value: Value, given: Given) -> Fallible<Value> {
    match name {
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => chosen(interpreter, name, value, given),
        "sort" | "unique" | "min" | "max" | "groupby" | "sum" | "join" | "dictsort" => {
            ordered(interpreter, name, value, given)
        }
        "abs" | "int" | "float" | "round" => numeric(name, value, given),
        "first" | "last" | "length" | "count" | "list" | "items" | "reverse" | "batch" | "slice" => {
            sequence(name, value, given)
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

fn undefined(value: &Value) -> Fallible<()> {
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
fn text_of(value: &Value, filter: &str) -> Fallible<Rc<str>> {
    undefined(value)?;
    match value {
        Value::Str(text) => Ok(text.clone()),
        other => Err(format!("`{filter}` needs a text, not `{}`", other.kind())),
    }
}

fn whole(value: Option<Value>, default: i64, filter: &str) -> Fallible<i64> {
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
            methods::cased(&soft(&value)?, name)?.into()
        }
        "title" => {
            let [] = given.bind(name, [])?;
            title(&soft(&value)?).into()
        }
        "trim" => {
            let [chars] = given.bind(name, ["chars"])?;
            methods::strip(&soft(&value)?, "strip", &chars)?.into()
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
            methods::replace(&str_of(&value)?, &argument(old)?, &argument(new)?, count)?.into()
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
                _ => Value::Dict(Rc::new(
                    given
                        .named
                        .into_iter()
                        .map(|(name, value)| (Value::Str(name), value))
                        .collect(),
                )),
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
            " ".repeat(width.min(1 << 16))
        }
    };
    let text = format!("{text}\n");
    let lines = methods::split_lines(&text, false);
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
            Some(" ".repeat(usize::try_from(width).unwrap_or(0).min(1 << 10)))
        }
    };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => match pair.elements().map(|items| items.as_slice()) {
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

fn numeric(name: &str, value: Value, given: Given) -> Fallible<Value> {
    undefined(&value)?;
    let unsuited = || format!("`{name}` needs a number, not `{}`", value.kind());
    Ok(match name {
        "abs" => {
            let [] = given.bind(name, [])?;
            match &value {
                Value::Float(number) => Value::Float(number.abs()),
                other => {
                    let number = other.as_int().ok_or_else(unsuited)?;
                    Value::Int(number.checked_abs().ok_or_else(super::value::too_large)?)
                }
            }
        }
        "int" => {
            let [default, base] = given.bind(name, ["default", "base"])?;
            let base = whole(base, 10, name)?;
            match &value {
                Value::Str(text) => match parsed_int(text, base)? {
                    Some(number) => Value::Int(number),
                    None => match parsed_float(text) {
                        Some(number) if number.is_finite() => truncated(number)?,
                        _ => default.unwrap_or(Value::Int(0)),
                    },
                },
                Value::Float(number) if number.is_finite() => truncated(*number)?,
                other => match other.as_int() {
                    Some(number) => Value::Int(number),
                    None => default.unwrap_or(Value::Int(0)),
                },
            }
        }
        "float" => {
            let [default] = given.bind(name, ["default"])?;
            let number = match &value {
                Value::Str(text) => parsed_float(text),
                other => other.as_float(),
            };
            number.map(Value::Float).or(default).unwrap_or(Value::Float(0.0))
        }
        _ => {
            let [precision, method] = given.bind(name, ["precision", "method"])?;
            let precision = whole(precision, 0, name)?;
            let method = method.map_or(Ok("common".into()), |method| text_of(&method, name))?;
            round(&value, precision, &method)?
        }
    })
}

fn truncated(number: f64) -> Fallible<Value> {
    if number.abs() >= 9.2e18 {
        return Err(super::value::too_large());
    }
    Ok(Value::Int(number.trunc() as i64))
}

/// `int(text, base)`; None where Python refuses.
fn parsed_int(text: &str, base: i64) -> Fallible<Option<i64>> {
    let radix = u32::try_from(base)
        .ok()
        .filter(|radix| (2..=36).contains(radix))
        .ok_or("the base of `int` must be 2 to 36")?;
    let text = text.trim_matches(is_space);
    if !text.is_ascii() {
        // Digits of other scripts are numbers to Python.
        return if text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
            Err("`int` of digits outside ASCII is not supported".into())
        } else {
            Ok(None)
        };
    }
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = match radix {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let digits = match lower.strip_prefix(prefix) {
        Some(rest) if !prefix.is_empty() => rest.strip_prefix('_').unwrap_or(rest),
        _ => lower.as_str(),
    };
    let well = !digits.is_empty() && digits.split('_').all(|part| !part.is_empty());
    if !well || !digits.chars().all(|c| c == '_' || c.is_digit(radix)) {
        return Ok(None);
    }
    let number = i64::from_str_radix(&digits.replace('_', ""), radix).map_err(|_| super::value::too_large())?;
    Ok(Some(if negative { -number } else { number }))
}

/// `float(text)`; None where Python refuses.
fn parsed_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let bytes = text.as_bytes();
    let underscores = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'_')
        .all(|(at, _)| {
            let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
            digit(at.checked_sub(1)) && digit(Some(at + 1))
        });
    if !underscores {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn round(value: &Value, precision: i64, method: &str) -> Fallible<Value> {
    let number = value
        .as_float()
        .ok_or_else(|| format!("`round` needs a number, not `{}`", value.kind()))?;
    if !(0..=15).contains(&precision) || !number.is_finite() || number.abs() >= 1e15 {
        return Err("`round` with this number or precision is not supported".into());
    }
    let places = precision as usize;
    let factor = 10f64.powi(precision as i32);
    match method {
        "common" => Ok(match value {
            Value::Float(_) => Value::Float(format!("{number:.places$}").parse().map_err(|_| "a number")?),
            other => Value::Int(other.as_int().unwrap_or_default()),
        }),
        "ceil" => Ok(Value::Float((number * factor).ceil() / factor)),
        "floor" => Ok(Value::Float((number * factor).floor() / factor)),
        other => Err(format!("`round` has no method `{other}`")),
    }
}

fn sequence(name: &str, value: Value, given: Given) -> Fallible<Value> {
    Ok(match name {
        "batch" | "slice" => {
            let [count, fill] = given.bind(name, ["linecount", "fill_with"])?;
            let count = usize::try_from(whole(count, 0, name)?).ok().filter(|count| *count > 0);
            let count = count.ok_or_else(|| format!("`{name}` needs a number above 0"))?;
            let fill = fill.filter(|fill| !matches!(fill, Value::None));
            let items = value.elements_of()?;
            Value::iter(if name == "batch" {
                batches(items, count, fill)
            } else {
                slices(items, count, fill)
            })
        }
        _ => {
            let [] = given.bind(name, [])?;
            match name {
                "length" | "count" => Value::int(value.length()?)?,
                "list" => Value::list(value.elements_of()?),
                "first" => {
                    let first = match &value {
                        Value::Iter(items) => items.borrow_mut().pop_front(),
                        other => other.elements_of()?.into_iter().next(),
                    };
                    first.unwrap_or_else(|| Value::undefined("no first item: the sequence is empty"))
                }
                "last" => match &value {
                    Value::Iter(_) => return Err("`last` of a generator is not possible; add `|list`".into()),
                    other => {
                        let last = other.elements_of()?.pop();
                        last.unwrap_or_else(|| Value::undefined("no last item: the sequence is empty"))
                    }
                },
                "items" => match &value {
                    Value::Undefined(_) => Value::iter(Vec::new()),
                    Value::Dict(_) => Value::iter(methods::call(&value, "items", Given::default())?.elements_of()?),
                    other => return Err(format!("`items` needs a dictionary, not `{}`", other.kind())),
                },
                _ => match &value {
                    Value::Str(text) => text.chars().rev().collect::<String>().into(),
                    other => {
                        let mut items = other.elements_of()?;
                        items.reverse();
                        match other {
                            // What has no `reversed` becomes a list first.
                            Value::Iter(_) => Value::list(items),
                            _ => Value::iter(items),
                        }
                    }
                },
            }
        }
    })
}

fn batches(items: Vec<Value>, count: usize, fill: Option<Value>) -> Vec<Value> {
    let mut found: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill, found.last_mut()) {
        while last.len() < count && last.len() < 1 << 16 {
            last.push(fill.clone());
        }
    }
    found.into_iter().map(Value::list).collect()
}

fn slices(items: Vec<Value>, count: usize, fill: Option<Value>) -> Vec<Value> {
    let count = count.min(1 << 16);
    let (each, extra) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    (0..count)
        .map(|i| {
            let mut part: Vec<Value> = rest.by_ref().take(each + usize::from(i < extra)).collect();
            if i >= extra {
                part.extend(fill.clone());
            }
            Value::list(part)
        })
        .collect()
}

/// The parts of `a.0.b`.
fn path(attribute: &Value) -> Fallible<Vec<Value>> {
    match attribute {
        Value::Str(text) => Ok(text
            .split('.')
            .map(|part| match part.parse::<i64>() {
                Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
                _ => part.into(),
            })
            .collect()),
        Value::Int(_) => Ok(vec![attribute.clone()]),
        other => Err(format!("an attribute is named by a text, not `{}`", other.kind())),
    }
}

/// What `a.0.b` names in an item.
fn follow(
    interpreter: &mut Interpreter<'_>,
    item: &Value,
    attribute: Option<&Value>,
    default: Option<&Value>,
) -> Fallible<Value> {
    let mut value = item.clone();
    if let Some(attribute) = attribute {
        for part in path(attribute)? {
            value = interpreter.item(&value, &part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, default) {
                value = default.clone();
            }
        }
    }
    Ok(value)
}

/// `map`, `select`, `reject`, `selectattr` and `rejectattr`.
fn chosen(interpreter: &mut Interpreter<'_>, name: &str, value: Value, mut given: Given) -> Fallible<Value> {
    if !value.truth() {
        return Ok(Value::iter(Vec::new()));
    }
    let mut found = Vec::new();
    if name == "map" && given.positional.is_empty() {
        let [attribute, default] = given.bind(name, ["attribute", "default"])?;
        let attribute = attribute.ok_or("`map` needs a filter's name or an attribute")?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in value.elements_of()? {
            found.push(follow(interpreter, &item, Some(&attribute), default.as_ref())?);
        }
        return Ok(Value::iter(found));
    }
    let mut positional = given.positional.into_iter();
    let attribute = if name.ends_with("attr") {
        Some(
            positional
                .next()
                .ok_or_else(|| format!("`{name}` needs an attribute's name"))?,
        )
    } else {
        None
    };
    let function = positional.next();
    let function = match &function {
        Some(Value::Str(function)) => Some(function.clone()),
        None if name != "map" => None,
        _ => return Err(format!("`{name}` needs the name of a filter or test")),
    };
    let rest: Vec<Value> = positional.collect();
    let named = std::mem::take(&mut given.named);
    for item in value.elements_of()? {
        let given = Given {
            positional: rest.clone(),
            named: named.clone(),
        };
        let tested = follow(interpreter, &item, attribute.as_ref(), None)?;
        if name == "map" {
            let function = function.as_deref().unwrap_or_default();
            found.push(apply(interpreter, function, tested, given)?);
            continue;
        }
        let holds = match &function {
            Some(function) => super::tests_of::test(function, &tested, given)?,
            None => tested.truth(),
        };
        if holds != name.starts_with("reject") {
            found.push(item);
        }
    }
    Ok(Value::iter(found))
}

/// A text in lower case, everything else as it is.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match &value {
        Value::Str(text) if !case_sensitive => text.to_lowercase().into(),
        _ => value,
    }
}

/// Sorts pairs of keys and values, stably.
fn sorted(mut pairs: Vec<(Value, Value)>, reverse: bool) -> Fallible<Vec<(Value, Value)>> {
    let mut failure = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(pairs),
    }
}

/// Filters that compare or add up what an attribute names.
fn ordered(interpreter: &mut Interpreter<'_>, name: &str, value: Value, given: Given) -> Fallible<Value> {
    let flag = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let some = |value: Option<Value>| value.filter(|value| !matches!(value, Value::None));
    match name {
        "join" => {
            let [separator, attribute] = given.bind(name, ["d", "attribute"])?;
            let separator = separator.map_or(Ok(String::new()), |separator| str_of(&separator))?;
            let attribute = some(attribute);
            let mut joined = String::new();
            for (i, item) in value.elements_of()?.iter().enumerate() {
                if i > 0 {
                    joined.push_str(&separator);
                }
                joined.push_str(&str_of(&follow(interpreter, item, attribute.as_ref(), None)?)?);
                if joined.len() > LARGEST_TEXT {
                    break;
                }
            }
            bounded(joined).map(Value::from)
        }
        "sum" => {
            let [attribute, start] = given.bind(name, ["attribute", "start"])?;
            let attribute = some(attribute);
            let mut total = start.unwrap_or(Value::Int(0));
            if matches!(total, Value::Str(_)) {
                return Err("`sum` does not add texts; use `join`".into());
            }
            for item in value.elements_of()? {
                let item = follow(interpreter, &item, attribute.as_ref(), None)?;
                total = binary(Operator::Add, &total, &item)?;
            }
            Ok(total)
        }
        "dictsort" => {
            let [case_sensitive, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"])?;
            let case_sensitive = flag(case_sensitive);
            let by = by.map_or(Ok("key".into()), |by| text_of(&by, name))?;
            undefined(&value)?;
            let Value::Dict(pairs) = &value else {
                return Err(format!("`dictsort` needs a dictionary, not `{}`", value.kind()));
            };
            let mut keyed = Vec::new();
            for (key, value) in pairs.iter() {
                let by = match &*by {
                    "key" => key,
                    "value" => value,
                    _ => return Err("`dictsort` sorts by `key` or `value`".into()),
                };
                let pair = Value::tuple(vec![key.clone(), value.clone()]);
                keyed.push((folded(by.clone(), case_sensitive), pair));
            }
            let found = sorted(keyed, flag(reverse))?;
            Ok(Value::list(found.into_iter().map(|(_, pair)| pair).collect()))
        }
        "groupby" => {
            let [attribute, default, case_sensitive] = given.bind(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = attribute.ok_or("`groupby` needs an attribute")?;
            let (default, case_sensitive) = (some(default), flag(case_sensitive));
            let mut keyed = Vec::new();
            for item in value.elements_of()? {
                let key = follow(interpreter, &item, Some(&attribute), default.as_ref())?;
                keyed.push((folded(key, case_sensitive), item));
            }
            let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
            for (key, item) in sorted(keyed, false)? {
                match groups.last_mut() {
                    Some((last, items)) if last.equals(&key)? => items.push(item),
                    _ => groups.push((key, vec![item])),
                }
            }
            let mut found = Vec::new();
            for (key, items) in groups {
                let key = match items.first() {
                    Some(first) if !case_sensitive => follow(interpreter, first, Some(&attribute), default.as_ref())?,
                    _ => key,
                };
                found.push(Value::Group(Rc::new(vec![key, Value::list(items)])));
            }
            Ok(Value::list(found))
        }
        "sort" => {
            let [reverse, case_sensitive, attribute] = given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let (reverse, case_sensitive) = (flag(reverse), flag(case_sensitive));
            let attributes: Vec<Option<Value>> = match some(attribute) {
                Some(Value::Str(names)) => names.split(',').map(|name| Some(Value::from(name))).collect(),
                other => vec![other],
            };
            let mut keyed = Vec::new();
            for item in value.elements_of()? {
                let mut keys = Vec::new();
                for attribute in &attributes {
                    let key = follow(interpreter, &item, attribute.as_ref(), None)?;
                    keys.push(folded(key, case_sensitive));
                }
                keyed.push((Value::list(keys), item));
            }
            let found = sorted(keyed, reverse)?;
            Ok(Value::list(found.into_iter().map(|(_, item)| item).collect()))
        }
        _ => {
            let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
            let (case_sensitive, attribute) = (flag(case_sensitive), some(attribute));
            let mut keyed: Vec<(Value, Value)> = Vec::new();
            for item in value.elements_of()? {
                let key = follow(interpreter, &item, attribute.as_ref(), None)?;
                let key = folded(key, case_sensitive);
                match (name, keyed.first_mut()) {
                    ("unique", _) => {
                        super::value::hashable(&key)?;
                        if find(&keyed, &key)?.is_none() {
                            keyed.push((key, item));
                        }
                    }
                    (_, None) => keyed.push((key, item)),
                    (_, Some(best)) => {
                        // The first of equal ones stays.
                        let better = if name == "min" {
                            Ordering::Less
                        } else {
                            Ordering::Greater
                        };
                        if key.compare(&best.0)? == Some(better) {
                            *best = (key, item);
                        }
                    }
                }
            }
            let mut items = keyed.into_iter().map(|(_, item)| item);
            if name == "unique" {
                return Ok(Value::iter(items.collect()));
            }
            let found = items.next();
            Ok(found.unwrap_or_else(|| Value::undefined("no aggregated item: the sequence is empty")))
        }
    }
}
