//! Filters of lists and other sequences.

use super::{
    ast::Operator,
    eval::{Given, Interpreter},
    filters::{self, text_of, undefined, whole},
    methods,
    operators::binary,
    text::{bounded, str_of},
    value::{Fallible, Items, LARGEST_TEXT, Value, find},
};
use std::cmp::Ordering;

/// Largest argument of `batch` and `slice`.
const MOST_PARTS: usize = 1 << 16;

/// `first`, `last`, `length`, `list`, `items`, `reverse`, `batch` and `slice`.
pub fn apply(name: &str, value: Value, given: Given) -> Fallible<Value> {
    Ok(match name {
        "batch" | "slice" => {
            let [count, fill] = given.bind(name, ["linecount", "fill_with"])?;
            let count = usize::try_from(whole(count, 0, name)?).ok().filter(|count| *count > 0);
            let count = count
                .filter(|count| *count <= MOST_PARTS)
                .ok_or_else(|| format!("`{name}` needs a number from 1 to {MOST_PARTS}"))?;
            let fill = fill.filter(|fill| !matches!(fill, Value::None));
            let items = value.elements_of()?;
            Value::iter(if name == "batch" {
                batches(items, count, fill)
            } else {
                slices(items, count, fill)
            })
        }
        _ => {
            let [] = given.bind(name, [])?;
            match name {
                "length" | "count" => Value::int(value.length()?)?,
                "list" => Value::list(value.elements_of()?),
                "first" => {
                    let first = match &value {
                        Value::Iter(items) => items.borrow_mut().pop_front(),
                        other => other.elements_of()?.into_iter().next(),
                    };
                    first.unwrap_or_else(|| Value::undefined("no first item: the sequence is empty"))
                }
                "last" => match &value {
                    Value::Iter(_) => return Err("`last` of a generator is not possible; add `|list`".into()),
                    other => {
                        let last = other.elements_of()?.pop();
                        last.unwrap_or_else(|| Value::undefined("no last item: the sequence is empty"))
                    }
                },
                "items" => match &value {
                    Value::Undefined(_) => Value::iter(Vec::new()),
                    Value::Dict(_) => Value::iter(methods::call(&value, "items", Given::default())?.elements_of()?),
                    other => return Err(format!("`items` needs a dictionary, not `{}`", other.kind())),
                },
                _ => match &value {
                    Value::Str(text) => text.chars().rev().collect::<String>().into(),
                    other => {
                        let mut items = other.elements_of()?;
                        items.reverse();
                        match other {
                            // What has no `reversed` becomes a list first.
                            Value::Iter(_) => Value::list(items),
                            _ => Value::iter(items),
                        }
                    }
                },
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

/// The parts of `a.0.b`.
fn path(attribute: &Value) -> Fallible<Vec<Value>> {
    match attribute {
        Value::Str(text) => Ok(text
            .split('.')
            .map(|part| match part.parse::<i64>() {
                Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
                _ => part.into(),
            })
            .collect()),
        Value::Int(_) => Ok(vec![attribute.clone()]),
        other => Err(format!("an attribute is named by a text, not `{}`", other.kind())),
    }
}

/// What `a.0.b` names in an item.
fn follow(
    interpreter: &mut Interpreter<'_>,
    item: &Value,
    attribute: Option<&Value>,
    default: Option<&Value>,
) -> Fallible<Value> {
    let mut value = item.clone();
    if let Some(attribute) = attribute {
        for part in path(attribute)? {
            value = interpreter.item(&value, &part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, default) {
                value = default.clone();
            }
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
        let [attribute, default] = given.bind(name, ["attribute", "default"])?;
        let attribute = attribute.ok_or("`map` needs a filter's name or an attribute")?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in value.elements_of()? {
            found.push(follow(interpreter, &item, Some(&attribute), default.as_ref())?);
        }
        return Ok(Value::iter(found));
    }
    let mut positional = given.positional.into_iter();
    let attribute = if name.ends_with("attr") {
        Some(
            positional
                .next()
                .ok_or_else(|| format!("`{name}` needs an attribute's name"))?,
        )
    } else {
        None
    };
    let function = positional.next();
    let function = match &function {
        Some(Value::Str(function)) => Some(function.clone()),
        None if name != "map" => None,
        _ => return Err(format!("`{name}` needs the name of a filter or test")),
    };
    let rest: Vec<Value> = positional.collect();
    let named = std::mem::take(&mut given.named);
    for item in value.elements_of()? {
        let given = Given {
            positional: rest.clone(),
            named: named.clone(),
        };
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

/// Sorts pairs of keys and values, stably.
fn sorted(mut pairs: Vec<(Value, Value)>, reverse: bool) -> Fallible<Vec<(Value, Value)>> {
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
        None => Ok(pairs),
    }
}

/// Filters that compare or add up what an attribute names.
pub fn ordered(interpreter: &mut Interpreter<'_>, name: &str, value: Value, given: Given) -> Fallible<Value> {
    let flag = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let some = |value: Option<Value>| value.filter(|value| !matches!(value, Value::None));
    match name {
        "join" => {
            let [separator, attribute] = given.bind(name, ["d", "attribute"])?;
            let separator = separator.map_or(Ok(String::new()), |separator| str_of(&separator))?;
            let attribute = some(attribute);
            let mut joined = String::new();
            for (i, item) in value.elements_of()?.iter().enumerate() {
                if i > 0 {
                    joined.push_str(&separator);
                }
                joined.push_str(&str_of(&follow(interpreter, item, attribute.as_ref(), None)?)?);
                if joined.len() > LARGEST_TEXT {
                    break;
                }
            }
            bounded(joined).map(Value::from)
        }
        "sum" => {
            let [attribute, start] = given.bind(name, ["attribute", "start"])?;
            let attribute = some(attribute);
            let mut total = start.unwrap_or(Value::Int(0));
            if matches!(total, Value::Str(_)) {
                return Err("`sum` does not add texts; use `join`".into());
            }
            for item in value.elements_of()? {
                let item = follow(interpreter, &item, attribute.as_ref(), None)?;
                total = binary(Operator::Add, &total, &item)?;
            }
            Ok(total)
        }
        "dictsort" => {
            let [case_sensitive, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"])?;
            let case_sensitive = flag(case_sensitive);
            let by = by.map_or(Ok("key".into()), |by| text_of(&by, name))?;
            undefined(&value)?;
            let Value::Dict(pairs) = &value else {
                return Err(format!("`dictsort` needs a dictionary, not `{}`", value.kind()));
            };
            let mut keyed = Vec::new();
            for (key, value) in pairs.iter() {
                let by = match &*by {
                    "key" => key,
                    "value" => value,
                    _ => return Err("`dictsort` sorts by `key` or `value`".into()),
                };
                let pair = Value::tuple(vec![key.clone(), value.clone()]);
                keyed.push((folded(by.clone(), case_sensitive), pair));
            }
            let found = sorted(keyed, flag(reverse))?;
            Ok(Value::list(found.into_iter().map(|(_, pair)| pair).collect()))
        }
        "groupby" => {
            let [attribute, default, case_sensitive] = given.bind(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = attribute.ok_or("`groupby` needs an attribute")?;
            let (default, case_sensitive) = (some(default), flag(case_sensitive));
            let mut keyed = Vec::new();
            for item in value.elements_of()? {
                let key = follow(interpreter, &item, Some(&attribute), default.as_ref())?;
                keyed.push((folded(key, case_sensitive), item));
            }
            let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
            for (key, item) in sorted(keyed, false)? {
                match groups.last_mut() {
                    Some((last, items)) if last.equals(&key)? => items.push(item),
                    _ => groups.push((key, vec![item])),
                }
            }
            let mut found = Vec::new();
            for (key, items) in groups {
                let key = match items.first() {
                    Some(first) if !case_sensitive => follow(interpreter, first, Some(&attribute), default.as_ref())?,
                    _ => key,
                };
                found.push(Value::Group(Items::new(vec![key, Value::list(items)])));
            }
            Ok(Value::list(found))
        }
        "sort" => {
            let [reverse, case_sensitive, attribute] = given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let (reverse, case_sensitive) = (flag(reverse), flag(case_sensitive));
            let attributes: Vec<Option<Value>> = match some(attribute) {
                Some(Value::Str(names)) => names.split(',').map(|name| Some(Value::from(name))).collect(),
                other => vec![other],
            };
            let mut keyed = Vec::new();
            for item in value.elements_of()? {
                let mut keys = Vec::new();
                for attribute in &attributes {
                    let key = follow(interpreter, &item, attribute.as_ref(), None)?;
                    keys.push(folded(key, case_sensitive));
                }
                keyed.push((Value::list(keys), item));
            }
            let found = sorted(keyed, reverse)?;
            Ok(Value::list(found.into_iter().map(|(_, item)| item).collect()))
        }
        _ => {
            let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
            let (case_sensitive, attribute) = (flag(case_sensitive), some(attribute));
            let mut keyed: Vec<(Value, Value)> = Vec::new();
            for item in value.elements_of()? {
                let key = follow(interpreter, &item, attribute.as_ref(), None)?;
                let key = folded(key, case_sensitive);
                match (name, keyed.first_mut()) {
                    ("unique", _) => {
                        super::value::hashable(&key)?;
                        if find(&keyed, &key)?.is_none() {
                            keyed.push((key, item));
                        }
                    }
                    (_, None) => keyed.push((key, item)),
                    (_, Some(best)) => {
                        // The first of equal ones stays.
                        let better = if name == "min" {
                            Ordering::Less
                        } else {
                            Ordering::Greater
                        };
                        if key.compare(&best.0)? == Some(better) {
                            *best = (key, item);
                        }
                    }
                }
            }
            let mut items = keyed.into_iter().map(|(_, item)| item);
            if name == "unique" {
                return Ok(Value::iter(items.collect()));
            }
            let found = items.next();
            Ok(found.unwrap_or_else(|| Value::undefined("no aggregated item: the sequence is empty")))
        }
    }
}
