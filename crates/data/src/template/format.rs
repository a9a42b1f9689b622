//! Python's two ways to format: `'%s' % value` and `'{}'.format(value)`. minijinja formats the single value.

use super::{
    interpreter::attribute,
    text::{bounded, float, repr, str_of},
    value::{Fallible, LARGEST_TEXT, Value, find},
};
use minijinja::{FormatStyle, format_filter};
use std::{iter::Peekable, str::Chars};

/// Largest width and precision of a format.
const WIDEST: usize = 1 << 20;
const MOST_DIGITS: usize = 1000;

/// `template % values`.
pub fn percent(template: &str, values: &Value) -> Fallible<String> {
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    let items = match values {
        Value::Tuple(items) | Value::Group(items) => items.to_vec(),
        single => vec![single.clone()],
    };
    let mut items = items.into_iter();
    let mut by_name = false;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            let Value::Dict(pairs) = values else {
                return Err("`%(name)s` needs a dictionary on the right of `%`".into());
            };
            let value = find(pairs, &Value::from(name.as_str()))?;
            named = Some(value.cloned().ok_or_else(|| format!("`%({name})` has no value"))?);
            by_name = true;
        }
        let flags: String = std::iter::from_fn(|| chars.next_if(|c| "-+ #0".contains(*c))).collect();
        let width = digits(&mut chars, WIDEST)?;
        let precision = match chars.next_if_eq(&'.') {
            Some(_) => format!(".{:0>1}", digits(&mut chars, MOST_DIGITS)?),
            None => String::new(),
        };
        let conversion = match chars.next() {
            Some('%') => {
                out.push('%');
                continue;
            }
            Some('i' | 'u') => 'd',
            Some(conversion) => conversion,
            None => return Err("a format ends with `%`".into()),
        };
        let value = match named {
            Some(value) => value,
            None => items.next().ok_or("not enough values for the format")?,
        };
        let unsuited = || {
            format!(
                "`%{flags}{width}{precision}{conversion}` of `{}` is not supported",
                value.kind()
            )
        };
        let (formatted, conversion): (minijinja::Value, char) = match conversion {
            's' | 'r' => {
                let text = if conversion == 's' {
                    str_of(&value)?
                } else {
                    repr(&value)?
                };
                let align = if flags.contains('-') { '<' } else { '>' };
                out.push_str(&filled(&text, &precision, align, ' ', &width));
                continue;
            }
            'd' | 'x' | 'X' | 'o' if precision.is_empty() => match &value {
                Value::Float(number) if conversion == 'd' && number.abs() < 9e15 => ((*number as i64).into(), 'd'),
                other => (other.as_int().ok_or_else(unsuited)?.into(), conversion),
            },
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' if !flags.contains('#') => {
                let number = value.as_float().filter(|number| number.is_finite());
                (number.ok_or_else(unsuited)?.into(), conversion)
            }
            _ => return Err(unsuited()),
        };
        let spec = format!("%{flags}{width}{precision}{conversion}");
        out.push_str(&one(FormatStyle::Printf, &spec, formatted)?);
        if out.len() > LARGEST_TEXT {
            return bounded(out);
        }
    }
    if !by_name && items.next().is_some() && !matches!(values, Value::Dict(_)) {
        return Err("not all values were used by the format".into());
    }
    Ok(out)
}

fn one(style: FormatStyle, spec: &str, value: minijinja::Value) -> Fallible<String> {
    format_filter(style, spec, &[value]).map_err(|_| format!("the format `{spec}` is not supported"))
}

/// A text cut to its precision, such as `.3`, and filled to its width.
fn filled(text: &str, precision: &str, align: char, fill: char, width: &str) -> String {
    let most = precision.trim_start_matches('.').parse().unwrap_or(usize::MAX);
    let text: String = text.chars().take(most).collect();
    let room = width.parse().unwrap_or(0usize).saturating_sub(text.chars().count());
    let left = match align {
        '<' => 0,
        '^' => room / 2,
        _ => room,
    };
    let fill = |times: usize| String::from(fill).repeat(times);
    fill(left) + &text + &fill(room - left)
}

/// A number in a format, which is bounded.
fn digits(chars: &mut Peekable<Chars<'_>>, most: usize) -> Fallible<String> {
    let number: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
    if !number.is_empty() && number.parse().map_or(true, |number: usize| number > most) {
        return Err("a width or precision is too large".into());
    }
    Ok(number)
}

