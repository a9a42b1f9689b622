//! Inputs for a task's tests: drawn, and chosen so that natural mistakes fail.

use crate::{
    draw::Draw,
    filter::Filter,
    tree::{InputKind, Tree},
    value::Value,
};

/// Fewest inputs of a task.
pub const INPUTS: usize = 8;
/// Inputs that the prompt shows; they are short and have a result that is not empty.
pub const SHOWN: usize = 2;
/// Draws in search of an input with which a mistake shows.
const TRIES: usize = 40;

/// Distinct inputs for the task of `tree`, at least [`INPUTS`], and the mistakes that give another result for
/// one of them; those that give the same for all inputs that were tried are left out.
pub fn inputs<T>(tree: &Tree, mistakes: Vec<(Tree, T)>, draw: &mut Draw) -> (Vec<Value>, Vec<(Tree, T)>) {
    let mut chosen: Vec<Value> = Vec::with_capacity(INPUTS + 4);
    let mut add = |input: Value| {
        if !chosen.contains(&input) {
            chosen.push(input);
        }
        chosen.len()
    };
    let mut shown = 0;
    for _ in 0..TRIES {
        let input = one(tree, draw.between(3, 4), draw);
        let result = tree.evaluate(&input);
        if !result.is_empty() && result != Value::Int(0) {
            shown = add(input);
        }
        if shown == SHOWN {
            break;
        }
    }
    while add(one(tree, draw.between(1, 7), draw)) + 1 < INPUTS {}
    add(one(tree, 0, draw));
    let mut found = Vec::with_capacity(mistakes.len());
    for (mistake, kind) in mistakes {
        let differs = |input: &Value| tree.evaluate(input) != mistake.evaluate(input);
        if !chosen.iter().any(differs) {
            let more = (0..TRIES).map(|_| one(tree, draw.between(2, 7), draw));
            match more.into_iter().find(differs) {
                Some(input) => chosen.push(input),
                None => continue,
            }
        }
        found.push((mistake, kind));
    }
    (chosen, found)
}

/// An input of `length` elements.
fn one(tree: &Tree, length: i64, draw: &mut Draw) -> Value {
    match tree.kind {
        InputKind::Numbers => Value::List((0..length).map(|_| Value::Int(number(tree.filter, draw))).collect()),
        InputKind::Characters => Value::Str((0..length).map(|_| character(tree.filter, draw)).collect()),
    }
}

/// A number from -9 to 12, often at the bound of the filter or kept by it.
fn number(filter: Filter, draw: &mut Draw) -> i64 {
    match filter {
        Filter::Greater(k) | Filter::AtLeast(k) | Filter::Less(k) | Filter::AtMost(k) if draw.chance(40) => {
            k + draw.between(-1, 1)
        }
        Filter::Multiple(k) if draw.chance(40) => k * draw.between(-1, 2),
        _ => draw.between(-9, 12),
    }
}

/// A letter, a digit or a space, often one that the filter looks for.
fn character(filter: Filter, draw: &mut Draw) -> char {
    let class = match filter {
        Filter::Vowel | Filter::NotVowel if draw.chance(30) => 0,
        Filter::Upper if draw.chance(30) => 50,
        Filter::Digit if draw.chance(30) => 75,
        _ => draw.below(100),
    };
    match class {
        0..25 => draw.pick(&['a', 'e', 'i', 'o', 'u']),
        25..50 => draw.pick(&['b', 'd', 'l', 'm', 'n', 'r', 's', 't']),
        50..75 => draw.pick(&['A', 'B', 'C', 'D', 'E', 'S', 'T']),
        75..92 => draw.pick(&['0', '1', '2', '3', '5', '7']),
        _ => ' ',
    }
}
