//! JSON: values are exchanged, left out, repeated, nested and turned into others.

use super::{
    NUMBERS, TEXTS,
    bytes::{self, word},
};
use crate::Random;
use serde_json::{Map, Value, json};

/// A document with some values changed; none where the input is no JSON.
pub fn document(input: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(input).ok()?;
    let other: Value = serde_json::from_slice(other).unwrap_or_default();
    for _ in 0..=random.below(3) {
        change(&mut value, &other, words, random);
    }
    let mut text = serde_json::to_vec(&value).ok()?;
    if random.once_in(4) {
        // What `Value` cannot hold: numbers beyond its own, and words that are none of JSON's.
        bytes::number(&mut text, random);
    }
    Some(text)
}

/// One line changed, left out, repeated, or taken from other lines.
pub fn lines(input: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Option<Vec<u8>> {
    let lines_of = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (mut lines, others) = (lines_of(input), lines_of(other));
    if lines.is_empty() {
        return None;
    }
    let at = random.below(lines.len());
    match random.below(10) {
        0 => {
            lines.remove(at);
        }
        1 => {
            let copy = lines.get(at)?.clone();
            lines.insert(random.below(lines.len() + 1), copy);
        }
        2 => lines.extend(random.pick(&others).cloned()),
        _ => {
            let donor = random.pick(&others).cloned().unwrap_or_default();
            let line = lines.get_mut(at)?;
            *line = document(line, &donor, words, random)?;
        }
    }
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    Some(text)
}

fn change(value: &mut Value, other: &Value, words: &[&str], random: &mut Random) {
    let count = count(value);
    let mut at = random.below(count);
    let donor = match random.below(3) {
        0 => nth(value, &mut random.below(count)).cloned(),
        1 => nth(other, &mut random.below(self::count(other))).cloned(),
        _ => None,
    };
    let Some(node) = nth_mut(value, &mut at) else { return };
    match random.below(10) {
        0 | 1 => *node = donor.unwrap_or_else(|| scalar(words, random)),
        2 => *node = scalar(words, random),
        3 => *node = wrapped(std::mem::take(node), words, random),
        _ => inside(node, donor, words, random),
    }
}

/// A change that keeps the type.
fn inside(node: &mut Value, donor: Option<Value>, words: &[&str], random: &mut Random) {
    match node {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = random.pick(&keys).cloned().unwrap_or_default();
            match random.below(5) {
                0 => {
                    map.shift_remove(&key);
                }
                1 => {
                    let value = map.shift_remove(&key).unwrap_or_default();
                    map.insert(word(words, random), value);
                }
                2 => {
                    let value = map.get(&key).cloned().unwrap_or_default();
                    map.insert(word(words, random), value);
                }
                3 => {
                    let value = scalar(words, random);
                    map.insert(key, donor.unwrap_or(value));
                }
                _ => {
                    let value = scalar(words, random);
                    map.insert(word(words, random), donor.unwrap_or(value));
                }
            }
        }
        Value::Array(items) => {
            let at = random.below(items.len() + 1);
            match random.below(5) {
                0 if at < items.len() => {
                    items.remove(at);
                }
                1 => {
                    let copy = items.get(at).cloned().unwrap_or_default();
                    let times = [1, 2, 20, 300][random.below(4)];
                    items.extend(std::iter::repeat_n(
                        copy,
                        times.min(2000usize.saturating_sub(items.len())),
                    ));
                }
                2 => items.clear(),
                3 => items.truncate(at),
                _ => items.insert(at, donor.unwrap_or_else(|| scalar(words, random))),
            }
        }
        Value::String(text) => {
            let with = word(words, random);
            let at = text
                .char_indices()
                .map(|(at, _)| at)
                .nth(random.below(text.len() + 1))
                .unwrap_or(text.len());
            match random.below(6) {
                0 => *text = with,
                1 => text.insert_str(at, &with),
                2 => text.truncate(at),
                3 => *text = text.repeat([2, 5, 100][random.below(3)].min((16 << 10) / text.len().max(1))),
                _ => {
                    let changed = bytes::changed(std::mem::take(text).into_bytes(), with.as_bytes(), words, random);
                    *text = String::from_utf8_lossy(&changed).into_owned();
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => *node = scalar(words, random),
    }
}

/// A value of any type, at the end of its range.
fn scalar(words: &[&str], random: &mut Random) -> Value {
    let number = |random: &mut Random| {
        let text = random.pick(&NUMBERS).copied().unwrap_or("0");
        serde_json::from_str(text).unwrap_or_else(|_| json!(text))
    };
    match random.below(10) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2..=4 => number(random),
        5 => json!([]),
        6 => json!({}),
        7 => json!(random.pick(&TEXTS).copied().unwrap_or_default()),
        _ => json!(word(words, random)),
    }
}

/// The value as an item, a field, a text, or many levels deep.
fn wrapped(value: Value, words: &[&str], random: &mut Random) -> Value {
    match random.below(5) {
        0 => json!([value]),
        1 => {
            let mut map = Map::new();
            map.insert(word(words, random), value);
            Value::Object(map)
        }
        2 => json!(value.to_string()),
        3 => json!([value.clone(), value]),
        _ => {
            let levels = [5, 60, 110, 126][random.below(4)];
            (0..levels).fold(value, |value, _| json!([value]))
        }
    }
}

/// Values in a document, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, at)),
        Value::Object(map) => map.values().find_map(|item| nth(item, at)),
        _ => None,
    }
}

fn nth_mut<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, at)),
        Value::Object(map) => map.values_mut().find_map(|item| nth_mut(item, at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_number() {
        let value = json!({"a": [1, {"b": "x"}], "c": null});
        assert_eq!(count(&value), 6);
        let found: Vec<Value> = (0..6).map(|n| nth(&value, &mut n.clone()).unwrap().clone()).collect();
        assert_eq!(
            found[1..],
            [
                json!([1, {"b": "x"}]),
                json!(1),
                json!({"b": "x"}),
                json!("x"),
                json!(null)
            ]
        );
        assert_eq!(nth(&value, &mut 6), None);
    }

    #[test]
    fn lines_are_changed_one_at_a_time() {
        let mut random = Random::new(4);
        let input = b"{\"a\": 1}\n{\"b\": 2}\n";
        let kept = (0..300).filter(|_| {
            let changed = lines(input, input, &["k"], &mut random).unwrap();
            changed
                .split(|b| *b == b'\n')
                .any(|line| line == br#"{"a": 1}"# || line == br#"{"b": 2}"#)
        });
        assert!(kept.count() > 250);
    }
}
