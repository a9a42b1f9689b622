//! Filters of numbers.

use super::{
    arguments::{Bound, needed, whole},
    operators::unsuited,
    text::is_space,
    value::{Fallible, Value, too_large},
};

/// `abs`, `int`, `float` and `round`.
pub fn apply(name: &str, value: Value, [a, b, ..]: Bound) -> Fallible<Value> {
    Ok(match (name, &value) {
        (_, Value::Undefined(why)) => return Err(why.to_string()),
        ("abs", Value::Float(number)) => Value::Float(number.abs()),
        ("abs", other) => {
            let number = other.as_int().ok_or_else(|| unsuited(name, other))?;
            Value::Int(number.checked_abs().ok_or_else(too_large)?)
        }
        ("int", Value::Str(text) | Value::Markup(text)) => match parsed_int(text, whole(&b, 10, name)?)? {
            Some(number) => Value::Int(number),
            None => match parsed_float(text) {
                Some(number) if number.is_finite() => truncated(number)?,
                _ => a.unwrap_or(Value::Int(0)),
            },
        },
        ("int", Value::Float(number)) if number.is_finite() => truncated(*number)?,
        ("int", other) => other.as_int().map(Value::Int).or(a).unwrap_or(Value::Int(0)),
        ("float", other) => {
            let number = match other {
                Value::Str(text) | Value::Markup(text) => parsed_float(text),
                other => other.as_float(),
            };
            number.map(Value::Float).or(a).unwrap_or(Value::Float(0.0))
        }
        _ => {
            let method = if b.is_some() { needed(&b, name)? } else { "common" };
            round(&value, whole(&a, 0, name)?, method)?
        }
    })
}

fn truncated(number: f64) -> Fallible<Value> {
    if number.abs() >= 9.2e18 {
        return Err(too_large());
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
    let number = i64::from_str_radix(&digits.replace('_', ""), radix).map_err(|_| too_large())?;
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
