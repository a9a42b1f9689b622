//! Tests, as in `value is defined`.

use super::{
    ast::{Comparison, Operator},
    eval::Given,
    filters,
    operators::{binary, compare},
    text::str_of,
    value::{Fallible, Value},
};
use std::rc::Rc;

/// All tests that Jinja has.
const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// `value is name(…)`.
pub fn test(name: &str, value: &Value, given: Given) -> Fallible<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    let other = |given: Given| -> Fallible<Value> {
        let [other] = given.bind(name, ["other"])?;
        other.ok_or_else(|| format!("the test `{name}` needs an argument"))
    };
    if let Some(comparison) = comparison {
        return compare(comparison, value, &other(given)?);
    }
    match name {
        "sameas" => return same(value, &other(given)?),
        "divisibleby" => {
            let rest = binary(Operator::Modulo, value, &other(given)?)?;
            return rest.equals(&Value::Int(0));
        }
        _ => {
            let [] = given.bind(name, [])?;
        }
    }
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Str(_) | Value::Markup(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::Markup(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Group(_)
                | Value::Dict(_)
                | Value::Range(..)
        ),
        "iterable" => !matches!(
            value,
            Value::None
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Namespace(_)
                | Value::Method(..)
                | Value::Function(_)
                | Value::Macro(_)
        ),
        // An undefined value has `__call__`, too.
        "callable" => matches!(
            value,
            Value::Undefined(_) | Value::Method(..) | Value::Function(_) | Value::Macro(_) | Value::Loop(_)
        ),
        "escaped" => matches!(value, Value::Markup(_)),
        "odd" => binary(Operator::Modulo, value, &Value::Int(2))?.equals(&Value::Int(1))?,
        "even" => binary(Operator::Modulo, value, &Value::Int(2))?.equals(&Value::Int(0))?,
        "lower" | "upper" => {
            let method = if name == "lower" { "islower" } else { "isupper" };
            super::methods::call(&str_of(value)?.into(), method, Given::default())?.truth()
        }
        "filter" => value.as_str().is_some_and(|name| filters::NAMES.contains(&name)),
        "test" => value.as_str().is_some_and(|name| NAMES.contains(&name)),
        other => return Err(format!("there is no test `{other}`")),
    })
}

/// `value is other` in Python, where that is certain.
fn same(value: &Value, other: &Value) -> Fallible<bool> {
    Ok(match (value, other) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        // Small numbers are the same object.
        (Value::Int(a), Value::Int(b)) if a != b => false,
        (Value::Int(a), Value::Int(_)) if (-5..=256).contains(a) => true,
        (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        _ if value.kind() != other.kind() => false,
        _ => return Err(format!("`sameas` of two `{}` is not supported", value.kind())),
    })
}
