//! Filters of lists and other sequences.

use super::{
    arguments::{Bound, Given, flag, needed, some, whole},
    filters,
    interpreter::Interpreter,
    methods,
    operators::binary,
    text::{bounded, str_of},
    value::{Fallible, Items, LARGEST_TEXT, Value, find},
};
use minijinja::machinery::ast::BinOpKind;
use std::cmp::Ordering;

/// Largest argument of `batch` and `slice`.
const MOST_PARTS: usize = 1 << 16;

/// `first`, `last`, `length`, `list`, `items`, `reverse`, `batch` and `slice`.
pub fn apply(name: &str, value: Value, [count, fill, ..]: Bound) -> Fallible<Value> {
    let absent = || Value::undefined(format!("no {name} item: the sequence is empty"));
    Ok(match (name, &value) {
        ("batch" | "slice", _) => {
            let count = usize::try_from(whole(&count, 0, name)?).ok();
            let count = count.filter(|count| (1..=MOST_PARTS).contains(count));
            let count = count.ok_or_else(|| format!("`{name}` needs a number from 1 to {MOST_PARTS}"))?;
            let parts = if name == "batch" { batches } else { slices };
            Value::iter(parts(value.elements_of()?, count, some(fill)))
        }
        ("length" | "count", _) => Value::int(value.length()?)?,
        ("list", _) => Value::list(value.elements_of()?),
        ("first", Value::Iter(items)) => items.borrow_mut().pop_front().unwrap_or_else(absent),
        ("last", Value::Iter(_)) => return Err("`last` of a generator is not possible; add `|list`".into()),
        ("first", _) if value.elements().is_some() => value
            .elements()
            .and_then(<[Value]>::first)
            .cloned()
            .unwrap_or_else(absent),
        ("first", _) => value.elements_of()?.into_iter().next().unwrap_or_else(absent),
        ("last", _) if value.elements().is_some() => value
            .elements()
            .and_then(<[Value]>::last)
            .cloned()
            .unwrap_or_else(absent),
        ("last", _) => value.elements_of()?.pop().unwrap_or_else(absent),
        ("items", Value::Undefined(_)) => Value::iter(Vec::new()),
        ("items", Value::Dict(_)) => Value::iter(methods::call(&value, name, Given::default())?.elements_of()?),
        ("items", other) => return Err(format!("`items` needs a dictionary, not `{}`", other.kind())),
        (_, Value::Str(text)) => text.chars().rev().collect::<String>().into(),
        _ => {
            let items = value.elements_of()?.into_iter().rev().collect();
            // What has no `reversed` becomes a list first.
            if matches!(value, Value::Iter(_)) {
                Value::list(items)
            } else {
                Value::iter(items)
            }
        }
    })
}

fn batches(items: Vec<Value>, count: usize, fill: Option<Value>) -> Vec<Value> {
    let mut found: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill, found.last_mut()) {
        while last.len() < count {
            last.push(fill.clone());
        }
    }
    found.into_iter().map(Value::list).collect()
}

fn slices(items: Vec<Value>, count: usize, fill: Option<Value>) -> Vec<Value> {
    let (each, extra) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    (0..count)
        .map(|i| {
            let mut part: Vec<Value> = rest.by_ref().take(each + usize::from(i < extra)).collect();
            if i >= extra {
                part.extend(fill.clone());
            }
            Value::list(part)
        })
        .collect()
}

/// What `a.0.b` names in an item.
fn follow(
    interpreter: &mut Interpreter<'_>,
    item: &Value,
    attribute: Option<&Value>,
    default: Option<&Value>,
) -> Fallible<Value> {
    let parts: Vec<Value> = match attribute {
        None => Vec::new(),
        Some(Value::Int(index)) => vec![Value::Int(*index)],
        Some(Value::Str(path)) => {
            let part = |part: &str| match part.parse() {
                Ok(index) if !part.starts_with(['+', '-']) => Value::Int(index),
                _ => part.into(),
            };
            path.split('.').map(part).collect()
        }
        Some(other) => return Err(format!("an attribute is named by a text, not `{}`", other.kind())),
    };
    let mut value = item.clone();
    for part in parts {
        value = interpreter.item(&value, &part)?;
        if let (Value::Undefined(_), Some(default)) = (&value, default) {
            value = default.clone();
        }
    }
    Ok(value)
}

/// `map`, `select`, `reject`, `selectattr` and `rejectattr`.
pub fn chosen(interpreter: &mut Interpreter<'_>, name: &str, value: Value, mut given: Given) -> Fallible<Value> {
    if !value.truth() {
        return Ok(Value::iter(Vec::new()));
    }
    let mut found = Vec::new();
    if name == "map" && given.positional.is_empty() {
        let [attribute, default, ..] = given.bind(name, "attribute,default")?;
        let attribute = attribute.ok_or("`map` needs a filter's name or an attribute")?;
        let default = some(default);
        for item in value.elements_of()? {
            found.push(follow(interpreter, &item, Some(&attribute), default.as_ref())?);
        }
        return Ok(Value::iter(found));
    }
    let mut positional = std::mem::take(&mut given.positional).into_iter();
    let attribute = name.ends_with("attr").then(|| positional.next()).flatten();
    if attribute.is_none() && name.ends_with("attr") {
        return Err(format!("`{name}` needs an attribute's name"));
    }
    let function = positional.next();
    let function = match &function {
        Some(Value::Str(function)) => Some(function.clone()),
        None if name != "map" => None,
        _ => return Err(format!("`{name}` needs the name of a filter or test")),
    };
    given.positional = positional.collect();
    for item in value.elements_of()? {
        let given = given.clone();
        let tested = follow(interpreter, &item, attribute.as_ref(), None)?;
        if name == "map" {
            let function = function.as_deref().unwrap_or_default();
            found.push(filters::apply(interpreter, function, tested, given)?);
            continue;
        }
        let holds = match &function {
            Some(function) => super::predicates::test(function, &tested, given)?,
            None => tested.truth(),
        };
        if holds != name.starts_with("reject") {
            found.push(item);
        }
    }
    Ok(Value::iter(found))
}

