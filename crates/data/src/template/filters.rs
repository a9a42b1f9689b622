//! Filters, as in `value|trim`.

use super::{
    arguments::{Bound, Given, flag, needed, signature, some, whole},
    format, fuel,
    interpreter::Interpreter,
    methods, numbers, sequences, strings,
    text::{JsonStyle, bounded, escape, is_space, json, str_of},
    value::{Fallible, LARGEST_TEXT, Value, too_large},
};

/// All filters that Jinja has, with their parameters: `!` for one that is not supported, `*` for any number.
pub const FILTERS: &str = "abs() attr(name) batch(linecount,fill_with) capitalize() center(width) count() \
    d(default_value,boolean) default(default_value,boolean) dictsort(case_sensitive,by,reverse) e() escape() \
    filesizeformat(!) first() float(default) forceescape() format(*) groupby(attribute,default,case_sensitive) \
    indent(width,first,blank) int(default,base) items() join(d,attribute) last() length() list() lower() map(*) \
    max(case_sensitive,attribute) min(case_sensitive,attribute) pprint(!) random(!) reject(*) rejectattr(*) \
    replace(old,new,count) reverse() round(precision,method) safe() select(*) selectattr(*) \
    slice(slices,fill_with) sort(reverse,case_sensitive,attribute) string() striptags(!) sum(attribute,start) \
    title() tojson(ensure_ascii,indent,separators,sort_keys) trim(chars) truncate(length,killwords,end,leeway) \
    unique(case_sensitive,attribute) upper() urlencode() urlize(!) wordcount() wordwrap(!) xmlattr(!)";

/// Widest indentation.
const WIDEST: usize = 1 << 16;

/// `value|name(…)`.
pub fn apply(interpreter: &mut Interpreter<'_>, name: &str, value: Value, given: Given) -> Fallible<Value> {
    let parameters = signature(FILTERS, name).ok_or_else(|| format!("there is no filter `{name}`"))?;
    fuel::read(value.bytes())?;
    match (name, parameters) {
        (_, "!") => Err(format!("the filter `{name}` is not supported")),
        ("format", _) => {
            let text = soft(&value)?;
            let values = match (given.positional.is_empty(), given.named.is_empty()) {
                (false, false) => return Err("`format` takes positional or named arguments, not both".into()),
                (_, true) => Value::tuple(given.positional),
                _ => {
                    let named = given.named.into_iter().map(|(name, value)| (Value::Str(name), value));
                    Value::dict(named.collect())
                }
            };
            format::percent(&text, &values).map(Value::from)
        }
        (_, "*") => sequences::chosen(interpreter, name, value, given),
        ("sort" | "unique" | "min" | "max" | "groupby" | "sum" | "join" | "dictsort", _) => {
            sequences::ordered(interpreter, name, value, given.bind(name, parameters)?)
        }
        ("abs" | "int" | "float" | "round", _) => numbers::apply(name, value, given.bind(name, parameters)?),
        ("first" | "last" | "length" | "count" | "list" | "items" | "reverse" | "batch" | "slice", _) => {
            sequences::apply(name, value, given.bind(name, parameters)?)
        }
        ("attr", _) => match given.bind(name, parameters)? {
            // `attr` finds attributes only, never items.
            [Some(Value::Str(name)), ..] if matches!(value, Value::Dict(_)) && !methods::exists(&value, &name) => {
                Ok(Value::undefined("no such attribute"))
            }
            [Some(Value::Str(name)), ..] => interpreter.attribute(&value, &name),
            _ => Err("`attr` needs a name".into()),
        },
        _ => textual(name, value, given.bind(name, parameters)?),
    }
}

/// `soft_str`: a text as it is.
fn soft(value: &Value) -> Fallible<String> {
    if matches!(value, Value::Markup(_)) {
        return Err("a filter on marked-up text is not supported".into());
    }
    str_of(value)
}

