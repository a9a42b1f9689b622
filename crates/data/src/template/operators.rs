//! Operators: comparisons, arithmetic, slices.

use super::{
    format, fuel,
    text::{bounded, slice_indices},
    value::{Fallible, LARGEST_LIST, LARGEST_TEXT, Value, too_large},
};
use minijinja::machinery::ast::{BinOpKind, CompareOpKind};

/// A binary operator that compares.
pub fn comparison(operator: BinOpKind) -> Option<CompareOpKind> {
    Some(match operator {
        BinOpKind::Eq => CompareOpKind::Eq,
        BinOpKind::Ne => CompareOpKind::Ne,
        BinOpKind::Lt => CompareOpKind::Lt,
        BinOpKind::Lte => CompareOpKind::Lte,
        BinOpKind::Gt => CompareOpKind::Gt,
        BinOpKind::Gte => CompareOpKind::Gte,
        BinOpKind::In => CompareOpKind::In,
        _ => return None,
    })
}

pub fn compare(comparison: CompareOpKind, left: &Value, right: &Value) -> Fallible<bool> {
    Ok(match comparison {
        CompareOpKind::Eq => left.equals(right)?,
        CompareOpKind::Ne => !left.equals(right)?,
        CompareOpKind::In => right.contains(left)?,
        CompareOpKind::NotIn => !right.contains(left)?,
        ordered => {
            // None: a NaN, which has no order.
            let order = left.compare(right)?;
            order.is_some_and(|order| match ordered {
                CompareOpKind::Lt => order.is_lt(),
                CompareOpKind::Lte => order.is_le(),
                CompareOpKind::Gt => order.is_gt(),
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
        fuel::made(size_of_val(items));
        fuel::steps(1)?;
        let indices = slice_indices(items.len(), bounds)?;
        Ok(indices.into_iter().filter_map(|i| items.get(i).cloned()).collect())
    };
    Ok(match value {
        Value::Str(text) => {
            fuel::made(text.len() * (size_of::<char>() + size_of::<usize>()));
            fuel::steps(1)?;
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
pub fn binary(operator: BinOpKind, left: &Value, right: &Value) -> Fallible<Value> {
    fuel::steps(1)?;
    use BinOpKind::{Add, Div, FloorDiv, Mul, Pow, Rem, Sub};
    if let (Rem, Value::Str(template)) = (operator, left) {
        return format::percent(template, right).map(Value::from);
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let zero = || "division by zero".to_owned();
        return Ok(match operator {
            Add => Value::Int(a.checked_add(b).ok_or_else(too_large)?),
            Sub => Value::Int(a.checked_sub(b).ok_or_else(too_large)?),
            Mul => Value::Int(a.checked_mul(b).ok_or_else(too_large)?),
            Div if b == 0 => return Err(zero()),
            Div if a.unsigned_abs().max(b.unsigned_abs()) >= 1 << 53 => return Err(too_large()),
            Div => Value::Float(a as f64 / b as f64),
            FloorDiv | Rem if b == 0 => return Err(zero()),
            FloorDiv => {
                let quotient = a.checked_div(b).ok_or_else(too_large)?;
                Value::Int(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            }
            Rem => {
                let rest = a.checked_rem(b).ok_or_else(too_large)?;
                Value::Int(if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                })
            }
            Pow => match u32::try_from(b) {
                Ok(exponent) => Value::Int(a.checked_pow(exponent).ok_or_else(too_large)?),
                Err(_) if a == 0 => return Err("0 has no negative power".into()),
                Err(_) => Value::Float((a as f64).powf(b as f64)),
            },
            _ => return Err(unlike(operator, left, right)),
        });
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return Ok(Value::Float(match operator {
            Add => a + b,
            Sub => a - b,
            Mul => a * b,
            Div | FloorDiv | Rem if b == 0.0 => return Err("division by zero".into()),
            Div => a / b,
            FloorDiv => ((a - modulo(a, b)) / b).round(),
            Rem => modulo(a, b),
            Pow if a < 0.0 && b.fract() != 0.0 => return Err("a power of a negative number".into()),
            Pow => a.powf(b),
            _ => return Err(unlike(operator, left, right)),
        }));
    }
    match (operator, left, right) {
        (_, Value::Undefined(why), _) | (_, _, Value::Undefined(why)) => Err(why.to_string()),
        (Add, Value::Str(a), Value::Str(b)) => bounded(format!("{a}{b}")).map(Value::from),
        (Add, Value::List(a), Value::List(b)) => joined(a, b).map(Value::list),
        (Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => joined(a, b).map(Value::tuple),
        (Mul, ..) => match (left.as_int(), right.as_int()) {
            (_, Some(times)) => repeated(left, times),
            (Some(times), _) => repeated(right, times),
            _ => None,
        }
        .unwrap_or_else(|| Err(unlike(operator, left, right))),
        _ => Err(unlike(operator, left, right)),
    }
}

fn unlike(operator: BinOpKind, left: &Value, right: &Value) -> String {
    let sign = match operator {
        BinOpKind::Add => "+",
        BinOpKind::Sub => "-",
        BinOpKind::Mul => "*",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        _ => "**",
    };
    format!("`{sign}` does not apply to `{}` and `{}`", left.kind(), right.kind())
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

/// A text or a list several times; None for what is neither.
fn repeated(items: &Value, times: i64) -> Option<Fallible<Value>> {
    let times = usize::try_from(times).unwrap_or(0);
    let fits = |length: usize, largest: usize| length.checked_mul(times).is_some_and(|length| length <= largest);
    if let Value::Str(text) = items {
        return Some(if fits(text.len(), LARGEST_TEXT) {
            Ok(text.repeat(times).into())
        } else {
            Err(too_large())
        });
    }
    let elements = items.elements()?;
    if !fits(elements.len(), LARGEST_LIST) {
        return Some(Err(too_large()));
    }
    let found = elements.iter().cycle().take(elements.len() * times).cloned().collect();
    Some(Ok(if matches!(items, Value::List(_)) {
        Value::list(found)
    } else {
        Value::tuple(found)
    }))
}

fn joined(a: &[Value], b: &[Value]) -> Fallible<Vec<Value>> {
    if a.len() + b.len() > LARGEST_LIST {
        return Err(too_large());
    }
    Ok(a.iter().chain(b).cloned().collect())
}
