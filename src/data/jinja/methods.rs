//! Methods of texts, lists, tuples and dictionaries.

use super::{
    eval::Given,
    format,
    strings::{cased, expand_tabs, is, padded, replace, split_lines, split_space, strip},
    text::bounded,
    value::{Fallible, Items, Value, find},
};
use std::rc::Rc;

const STR: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort",
];
const DICT: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// Whether Python's type has a method of this name.
pub fn exists(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => STR.contains(&name),
        Value::List(_) => LIST.contains(&name),
        Value::Tuple(_) | Value::Group(_) | Value::Range(..) => ["count", "index"].contains(&name),
        Value::Dict(_) => DICT.contains(&name),
        _ => false,
    }
}

/// Whether a method changes its value: the sandbox refuses it.
pub fn changes(value: &Value, name: &str) -> bool {
    match value {
        Value::List(_) => !["copy", "count", "index"].contains(&name),
        Value::Dict(_) => ["clear", "pop", "popitem", "setdefault", "update"].contains(&name),
        _ => false,
    }
}

/// Whether Python has an attribute of this name that this renderer does not have.
pub fn unknown_here(value: &Value, name: &str) -> bool {
    let names: &[&str] = match value {
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => &[
            "real",
            "imag",
            "numerator",
            "denominator",
            "bit_length",
            "bit_count",
            "to_bytes",
            "from_bytes",
            "conjugate",
            "as_integer_ratio",
            "is_integer",
            "hex",
            "fromhex",
        ],
        Value::Markup(_) => return STR.contains(&name) || ["striptags", "unescape", "escape"].contains(&name),
        Value::View(..) => &["isdisjoint", "mapping"],
        Value::Iter(_) => &["send", "throw", "close"],
        Value::Macro(_) => &[
            "arguments",
            "catch_kwargs",
            "catch_varargs",
            "caller",
            "explicit_caller",
        ],
        _ => &[],
    };
    names.contains(&name)
}

/// Calls a method.
pub fn call(value: &Value, name: &str, given: Given) -> Fallible<Value> {
    match value {
        Value::Str(text) => str_method(text, name, given),
        Value::Dict(pairs) => dict_method(pairs, name, given),
        other => {
            let items = other.elements_of()?;
            sequence_method(other, &items, name, given)
        }
    }
}

fn sequence_method(value: &Value, items: &[Value], name: &str, given: Given) -> Fallible<Value> {
    if name == "copy" {
        let [] = given.bind(name, [])?;
        return Ok(Value::list(items.to_vec()));
    }
    let [wanted] = given.bind(name, ["value"])?;
    let wanted = wanted.ok_or_else(|| format!("`{name}` needs a value"))?;
    let mut found = 0;
    for (at, item) in items.iter().enumerate() {
        if item.equals(&wanted)? {
            if name == "index" {
                return Value::int(at);
            }
            found += 1;
        }
    }
    if name == "index" {
        return Err(format!("the value is not in the `{}`", value.kind()));
    }
    Value::int(found)
}

fn dict_method(pairs: &Rc<Items<(Value, Value)>>, name: &str, given: Given) -> Fallible<Value> {
    match name {
        "get" => {
            if !given.named.is_empty() {
                return Err("`get` has no named parameters".into());
            }
            let [key, default] = given.bind(name, ["key", "default"])?;
            let key = key.ok_or("`get` needs a key")?;
            super::value::hashable(&key)?;
            let found = find(pairs, &key)?.cloned();
            Ok(found.or(default).unwrap_or(Value::None))
        }
        "fromkeys" => Err("`fromkeys` of a dictionary is not supported; use `dict.fromkeys`".into()),
        _ => {
            let [] = given.bind(name, [])?;
            let view = |kind, items: Vec<Value>| Value::View(kind, Items::new(items));
            Ok(match name {
                "copy" => Value::Dict(pairs.clone()),
                "keys" => view("dict_keys", pairs.iter().map(|(key, _)| key.clone()).collect()),
                "values" => view("dict_values", pairs.iter().map(|(_, value)| value.clone()).collect()),
                _ => view(
                    "dict_items",
                    pairs
                        .iter()
                        .map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]))
                        .collect(),
                ),
            })
        }
    }
}