fn textual(name: &str, value: Value, [a, b, c, d]: Bound) -> Fallible<Value> {
    Ok(match name {
        "default" | "d" => {
            if value.is_undefined() || (flag(&b) && !value.truth()) {
                a.unwrap_or_else(|| "".into())
            } else {
                value
            }
        }
        "upper" | "lower" | "capitalize" => strings::cased(&soft(&value)?, name)?.into(),
        "title" => title(&soft(&value)?).into(),
        "trim" => strings::strip(&soft(&value)?, "strip", &a)?.into(),
        "string" if matches!(value, Value::Markup(_)) => value,
        "string" => str_of(&value)?.into(),
        "replace" => {
            let argument = |value: Option<Value>| str_of(&value.ok_or("`replace` lacks an argument")?);
            let count = usize::try_from(whole(&some(c), -1, name)?).ok();
            strings::replace(&str_of(&value)?, &argument(a)?, &argument(b)?, count)?.into()
        }
        "tojson" => {
            let indent = match some(b) {
                None => None,
                width => Some(indentation(&width, 0, name)?),
            };
            let (item_separator, key_separator) = match some(c).as_ref().map(Value::elements) {
                None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
                Some(Some([Value::Str(item), Value::Str(key)])) => (item.to_string(), key.to_string()),
                Some(_) => return Err("`separators` of `tojson` are two texts".into()),
            };
            let (ensure_ascii, sort_keys) = (flag(&a), flag(&d));
            json(
                &value,
                &JsonStyle {
                    ensure_ascii,
                    indent,
                    item_separator,
                    key_separator,
                    sort_keys,
                },
            )?
            .into()
        }
        "indent" => indent(
            needed(&Some(value), name)?,
            &indentation(&a, 4, name)?,
            flag(&b),
            flag(&c),
        )?
        .into(),
        "truncate" => {
            let end = if c.is_some() { needed(&c, name)? } else { "..." };
            let length = usize::try_from(whole(&a, 255, name)?).map_err(|e| e.to_string())?;
            let leeway = usize::try_from(whole(&some(d), 5, name)?).map_err(|e| e.to_string())?;
            let value = Some(value);
            let text = needed(&value, name)?;
            let kept = length
                .checked_sub(end.chars().count())
                .ok_or("`truncate` is shorter than its end")?;
            if text.chars().count() <= length.saturating_add(leeway) {
                return Ok(text.into());
            }
            let cut: String = text.chars().take(kept).collect();
            let words = cut.rsplit_once(' ').filter(|_| !flag(&b));
            format!("{}{end}", words.map_or(cut.as_str(), |(words, _)| words)).into()
        }
        "center" => strings::padded(&soft(&value)?, name, whole(&a, 80, name)?, None)?.into(),
        "wordcount" => {
            let text = soft(&value)?;
            if !text.is_ascii() {
                return Err("`wordcount` of a text outside ASCII is not supported".into());
            }
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            Value::int(words.filter(|word| !word.is_empty()).count())?
        }
        "urlencode" => url_encode(&value)?.into(),
        "safe" => Value::markup(&str_of(&value)?),
        "escape" | "e" if matches!(value, Value::Markup(_)) => value,
        _ => Value::markup(&escape(&str_of(&value)?)?),
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

/// A text, or as many spaces as a number says.
fn indentation(width: &Option<Value>, default: i64, filter: &str) -> Fallible<String> {
    if let Some(Value::Str(text)) = width {
        return Ok(text.to_string());
    }
    match usize::try_from(whole(width, default, filter)?).unwrap_or(0) {
        width if width > WIDEST => Err(too_large()),
        width => Ok(" ".repeat(width)),
    }
}

fn indent(text: &str, indentation: &str, first: bool, blank: bool) -> Fallible<String> {
    let text = format!("{text}\n");
    let lines = strings::split_lines(&text, false)?;
    let bytes = indentation.len().checked_mul(lines.len());
    if bytes.is_none_or(|bytes| bytes > LARGEST_TEXT) {
        return Err(too_large());
    }
    let mut out = String::from(if first { indentation } else { "" });
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            out.push_str(if blank || !line.is_empty() { indentation } else { "" });
        }
        out.push_str(line);
    }
    bounded(out)
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
            let pairs = pairs.iter();
            let parts = pairs.map(|(key, value)| Ok(format!("{}={}", quoted(key, true)?, quoted(value, true)?)));
            Ok(parts.collect::<Fallible<Vec<String>>>()?.join("&"))
        }
        Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None => quoted(value, false),
        other => Err(format!("`urlencode` of a `{}` is not supported", other.kind())),
    }
}
