//! Tests, as in `value is defined`.

use super::{
    arguments::{Given, signature},
    filters, fuel,
    operators::{binary, compare},
    strings,
    text::str_of,
    value::{Fallible, Value},
};
use minijinja::machinery::ast::{BinOpKind, CompareOpKind};
use std::rc::Rc;

/// All tests that Jinja has, with their parameters.
const TESTS: &str = "!=(other) <(other) <=(other) ==(other) >(other) >=(other) boolean() callable() defined() \
    divisibleby(other) eq(other) equalto(other) escaped() even() false() filter() float() ge(other) gt(other) \
    greaterthan(other) in(other) integer() iterable() le(other) lessthan(other) lower() lt(other) mapping() \
    ne(other) none() number() odd() sameas(other) sequence() string() test() true() undefined() upper()";

/// `value is name(…)`.
pub fn test(name: &str, value: &Value, given: Given) -> Fallible<bool> {
    let parameters = signature(TESTS, name).ok_or_else(|| format!("there is no test `{name}`"))?;
    fuel::read(value.bytes())?;
    let other = match given.bind(name, parameters)? {
        [Some(other), ..] => other,
        _ if parameters.is_empty() => Value::None,
        _ => return Err(format!("the test `{name}` needs an argument")),
    };
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(CompareOpKind::Eq),
        "!=" | "ne" => Some(CompareOpKind::Ne),
        ">" | "gt" | "greaterthan" => Some(CompareOpKind::Gt),
        ">=" | "ge" => Some(CompareOpKind::Gte),
        "<" | "lt" | "lessthan" => Some(CompareOpKind::Lt),
        "<=" | "le" => Some(CompareOpKind::Lte),
        "in" => Some(CompareOpKind::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        return compare(comparison, value, &other);
    }
    let remainder = |divisor: &Value| binary(BinOpKind::Rem, value, divisor);
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
        "odd" => remainder(&Value::Int(2))?.equals(&Value::Int(1))?,
        "even" => remainder(&Value::Int(2))?.equals(&Value::Int(0))?,
        "divisibleby" => remainder(&other)?.equals(&Value::Int(0))?,
        "sameas" => same(value, &other)?,
        "lower" | "upper" => {
            let method = if name == "lower" { "islower" } else { "isupper" };
            strings::is(&str_of(value)?, method)?
        }
        "filter" => value
            .as_str()
            .is_some_and(|name| signature(filters::FILTERS, name).is_some()),
        _ => value.as_str().is_some_and(|name| signature(TESTS, name).is_some()),
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