/// A text argument.
pub fn needed<'v>(value: &'v Option<Value>, method: &str) -> Fallible<&'v str> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(Value::Undefined(why)) => Err(why.to_string()),
        Some(other) => Err(format!("`{method}` needs a text, not `{}`", other.kind())),
        None => Err(format!("`{method}` lacks an argument")),
    }
}

/// A whole number or nothing.
fn number(value: &Option<Value>, method: &str) -> Fallible<Option<i64>> {
    match value {
        None => Ok(None),
        Some(other) => other
            .as_int()
            .map(Some)
            .ok_or_else(|| format!("`{method}` needs a whole number, not `{}`", other.kind())),
    }
}

/// The same where `None` stands for nothing.
fn bound(value: &Option<Value>, method: &str) -> Fallible<Option<i64>> {
    match value {
        Some(Value::None) => Ok(None),
        other => number(other, method),
    }
}

/// `text[start:end]` in bytes, and the number of characters before it. None where `start` is past
/// the end.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(&str, usize)> {
    let length = text.chars().count() as i64;
    let place = |bound: i64| if bound < 0 { (bound + length).max(0) } else { bound };
    let start = place(start.unwrap_or(0));
    let end = place(end.unwrap_or(length)).min(length);
    if start > length || start > end {
        return None;
    }
    let byte = |at: i64| {
        text.char_indices()
            .nth(at as usize)
            .map_or(text.len(), |(offset, _)| offset)
    };
    Some((text.get(byte(start)..byte(end))?, start as usize))
}

