//! Functions that every template has: `range`, `dict`, `namespace`, `raise_exception`, `strftime_now`.

use super::{
    arguments::{Given, needed},
    interpreter::Interpreter,
    text::str_of,
    value::{DEEPEST_VALUE, Depth, Fallible, Name, Value, insert, range_length},
};
use std::{cell::RefCell, rc::Rc};

/// Most elements of a range, as in Jinja's sandbox.
const LONGEST_RANGE: usize = 100_000;

/// A global name.
pub fn global(name: &str) -> Option<Value> {
    let mut known = "range dict namespace raise_exception strftime_now lipsum cycler joiner".split(' ');
    known.find(|known| *known == name).map(Value::Function)
}

/// Calls it.
pub fn call(interpreter: &Interpreter<'_>, name: &str, given: Given) -> Fallible<Value> {
    match name {
        "range" => range(given),
        "dict" => dictionary(given),
        "dict.fromkeys" => {
            let [keys, value, ..] = given.bind(name, "/iterable,/value")?;
            let value = value.unwrap_or(Value::None);
            let mut pairs = Vec::new();
            for key in keys.ok_or("`dict.fromkeys` needs keys")?.elements_of()? {
                insert(&mut pairs, key, value.clone())?;
            }
            Ok(Value::dict(pairs))
        }
        "namespace" => {
            let Value::Dict(pairs) = dictionary(given)? else {
                return Err("`namespace` takes names and values".into());
            };
            let mut fields = Vec::new();
            for (key, value) in pairs.iter() {
                let name = key.as_str().ok_or("a namespace's names must be texts")?;
                set_field(&mut fields, name, value.clone())?;
            }
            Ok(Value::Namespace(Rc::new(RefCell::new(fields))))
        }
        "raise_exception" => {
            let [message, ..] = given.bind(name, "message")?;
            Err(str_of(&message.unwrap_or(Value::None))?)
        }
        "strftime_now" => {
            let [format, ..] = given.bind(name, "format")?;
            interpreter.clock.format(needed(&format, name)?).map(Value::from)
        }
        other => Err(format!("the function `{other}` is not supported")),
    }
}

/// Sets a namespace's attribute.
pub fn set_field(fields: &mut Vec<(Name, Value)>, name: &str, value: Value) -> Fallible<()> {
    if name.starts_with('_') {
        return Err(format!(
            "a namespace cannot hold `{name}`: names must not begin with `_`"
        ));
    }
    if value.depth() >= DEEPEST_VALUE - 50 {
        return Err(format!("a namespace cannot hold a `{}` this deep", value.kind()));
    }
    match fields.iter_mut().find(|(there, _)| &**there == name) {
        Some((_, old)) => *old = value,
        None => fields.push((name.into(), value)),
    }
    Ok(())
}

fn range(given: Given) -> Fallible<Value> {
    if !given.named.is_empty() {
        return Err("`range` has no named parameters".into());
    }
    let numbers: Option<Vec<i64>> = given.positional.iter().map(Value::as_int).collect();
    let range = match numbers.as_deref() {
        Some([stop]) => Value::Range(0, *stop, 1),
        Some([start, stop]) => Value::Range(*start, *stop, 1),
        Some([_, _, 0]) => return Err("the step of a range is 0".into()),
        Some([start, stop, step]) => Value::Range(*start, *stop, *step),
        _ => return Err("`range` takes one to three whole numbers".into()),
    };
    if range_length(&range) > LONGEST_RANGE {
        return Err(format!("a range has more than {LONGEST_RANGE} elements"));
    }
    Ok(range)
}

fn dictionary(given: Given) -> Fallible<Value> {
    let mut pairs = Vec::new();
    match given.positional.as_slice() {
        [] => {}
        [Value::Dict(from)] => pairs = from.to_vec(),
        [from] => {
            for item in from.elements_of()? {
                let pair: Result<[Value; 2], _> = item.elements_of()?.try_into();
                let [key, value] = pair.map_err(|_| "`dict` needs pairs".to_owned())?;
                insert(&mut pairs, key, value)?;
            }
        }
        _ => return Err("`dict` takes one positional argument".into()),
    }
    for (name, value) in given.named {
        insert(&mut pairs, Value::Str(name), value)?;
    }
    Ok(Value::dict(pairs))
}
