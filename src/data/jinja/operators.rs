//! Operators: comparisons, arithmetic, slices.

use super::{
    ast::{Comparison, Operator},
    format,
    text::{bounded, slice_indices},
    value::{Fallible, LARGEST_LIST, LARGEST_TEXT, Value, too_large},
};

pub fn compare(comparison: Comparison, left: &Value, right: &Value) -> Fallible<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right)?,
        Comparison::NotEqual => !left.equals(right)?,
        Comparison::In => right.contains(left)?,
        Comparison::NotIn => !right.contains(left)?,
        ordered => {
            // None: a NaN, which has no order.
            let order = left.compare(right)?;
            order.is_some_and(|order| match ordered {
                Comparison::Less => order.is_lt(),
                Comparison::LessEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                _ => order.is_ge(),
            })
        }
    })
}

pub fn unsuited(operator: &str, value: &Value) -> String {
    match value {
        Value::Undefined(why) => why.to_string(),
        other => format!("`{operator}` does not apply to `{}`", other.kind()),
    }
}

/// `value[start:stop:step]`.
pub fn slice(value: &Value, bounds: [Option<i64>; 3]) -> Fallible<Value> {
    let taken = |items: &[Value]| -> Fallible<Vec<Value>> {
        let indices = slice_indices(items.len(), bounds)?;
        Ok(indices.into_iter().filter_map(|i| items.get(i).cloned()).collect())
    };
    Ok(match value {
        Value::Str(text) => {
            let chars: Vec<char> = text.chars().collect();
            let indices = slice_indices(chars.len(), bounds)?;
            indices
                .into_iter()
                .filter_map(|i| chars.get(i))
                .collect::<String>()
                .into()
        }
        Value::List(items) => Value::list(taken(items)?),
        Value::Tuple(items) | Value::Group(items) => Value::tuple(taken(items)?),
        Value::Undefined(why) => return Err(why.to_string()),
        other => return Err(format!("a slice of a `{}` is not supported", other.kind())),
    })
}

/// An arithmetic operation; also what `+`, `*` and `%` do with texts and lists.
pub fn binary(operator: Operator, left: &Value, right: &Value) -> Fallible<Value> {
    use Operator::{Add, Divide, FloorDivide, Modulo, Multiply, Power, Subtract};
    if let (Modulo, Value::Str(template)) = (operator, left) {
        return format::percent(template, right).map(Value::from);
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let zero = || "division by zero".to_owned();
        return Ok(match operator {
            Add => Value::Int(a.checked_add(b).ok_or_else(too_large)?),
            Subtract => Value::Int(a.checked_sub(b).ok_or_else(too_large)?),
            Multiply => Value::Int(a.checked_mul(b).ok_or_else(too_large)?),
            Divide if b == 0 => return Err(zero()),
            Divide if a.unsigned_abs().max(b.unsigned_abs()) >= 1 << 53 => return Err(too_large()),
            Divide => Value::Float(a as f64 / b as f64),
            FloorDivide | Modulo if b == 0 => return Err(zero()),
            FloorDivide => {
                let quotient = a.checked_div(b).ok_or_else(too_large)?;
                Value::Int(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            }
            Modulo => {
                let rest = a.checked_rem(b).ok_or_else(too_large)?;
                Value::Int(if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                })
            }
            Power => match u32::try_from(b) {
                Ok(exponent) => Value::Int(a.checked_pow(exponent).ok_or_else(too_large)?),
                Err(_) if a == 0 => return Err("0 has no negative power".into()),
                Err(_) => Value::Float((a as f64).powf(b as f64)),
            },
        });
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return Ok(Value::Float(match operator {
            Add => a + b,
            Subtract => a - b,
            Multiply => a * b,
            Divide | FloorDivide | Modulo if b == 0.0 => return Err("division by zero".into()),
            Divide => a / b,
            FloorDivide => ((a - modulo(a, b)) / b).round(),
            Modulo => modulo(a, b),
            Power if a < 0.0 && b.fract() != 0.0 => return Err("a power of a negative number".into()),
            Power => a.powf(b),
        }));
    }
    match (operator, left, right) {
        (_, Value::Undefined(why), _) | (_, _, Value::Undefined(why)) => Err(why.to_string()),
        (Add, Value::Str(a), Value::Str(b)) => bounded(format!("{a}{b}")).map(Value::from),
        (Add, Value::List(a), Value::List(b)) => joined(a, b).map(Value::list),
        (Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => joined(a, b).map(Value::tuple),
        (Multiply, Value::Str(text), times) | (Multiply, times, Value::Str(text)) if times.as_int().is_some() => {
            let times = times
                .as_int()
                .and_then(|times| usize::try_from(times).ok())
                .unwrap_or(0);
            if text.len().checked_mul(times).is_none_or(|bytes| bytes > LARGEST_TEXT) {
                return Err(too_large());
            }
            Ok(text.repeat(times).into())
        }
        (Multiply, items, times) | (Multiply, times, items)
            if items.elements().is_some() && times.as_int().is_some() =>
        {
            let times = times
                .as_int()
                .and_then(|times| usize::try_from(times).ok())
                .unwrap_or(0);
            let elements = items.elements().unwrap_or_default();
            if elements
                .len()
                .checked_mul(times)
                .is_none_or(|length| length > LARGEST_LIST)
            {
                return Err(too_large());
            }
            let repeated = elements.iter().cycle().take(elements.len() * times).cloned().collect();
            Ok(match items {
                Value::List(_) => Value::list(repeated),
                _ => Value::tuple(repeated),
            })
        }
        _ => {
            let sign = match operator {
                Add => "+",
                Subtract => "-",
                Multiply => "*",
                Divide => "/",
                FloorDivide => "//",
                Modulo => "%",
                Power => "**",
            };
            Err(format!(
                "`{sign}` does not apply to `{}` and `{}`",
                left.kind(),
                right.kind()
            ))
        }
    }
}

/// Python's `%` of floats: the sign of the divisor.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest + b
    } else if rest == 0.0 {
        0.0_f64.copysign(b)
    } else {
        rest
    }
}

fn joined(a: &[Value], b: &[Value]) -> Fallible<Vec<Value>> {
    if a.len() + b.len() > LARGEST_LIST {
        return Err(too_large());
    }
    Ok(a.iter().chain(b).cloned().collect())
}
