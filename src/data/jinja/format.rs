//! Python's two ways to format: `'%s' % value` and `'{}'.format(value)`.

use super::{
    eval::attribute,
    text::{bounded, float, repr, str_of},
    value::{Fallible, LARGEST_TEXT, Value, find},
};

/// Flags, width and precision of a conversion.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: bool,
    precision: Option<usize>,
}

/// `template % values`.
pub fn percent(template: &str, values: &Value) -> Fallible<String> {
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    let items: Vec<Value> = match values {
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
            let mut name = String::new();
            loop {
                match chars.next() {
                    Some(')') => break,
                    Some(c) => name.push(c),
                    None => return Err("`%(` has no `)`".into()),
                }
            }
            let Value::Dict(pairs) = values else {
                return Err("`%(name)s` needs a dictionary on the right of `%`".into());
            };
            let value = find(pairs, &Value::from(name.as_str()))?;
            named = Some(value.cloned().ok_or_else(|| format!("`%({name})` has no value"))?);
            by_name = true;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' if spec.sign.is_none() => spec.sign = Some(' '),
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                _ => {}
            }
        }
        if chars.peek() == Some(&'*') {
            return Err("`*` as a width in `%` is not supported".into());
        }
        spec.width = digits(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut chars)?.unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let Some(conversion) = chars.next() else {
            return Err("a format ends with `%`".into());
        };
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => items.next().ok_or("not enough values for the format")?,
        };
        let text = match conversion {
            's' | 'r' => {
                let text = if conversion == 's' {
                    str_of(&value)?
                } else {
                    repr(&value)?
                };
                spec.zero = false;
                let cut = spec
                    .precision
                    .map_or(text.clone(), |most| text.chars().take(most).collect());
                pad(cut, &spec, '>')?
            }
            'c' => {
                let text = match &value {
                    Value::Str(text) if text.chars().count() == 1 => text.to_string(),
                    other => {
                        let code = other
                            .as_int()
                            .and_then(|code| u32::try_from(code).ok())
                            .and_then(char::from_u32);
                        code.ok_or("`%c` needs a character")?.to_string()
                    }
                };
                spec.zero = false;
                pad(text, &spec, '>')?
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let number = match &value {
                    Value::Float(number) if "diu".contains(conversion) && number.abs() < 9e15 => *number as i64,
                    other => other
                        .as_int()
                        .ok_or_else(|| format!("`%{conversion}` needs a whole number, not `{}`", other.kind()))?,
                };
                if spec.precision.is_some() {
                    return Err("a precision for whole numbers in `%` is not supported".into());
                }
                let kind = if "iu".contains(conversion) { 'd' } else { conversion };
                spec.zero &= spec.align.is_none();
                integer(number, kind, &spec)?
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                let number = value
                    .as_float()
                    .ok_or_else(|| format!("`%{conversion}` needs a number, not `{}`", value.kind()))?;
                spec.zero &= spec.align.is_none();
                real(number, Some(conversion), &spec)?
            }
            other => return Err(format!("`%{other}` is not a format")),
        };
        out.push_str(&text);
        if out.len() > LARGEST_TEXT {
            return bounded(out);
        }
    }
    if !by_name && items.next().is_some() && !matches!(values, Value::Dict(_)) {
        return Err("not all values were used by the format".into());
    }
    Ok(out)
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Fallible<Option<usize>> {
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        number = Some(number.unwrap_or(0) * 10 + digit as usize);
        if number > Some(1 << 20) {
            return Err("a width or precision is too large".into());
        }
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
            let (item, rest) = path
                .strip_prefix('[')
                .and_then(|path| path.split_once(']'))
                .ok_or("a `[` in a format has no `]`")?;
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
pub fn formatted(value: &Value, text: &str) -> Fallible<String> {
    if text.is_empty() {
        return str_of(value);
    }
    let chars: Vec<char> = text.chars().collect();
    let mut spec = Spec::default();
    let mut at = 0;
    let is_align = |c: Option<&char>| c.is_some_and(|c| "<>^=".contains(*c));
    if is_align(chars.get(1)) {
        spec.fill = chars.first().copied();
        spec.align = chars.get(1).copied();
        at = 2;
    } else if is_align(chars.first()) {
        spec.align = chars.first().copied();
        at = 1;
    }
    let rest: String = chars.iter().skip(at).collect();
    let mut chars = rest.chars().peekable();
    spec.sign = chars.next_if(|c| "+- ".contains(*c)).filter(|c| *c != '-');
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    spec.width = digits(&mut chars)?.unwrap_or(0);
    spec.grouping = chars.next_if_eq(&',').is_some();
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(digits(&mut chars)?.ok_or("a format lacks its precision")?);
    }
    let kind = chars.next();
    let wrong = || format!("the format `{text}` is not supported for `{}`", value.kind());
    if chars.next().is_some() {
        return Err(wrong());
    }
    match value {
        Value::Str(string) => {
            let plain = spec.sign.is_none() && !spec.alternate && !spec.grouping && spec.align != Some('=');
            if !matches!(kind, None | Some('s')) || !plain {
                return Err(wrong());
            }
            if spec.zero && spec.fill.is_none() {
                spec.fill = Some('0');
            }
            spec.zero = false;
            let cut = match spec.precision {
                Some(most) => string.chars().take(most).collect(),
                None => string.to_string(),
            };
            pad(cut, &spec, '<')
        }
        Value::Int(_) | Value::Bool(_) => {
            let number = value.as_int().unwrap_or_default();
            match kind {
                None | Some('d' | 'x' | 'X' | 'o' | 'b') if spec.precision.is_none() => {
                    integer(number, kind.unwrap_or('d'), &spec)
                }
                Some('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%') => real(number as f64, kind, &spec),
                _ => Err(wrong()),
            }
        }
        Value::Float(number) => match kind {
            None | Some('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%') => real(*number, kind, &spec),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn pad(text: String, spec: &Spec, default: char) -> Fallible<String> {
    let length = text.chars().count();
    if spec.width <= length {
        return Ok(text);
    }
    if spec.width > 1 << 20 {
        return Err("a width is too large".into());
    }
    let fill = spec.fill.unwrap_or(' ').to_string();
    let room = spec.width - length;
    Ok(match spec.align.unwrap_or(default) {
        '<' => text + &fill.repeat(room),
        '^' => fill.repeat(room / 2) + &text + &fill.repeat(room - room / 2),
        _ => fill.repeat(room) + &text,
    })
}

/// A sign and digits, filled between the two where the format says so.
fn number(negative: bool, prefix: &str, digits: String, spec: &Spec) -> Fallible<String> {
    let sign = match (negative, spec.sign) {
        (true, _) => "-".to_owned(),
        (false, Some(sign)) => sign.to_string(),
        (false, None) => String::new(),
    };
    let head = sign + prefix;
    if (spec.zero && spec.align.is_none()) || spec.align == Some('=') {
        if spec.grouping {
            return Err("`,` with zeros in front is not supported in a format".into());
        }
        let length = head.chars().count() + digits.chars().count();
        let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' }).to_string();
        return Ok(head + &fill.repeat(spec.width.saturating_sub(length).min(1 << 20)) + &digits);
    }
    pad(head + &digits, spec, '>')
}

fn grouped(digits: &str) -> String {
    let (whole, part) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + part
}

fn integer(value: i64, kind: char, spec: &Spec) -> Fallible<String> {
    let magnitude = value.unsigned_abs();
    let (prefix, digits) = match kind {
        'x' => ("0x", format!("{magnitude:x}")),
        'X' => ("0X", format!("{magnitude:X}")),
        'o' => ("0o", format!("{magnitude:o}")),
        'b' => ("0b", format!("{magnitude:b}")),
        _ => ("", magnitude.to_string()),
    };
    if spec.grouping && kind != 'd' {
        return Err("`,` is for decimal numbers in a format".into());
    }
    let digits = if spec.grouping { grouped(&digits) } else { digits };
    number(value < 0, if spec.alternate { prefix } else { "" }, digits, spec)
}

fn real(value: f64, kind: Option<char>, spec: &Spec) -> Fallible<String> {
    if !value.is_finite() {
        return Err("formatting a number that is not finite is not supported".into());
    }
    if spec.alternate {
        return Err("`#` for floats is not supported in a format".into());
    }
    let magnitude = value.abs();
    let precision = spec.precision.unwrap_or(6);
    let digits = match kind {
        Some('f' | 'F') => format!("{magnitude:.precision$}"),
        Some('%') => format!("{:.precision$}%", magnitude * 100.0),
        Some(e @ ('e' | 'E')) => exponent(magnitude, precision, e),
        Some(g @ ('g' | 'G')) => general(magnitude, precision, if g == 'g' { 'e' } else { 'E' }),
        _ if spec.precision.is_some() => {
            return Err("a precision without a type is not supported for floats in a format".into());
        }
        _ => float(magnitude),
    };
    let digits = if spec.grouping { grouped(&digits) } else { digits };
    number(value.is_sign_negative(), "", digits, spec)
}

fn exponent(magnitude: f64, precision: usize, e: char) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or_default();
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}{e}{sign}{:02}", power.abs())
}

/// `%g`: `precision` significant digits, without zeros at the end.
fn general(magnitude: f64, precision: usize, e: char) -> String {
    let precision = precision.max(1);
    let text = format!("{magnitude:.*e}", precision - 1);
    let power: i32 = text
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or_default();
    let trimmed = |digits: &str| {
        if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            digits.to_owned()
        }
    };
    if power < -4 || power >= precision as i32 {
        let text = exponent(magnitude, precision - 1, e);
        let (digits, rest) = text.split_at(text.find(e).unwrap_or(text.len()));
        return trimmed(digits) + rest;
    }
    let decimals = (precision as i32 - 1 - power).max(0) as usize;
    trimmed(&format!("{magnitude:.decimals$}"))
}