fn str_method(text: &Rc<str>, name: &str, given: Given) -> Fallible<Value> {
    let named: &[&str] = match name {
        "split" | "rsplit" => &["sep", "maxsplit"],
        "splitlines" => &["keepends"],
        "replace" => &["count"],
        "expandtabs" => &["tabsize"],
        "format" => {
            let named: Vec<(Value, Value)> = given.named.into_iter().map(|(name, v)| (Value::Str(name), v)).collect();
            return format::format(text, &given.positional, &named).map(Value::from);
        }
        _ => &[],
    };
    if let Some((unknown, _)) = given.named.iter().find(|(given, _)| !named.contains(&&**given)) {
        return Err(format!("`{name}` has no named parameter `{unknown}`"));
    }
    let s: &str = text;
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(name, ["chars"])?;
            strip(s, name, &chars)?.into()
        }
        "split" | "rsplit" => {
            let [separator, most] = given.bind(name, ["sep", "maxsplit"])?;
            let most = number(&most, name)?.and_then(|most| usize::try_from(most).ok());
            let parts = match separator {
                None | Some(Value::None) => split_space(s, most, name == "rsplit"),
                separator => {
                    let separator = needed(&separator, name)?;
                    if separator.is_empty() {
                        return Err(format!("the separator of `{name}` is empty"));
                    }
                    match (name, most) {
                        ("split", Some(most)) => s.splitn(most + 1, separator).collect(),
                        (_, None) => s.split(separator).collect(),
                        (_, Some(most)) => {
                            let mut parts: Vec<&str> = s.rsplitn(most + 1, separator).collect();
                            parts.reverse();
                            parts
                        }
                    }
                }
            };
            Value::list(parts.into_iter().map(Value::from).collect())
        }
        "splitlines" => {
            let [keep] = given.bind(name, ["keepends"])?;
            let keep = keep.is_some_and(|keep| keep.truth());
            Value::list(split_lines(s, keep).into_iter().map(Value::from).collect())
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = given.bind(name, ["prefix", "start", "end"])?;
            let (start, end) = (bound(&start, name)?, bound(&end, name)?);
            let window = window(s, start, end).map(|(part, _)| part);
            let has = |affix: &Value| -> Fallible<bool> {
                let affix = affix
                    .as_str()
                    .ok_or_else(|| format!("`{name}` needs a text or a tuple of texts"))?;
                Ok(window.is_some_and(|part| match name {
                    "startswith" => part.starts_with(affix),
                    _ => part.ends_with(affix),
                }))
            };
            let mut found = false;
            match affix.ok_or_else(|| format!("`{name}` lacks an argument"))? {
                Value::Tuple(affixes) => {
                    for affix in affixes.iter() {
                        found = found || has(affix)?;
                    }
                }
                affix => found = has(&affix)?,
            }
            Value::Bool(found)
        }
        "upper" | "lower" | "title" | "capitalize" | "swapcase" | "casefold" => {
            let [] = given.bind(name, [])?;
            cased(s, name)?.into()
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let count = number(&count, name)?.and_then(|count| usize::try_from(count).ok());
            replace(s, needed(&old, name)?, needed(&new, name)?, count)?.into()
        }
        "removeprefix" => {
            let [prefix] = given.bind(name, ["prefix"])?;
            s.strip_prefix(needed(&prefix, name)?).unwrap_or(s).into()
        }
        "removesuffix" => {
            let [suffix] = given.bind(name, ["suffix"])?;
            s.strip_suffix(needed(&suffix, name)?).unwrap_or(s).into()
        }
        "partition" | "rpartition" => {
            let [separator] = given.bind(name, ["sep"])?;
            let separator = needed(&separator, name)?;
            if separator.is_empty() {
                return Err(format!("the separator of `{name}` is empty"));
            }
            let parts = match name {
                "partition" => s.split_once(separator).map_or([s, "", ""], |(a, b)| [a, separator, b]),
                _ => s.rsplit_once(separator).map_or(["", "", s], |(a, b)| [a, separator, b]),
            };
            Value::tuple(parts.into_iter().map(Value::from).collect())
        }
        "join" => {
            let [items] = given.bind(name, ["iterable"])?;
            let mut joined = String::new();
            for (i, item) in items
                .ok_or("`join` lacks an argument")?
                .elements_of()?
                .iter()
                .enumerate()
            {
                if i > 0 {
                    joined.push_str(s);
                }
                joined.push_str(item.as_str().ok_or("`join` joins texts only")?);
            }
            bounded(joined)?.into()
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, end] = given.bind(name, ["sub", "start", "end"])?;
            let part = needed(&part, name)?;
            let window = window(s, bound(&start, name)?, bound(&end, name)?);
            if name == "count" {
                let found = match window {
                    None => 0,
                    Some((text, _)) if part.is_empty() => text.chars().count() + 1,
                    Some((text, _)) => text.matches(part).count(),
                };
                return Value::int(found);
            }
            let found = window.and_then(|(text, before)| {
                let byte = if name.starts_with('r') {
                    text.rfind(part)
                } else {
                    text.find(part)
                }?;
                Some(before + text.get(..byte)?.chars().count())
            });
            match found {
                Some(at) => Value::int(at)?,
                None if name.ends_with("index") => return Err("the part is not in the text".into()),
                None => Value::Int(-1),
            }
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = given.bind(name, ["width", "fillchar"])?;
            let width = number(&width, name)?.ok_or_else(|| format!("`{name}` lacks its width"))?;
            padded(s, name, width, fill)?.into()
        }
        "expandtabs" => {
            let [size] = given.bind(name, ["tabsize"])?;
            expand_tabs(s, number(&size, name)?.unwrap_or(8))?.into()
        }
        "format_map" => {
            let [mapping] = given.bind(name, ["mapping"])?;
            match mapping {
                Some(Value::Dict(pairs)) => format::format(s, &[], &pairs)?.into(),
                _ => return Err("`format_map` needs a dictionary".into()),
            }
        }
        _ if name.starts_with("is") => {
            let [] = given.bind(name, [])?;
            Value::Bool(is(s, name)?)
        }
        other => return Err(format!("the method `str.{other}` is not supported")),
    })
}