/// `template.format(*positional, **named)`.
pub fn format(template: &str, positional: &[Value], named: &[(Value, Value)]) -> Fallible<String> {
    let mut out = String::new();
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, tail) = rest.split_at(at);
        out.push_str(text);
        let brace = tail.get(..1).unwrap_or_default();
        rest = tail.get(1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err("a single `}` in a format".into());
        }
        let end = rest.find('}').ok_or("a `{` in a format has no `}`")?;
        let (field, tail) = rest.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        if field.contains('{') {
            return Err("nested fields in a format are not supported".into());
        }
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (field, conversion) = match field.split_once('!') {
            Some((field, conversion)) => (field, Some(conversion)),
            None => (field, None),
        };
        let mut value = lookup(field, positional, named, &mut next)?;
        match conversion {
            None => {}
            Some("s") => value = str_of(&value)?.into(),
            Some("r") => value = repr(&value)?.into(),
            Some(other) => return Err(format!("`!{other}` in a format is not supported")),
        }
        out.push_str(&formatted(&value, spec)?);
        if out.len() > LARGEST_TEXT {
            return bounded(out);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `name.attribute[item]`.
fn lookup(field: &str, positional: &[Value], named: &[(Value, Value)], next: &mut usize) -> Fallible<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (first, mut path) = field.split_at(end);
    let index = if first.is_empty() {
        *next += 1;
        Some(*next - 1)
    } else {
        first.parse().ok()
    };
    let mut value = match index {
        Some(index) => positional.get(index).cloned(),
        None => find(named, &Value::from(first))?.cloned(),
    }
    .ok_or_else(|| format!("the format has no value for `{field}`"))?;
    while !path.is_empty() {
        if let Some(after) = path.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, rest) = after.split_at(end);
            value = attribute(&value, name)?;
            path = rest;
        } else {
            let inside = path.strip_prefix('[').and_then(|path| path.split_once(']'));
            let (item, rest) = inside.ok_or("a `[` in a format has no `]`")?;
            let index = item.parse().map_or_else(|_| Value::from(item), Value::Int);
            value = value
                .item(&index)?
                .ok_or_else(|| format!("the format has no value for `{field}`"))?;
            path = rest;
        }
    }
    Ok(value)
}

/// `format(value, spec)`.
fn formatted(value: &Value, spec: &str) -> Fallible<String> {
    if spec.is_empty() {
        return str_of(value);
    }
    let wrong = || format!("the format `{spec}` is not supported for `{}`", value.kind());
    let is_align = |c: Option<char>| c.is_some_and(|c| "<>^".contains(c));
    let head = match (is_align(spec.chars().nth(1)), is_align(spec.chars().next())) {
        (true, _) => spec.chars().take(2).map(char::len_utf8).sum(),
        (false, aligned) => usize::from(aligned),
    };
    let (align, rest) = spec.split_at(head);
    let mut chars = rest.chars().peekable();
    let sign = chars.next_if(|c| "+- ".contains(*c)).is_some();
    let alternate = chars.next_if_eq(&'#').is_some();
    let zero = chars.next_if_eq(&'0').is_some();
    let width = digits(&mut chars, WIDEST)?;
    let grouping = chars.next_if_eq(&',').is_some();
    let precise = chars.next_if_eq(&'.').is_some();
    let precision = digits(&mut chars, MOST_DIGITS)?;
    let kind = chars.next();
    let plain = !(sign || alternate || zero || grouping);
    if chars.next().is_some() || (precise && precision.is_empty()) || (zero && (grouping || !align.is_empty())) {
        return Err(wrong());
    }
    // `{:0}` has no width: nothing is filled.
    let rest = if zero && width.is_empty() {
        rest.replacen('0', "", 1)
    } else {
        rest.to_owned()
    };
    let all = format!("{{:{align}{rest}}}");
    let one = |spec: &str, value: minijinja::Value| one(FormatStyle::StrFormat, spec, value);
    // minijinja fills texts by their bytes.
    let text_of = |text: &str, precision: &str, default: char| {
        let fill = align
            .chars()
            .next()
            .filter(|_| align.chars().count() > 1)
            .unwrap_or(' ');
        filled(
            text,
            precision,
            align.chars().next_back().unwrap_or(default),
            fill,
            &width,
        )
    };
    match (value, kind) {
        (Value::Str(text), None | Some('s')) if plain => Ok(text_of(text, &precision, '<')),
        (Value::Float(number), None) if plain && !precise => Ok(text_of(&float(*number), "", '>')),
        (Value::Int(_) | Value::Bool(_), None | Some('d' | 'x' | 'X' | 'o' | 'b')) if !precise => {
            one(&all, value.as_int().unwrap_or_default().into())
        }
        (_, Some('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%')) if !alternate => {
            let number = value.as_float().filter(|number| number.is_finite()).ok_or_else(wrong)?;
            match kind {
                Some('%') if width.is_empty() => Ok(one(&all.replace('%', "f"), (number * 100.0).into())? + "%"),
                Some('%') => Err(wrong()),
                _ => one(&all, number.into()),
            }
        }
        _ => Err(wrong()),
    }
}
