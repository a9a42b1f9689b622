//! The arguments of a call, and the parameters that they belong to.

use super::value::{Fallible, Name, Value};

/// Arguments in the order of the parameters; None where one is not given.
pub type Bound = [Option<Value>; 4];

/// The arguments of a call.
#[derive(Clone, Default)]
pub struct Given {
    pub positional: Vec<Value>,
    pub named: Vec<(Name, Value)>,
}

impl Given {
    /// The arguments by the names of the parameters, which commas separate; `/` is before the name of a
    /// parameter that is given by its place alone.
    pub fn bind(self, what: &str, parameters: &str) -> Fallible<Bound> {
        let mut bound = Bound::default();
        let parameters: Vec<&str> = parameters.split(',').filter(|name| !name.is_empty()).collect();
        if self.positional.len() > parameters.len() {
            return Err(format!("`{what}` takes at most {} arguments", parameters.len()));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let at = parameters.iter().position(|parameter| *parameter == &*name);
            match at.and_then(|at| bound.get_mut(at)) {
                Some(slot) if slot.is_none() => *slot = Some(value),
                Some(_) => return Err(format!("`{what}` got two values for `{name}`")),
                None => return Err(format!("`{what}` has no parameter `{name}`")),
            }
        }
        Ok(bound)
    }
}

/// The parameters in a table such as `upper() trim(chars)`.
pub fn signature(table: &'static str, name: &str) -> Option<&'static str> {
    table.split_whitespace().find_map(|entry| {
        let (there, parameters) = entry.strip_suffix(')')?.split_once('(')?;
        (there == name).then_some(parameters)
    })
}

/// A whole number, or `default` where there is none.
pub fn whole(value: &Option<Value>, default: i64, what: &str) -> Fallible<i64> {
    let number = value.as_ref().map_or(Some(default), Value::as_int);
    number.ok_or_else(|| format!("`{what}` needs a whole number"))
}

/// A text that must be given.
pub fn needed<'v>(value: &'v Option<Value>, what: &str) -> Fallible<&'v str> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(Value::Undefined(why)) => Err(why.to_string()),
        Some(other) => Err(format!("`{what}` needs a text, not `{}`", other.kind())),
        None => Err(format!("`{what}` lacks an argument")),
    }
}

pub fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::truth)
}

/// An argument where `None` stands for nothing.
pub fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}