/// A text in lower case, everything else as it is.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match &value {
        Value::Str(text) if !case_sensitive => text.to_lowercase().into(),
        _ => value,
    }
}

/// The values in the order of their keys, stably.
fn sorted(mut pairs: Vec<(Value, Value)>, reverse: bool) -> Fallible<Value> {
    let mut failure = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect())),
    }
}

/// Filters that compare or add up what an attribute names.
pub fn ordered(interpreter: &mut Interpreter<'_>, name: &str, value: Value, [a, b, c, _]: Bound) -> Fallible<Value> {
    let mut keyed: Vec<(Value, Value)> = Vec::new();
    match name {
        "join" => {
            let separator = a.as_ref().map_or(Ok(String::new()), str_of)?;
            let attribute = some(b);
            let mut joined = String::new();
            for (i, item) in value.elements_of()?.iter().enumerate() {
                joined.push_str(if i > 0 { &separator } else { "" });
                joined.push_str(&str_of(&follow(interpreter, item, attribute.as_ref(), None)?)?);
                if joined.len() > LARGEST_TEXT {
                    break;
                }
            }
            bounded(joined).map(Value::from)
        }
        "sum" => {
            let attribute = some(a);
            let mut total = b.unwrap_or(Value::Int(0));
            if matches!(total, Value::Str(_)) {
                return Err("`sum` does not add texts; use `join`".into());
            }
            for item in value.elements_of()? {
                let item = follow(interpreter, &item, attribute.as_ref(), None)?;
                total = binary(BinOpKind::Add, &total, &item)?;
            }
            Ok(total)
        }
        "dictsort" => {
            let by_key = match &b {
                None => true,
                by => match needed(by, name)? {
                    "key" => true,
                    "value" => false,
                    _ => return Err("`dictsort` sorts by `key` or `value`".into()),
                },
            };
            let Value::Dict(pairs) = &value else {
                return Err(format!("`dictsort` needs a dictionary, not `{}`", value.kind()));
            };
            for (key, value) in pairs.iter() {
                let by = if by_key { key } else { value };
                let pair = Value::tuple(vec![key.clone(), value.clone()]);
                keyed.push((folded(by.clone(), flag(&a)), pair));
            }
            sorted(keyed, flag(&c))
        }
        "groupby" => {
            let attribute = Some(a.ok_or("`groupby` needs an attribute")?);
            let (default, case_sensitive) = (some(b), flag(&c));
            for item in value.elements_of()? {
                let key = follow(interpreter, &item, attribute.as_ref(), default.as_ref())?;
                let pair = Value::tuple(vec![key.clone(), item]);
                keyed.push((folded(key, case_sensitive), pair));
            }
            let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
            for pair in sorted(keyed, false)?.elements_of()? {
                let [key, item] = <[Value; 2]>::try_from(pair.elements_of()?).map_err(|_| "pairs are sorted")?;
                match groups.last_mut() {
                    Some((last, items))
                        if folded(last.clone(), case_sensitive).equals(&folded(key.clone(), case_sensitive))? =>
                    {
                        items.push(item);
                    }
                    _ => groups.push((key, vec![item])),
                }
            }
            let groups = groups.into_iter();
            let groups = groups.map(|(key, items)| Value::Group(Items::new(vec![key, Value::list(items)])));
            Ok(Value::list(groups.collect()))
        }
        "sort" => {
            let attributes: Vec<Option<Value>> = match some(c) {
                Some(Value::Str(names)) => names.split(',').map(|name| Some(Value::from(name))).collect(),
                other => vec![other],
            };
            for item in value.elements_of()? {
                let mut keys = Vec::new();
                for attribute in &attributes {
                    let key = follow(interpreter, &item, attribute.as_ref(), None)?;
                    keys.push(folded(key, flag(&b)));
                }
                keyed.push((Value::list(keys), item));
            }
            sorted(keyed, flag(&a))
        }
        _ => {
            let attribute = some(b);
            for item in value.elements_of()? {
                let key = folded(follow(interpreter, &item, attribute.as_ref(), None)?, flag(&a));
                match (name, keyed.first()) {
                    ("unique", _) => {
                        super::value::hashable(&key)?;
                        if find(&keyed, &key)?.is_none() {
                            keyed.push((key, item));
                        }
                    }
                    (_, None) => keyed.push((key, item)),
                    (_, Some((best, _))) => {
                        // The first of equal ones stays.
                        let better = if name == "min" {
                            Ordering::Less
                        } else {
                            Ordering::Greater
                        };
                        if key.compare(best)? == Some(better) {
                            keyed = vec![(key, item)];
                        }
                    }
                }
            }
            let mut items = keyed.into_iter().map(|(_, item)| item);
            Ok(match name {
                "unique" => Value::iter(items.collect()),
                _ => items
                    .next()
                    .unwrap_or_else(|| Value::undefined("no aggregated item: the sequence is empty")),
            })
        }
    }
}
