//! Methods of texts, lists, tuples and dictionaries.

use super::{
    arguments::{Bound, Given, flag, needed, signature},
    format, fuel,
    strings::{cased, expand_tabs, few_parts, is, padded, replace, split_lines, split_space, strip},
    text::bounded,
    value::{Fallible, Items, LARGEST_TEXT, Value, find, hashable},
};

/// Python's methods with their parameters: `/` before one that is given by place, `*` for any number. `!` is
/// for a method that changes its value, which the sandbox refuses, `?` for one that is not supported.
const STR: &str = "capitalize() casefold() center(/width,/fill) count(/sub,/start,/end) encode(?) \
    endswith(/suffix,/start,/end) expandtabs(tabsize) find(/sub,/start,/end) format(*) format_map(/mapping) \
    index(/sub,/start,/end) isalnum() isalpha() isascii() isdecimal() isdigit() isidentifier() islower() isnumeric() \
    isprintable() isspace() istitle() isupper() join(/iterable) ljust(/width,/fill) lower() lstrip(/chars) \
    maketrans(?) partition(/sep) removeprefix(/prefix) removesuffix(/suffix) replace(/old,/new,count) \
    rfind(/sub,/start,/end) rindex(/sub,/start,/end) rjust(/width,/fill) rpartition(/sep) rsplit(sep,maxsplit) \
    rstrip(/chars) split(sep,maxsplit) splitlines(keepends) startswith(/prefix,/start,/end) strip(/chars) swapcase() \
    title() translate(?) upper() zfill(/width)";
const LIST: &str = "append(!) clear(!) copy() count(/value) extend(!) index(/value) insert(!) pop(!) remove(!) \
    reverse(!) sort(!)";
const DICT: &str = "clear(!) copy() fromkeys(?) get(/key,/default) items() keys() pop(!) popitem(!) setdefault(!) \
    update(!) values()";

/// The parameters of a method of Python's type.
fn parameters(value: &Value, name: &str) -> Option<&'static str> {
    let table = match value {
        Value::Str(_) => STR,
        Value::List(_) => LIST,
        Value::Tuple(_) | Value::Group(_) | Value::Range(..) => "count(/value) index(/value)",
        Value::Dict(_) => DICT,
        _ => "",
    };
    signature(table, name)
}

/// Whether Python's type has a method of this name.
pub fn exists(value: &Value, name: &str) -> bool {
    parameters(value, name).is_some()
}

/// Whether a method changes its value: the sandbox refuses it.
pub fn changes(value: &Value, name: &str) -> bool {
    parameters(value, name) == Some("!")
}

/// Whether Python has an attribute of this name that this renderer does not have.
pub fn unknown_here(value: &Value, name: &str) -> bool {
    let names = match value {
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => {
            "real imag numerator denominator bit_length bit_count to_bytes from_bytes conjugate as_integer_ratio \
             is_integer hex fromhex"
        }
        Value::Markup(_) => {
            return signature(STR, name).is_some() || ["striptags", "unescape", "escape"].contains(&name);
        }
        Value::View(..) => "isdisjoint mapping",
        Value::Iter(_) => "send throw close",
        Value::Macro(_) => "arguments catch_kwargs catch_varargs caller explicit_caller",
        _ => "",
    };
    names.split_whitespace().any(|there| there == name)
}

/// Calls a method.
pub fn call(value: &Value, name: &str, given: Given) -> Fallible<Value> {
    fuel::read(value.bytes())?;
    let parameters = match parameters(value, name) {
        None | Some("!" | "?") => return Err(format!("the method `{}.{name}` is not supported", value.kind())),
        Some(parameters) => parameters,
    };
    if let (Value::Str(text), "*") = (value, parameters) {
        let named = given.named.into_iter().map(|(name, value)| (Value::Str(name), value));
        return format::format(text, &given.positional, &named.collect::<Vec<_>>()).map(Value::from);
    }
    let bound = given.bind(name, parameters)?;
    match (value, name) {
        (Value::Str(text), _) => str_method(text, name, bound),
        (Value::Dict(_) | Value::List(_), "copy") => Ok(value.clone()),
        (Value::Dict(pairs), "get") => {
            let [key, default, ..] = bound;
            let key = key.ok_or("`get` needs a key")?;
            hashable(&key)?;
            Ok(find(pairs, &key)?.cloned().or(default).unwrap_or(Value::None))
        }
        (Value::Dict(pairs), _) => {
            let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
            let (kind, items): (_, Vec<Value>) = match name {
                "keys" => ("dict_keys", pairs.iter().map(|(key, _)| key.clone()).collect()),
                "values" => ("dict_values", pairs.iter().map(|(_, value)| value.clone()).collect()),
                _ => ("dict_items", pairs.iter().map(pair).collect()),
            };
            Ok(Value::View(kind, Items::new(items)))
        }
        _ => {
            let [Some(wanted), ..] = bound else {
                return Err(format!("`{name}` needs a value"));
            };
            let mut found = 0;
            for (at, item) in value.elements_of()?.iter().enumerate() {
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

fn str_method(s: &str, name: &str, [a, b, c, _]: Bound) -> Fallible<Value> {
    let list = |parts: Vec<&str>| Value::list(parts.into_iter().map(Value::from).collect());
    let separator = || match needed(&a, name)? {
        "" => Err(format!("the separator of `{name}` is empty")),
        separator => Ok(separator),
    };
    // The part of the text that the second and the third argument choose.
    let window = || Ok::<_, String>(window(s, bound(&b, name)?, bound(&c, name)?));
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => strip(s, name, &a)?.into(),
        "split" | "rsplit" => {
            let most = number(&b, name)?.and_then(|most| usize::try_from(most).ok());
            list(match (&a, name, most) {
                (None | Some(Value::None), ..) => split_space(s, most, name == "rsplit")?,
                (_, _, None) => {
                    few_parts(s.matches(separator()?).count())?;
                    s.split(separator()?).collect()
                }
                (_, "split", Some(most)) => s.splitn(most + 1, separator()?).collect(),
                (_, _, Some(most)) => {
                    let mut parts: Vec<&str> = s.rsplitn(most + 1, separator()?).collect();
                    parts.reverse();
                    parts
                }
            })
        }
        "splitlines" => list(split_lines(s, flag(&a))?),
        "startswith" | "endswith" => {
            let window = window()?.map(|(part, _)| part);
            let affixes = match &a {
                Some(Value::Tuple(affixes)) => affixes.to_vec(),
                _ => vec![needed(&a, name)?.into()],
            };
            let texts: Option<Vec<&str>> = affixes.iter().map(Value::as_str).collect();
            let texts = texts.ok_or_else(|| format!("`{name}` needs a text or a tuple of texts"))?;
            let mut found = texts.into_iter().filter_map(|affix| match name {
                "startswith" => Some(window?.starts_with(affix)),
                _ => Some(window?.ends_with(affix)),
            });
            Value::Bool(found.any(|has| has))
        }
        "upper" | "lower" | "title" | "capitalize" | "swapcase" | "casefold" => cased(s, name)?.into(),
        "replace" => {
            let count = number(&c, name)?.and_then(|count| usize::try_from(count).ok());
            replace(s, needed(&a, name)?, needed(&b, name)?, count)?.into()
        }
        "removeprefix" => s.strip_prefix(needed(&a, name)?).unwrap_or(s).into(),
        "removesuffix" => s.strip_suffix(needed(&a, name)?).unwrap_or(s).into(),
        "partition" | "rpartition" => {
            let separator = separator()?;
            let parts = match name {
                "partition" => s.split_once(separator).map_or([s, "", ""], |(a, b)| [a, separator, b]),
                _ => s.rsplit_once(separator).map_or(["", "", s], |(a, b)| [a, separator, b]),
            };
            Value::tuple(parts.into_iter().map(Value::from).collect())
        }
        "join" => {
            let items = a.ok_or("`join` lacks an argument")?.elements_of()?;
            let mut joined = String::new();
            for (i, item) in items.iter().enumerate() {
                joined.push_str(if i > 0 { s } else { "" });
                joined.push_str(item.as_str().ok_or("`join` joins texts only")?);
                if joined.len() > LARGEST_TEXT {
                    break;
                }
            }
            bounded(joined)?.into()
        }
        "count" => {
            let part = needed(&a, name)?;
            Value::int(match window()? {
                None => 0,
                Some((text, _)) if part.is_empty() => text.chars().count() + 1,
                Some((text, _)) => text.matches(part).count(),
            })?
        }
        "find" | "rfind" | "index" | "rindex" => {
            let part = needed(&a, name)?;
            let found = window()?.and_then(|(text, before)| {
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
            let width = number(&a, name)?.ok_or_else(|| format!("`{name}` lacks its width"))?;
            padded(s, name, width, b)?.into()
        }
        "expandtabs" => expand_tabs(s, number(&a, name)?.unwrap_or(8))?.into(),
        "format_map" => match a {
            Some(Value::Dict(pairs)) => format::format(s, &[], &pairs)?.into(),
            _ => return Err("`format_map` needs a dictionary".into()),
        },
        _ => Value::Bool(is(s, name)?),
    })
}
