//! The second node of a task's tree: what each kept element becomes.

use crate::{draw::Draw, mistake::MistakeKind, value::Value};
use MistakeKind::{ExtraMap, MissingMap, SwappedArguments, WrongConstant, WrongOperator};

/// A function of one element. The numbers' maps leave characters as they are and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// The element itself.
    Same,
    /// `x ** 2`
    Square,
    /// `x * 2`
    Double,
    /// `x // 2`, which rounds down, for negative numbers, too.
    Half,
    /// `x + k`, k from 2 to 9.
    Add(i64),
    /// `x - k`
    Subtract(i64),
    /// `k - x`
    SubtractFrom(i64),
    /// `c.upper()`
    Upper,
    /// `c.lower()`
    Lower,
    /// `c * k`, k from 2 to 4.
    Repeat(i64),
}

/// Bounds of the constants that are added and subtracted.
const TERM: (i64, i64) = (2, 9);
/// Bounds of the number of repetitions.
const TIMES: (i64, i64) = (2, 4);

impl Map {
    /// The maps of numbers, with constants that stand for all.
    pub const NUMBERS: [Self; 7] = [
        Self::Same,
        Self::Square,
        Self::Double,
        Self::Half,
        Self::Add(2),
        Self::Subtract(2),
        Self::SubtractFrom(2),
    ];
    /// The maps of characters.
    pub const CHARACTERS: [Self; 4] = [Self::Same, Self::Upper, Self::Lower, Self::Repeat(2)];

    /// The map's name; maps that differ in the constant have the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Square => "square",
            Self::Double => "double",
            Self::Half => "half",
            Self::Add(_) => "add",
            Self::Subtract(_) => "subtract",
            Self::SubtractFrom(_) => "subtract_from",
            Self::Upper => "upper",
            Self::Lower => "lower",
            Self::Repeat(_) => "repeat",
        }
    }

    /// The map with a constant drawn anew.
    pub fn with_constant(self, draw: &mut Draw) -> Self {
        match self {
            Self::Add(_) => Self::Add(draw.between(TERM.0, TERM.1)),
            Self::Subtract(_) => Self::Subtract(draw.between(TERM.0, TERM.1)),
            Self::SubtractFrom(_) => Self::SubtractFrom(draw.between(TERM.0, TERM.1)),
            Self::Repeat(_) => Self::Repeat(draw.between(TIMES.0, TIMES.1)),
            other => other,
        }
    }

    /// What an element becomes.
    pub fn apply(self, element: &Value) -> Value {
        match (self, element) {
            (Self::Square, Value::Int(x)) => Value::Int(x * x),
            (Self::Double, Value::Int(x)) => Value::Int(x * 2),
            (Self::Half, Value::Int(x)) => Value::Int(x.div_euclid(2)),
            (Self::Add(k), Value::Int(x)) => Value::Int(x + k),
            (Self::Subtract(k), Value::Int(x)) => Value::Int(x - k),
            (Self::SubtractFrom(k), Value::Int(x)) => Value::Int(k - x),
            (Self::Upper, Value::Str(text)) => Value::Str(text.to_ascii_uppercase()),
            (Self::Lower, Value::Str(text)) => Value::Str(text.to_ascii_lowercase()),
            (Self::Repeat(k), Value::Str(text)) => Value::Str((0..k).map(|_| text.as_str()).collect()),
            (_, other) => other.clone(),
        }
    }

    /// The expression of variable `x` in Python.
    pub fn python(self, x: &str) -> String {
        match self {
            Self::Same => x.to_owned(),
            Self::Square => format!("{x} ** 2"),
            Self::Double => format!("{x} * 2"),
            Self::Half => format!("{x} // 2"),
            Self::Add(k) => format!("{x} + {k}"),
            Self::Subtract(k) => format!("{x} - {k}"),
            Self::SubtractFrom(k) => format!("{k} - {x}"),
            Self::Upper => format!("{x}.upper()"),
            Self::Lower => format!("{x}.lower()"),
            Self::Repeat(k) => format!("{x} * {k}"),
        }
    }

    /// The results in words, with an article; `elements` names what the map is applied to.
    pub fn words(self, elements: &str, draw: &mut Draw) -> String {
        let after = |words: &str| format!("the {elements}, each {words}");
        let forms = match self {
            Self::Same => return format!("the {elements}"),
            Self::Square => [format!("the squares of the {elements}"), after("squared")],
            Self::Double => [format!("twice the {elements}"), after("doubled")],
            Self::Half => [after("halved and rounded down"), after("divided by 2 and rounded down")],
            Self::Add(k) => [after(&format!("plus {k}")), after(&format!("increased by {k}"))],
            Self::Subtract(k) => [after(&format!("minus {k}")), after(&format!("reduced by {k}"))],
            Self::SubtractFrom(k) => [
                after(&format!("subtracted from {k}")),
                after(&format!("taken from {k}")),
            ],
            Self::Upper => [after("in upper case"), after("turned into upper case")],
            Self::Lower => [after("in lower case"), after("turned into lower case")],
            Self::Repeat(k) => [
                after(&format!("repeated {k} times")),
                after(&format!("written {k} times")),
            ],
        };
        let form = draw.below(forms.len());
        forms[form].clone()
    }

    /// Maps that take this one's place in a natural mistake; symmetric, as the neighbours of a filter.
    pub fn neighbours(self, draw: &mut Draw) -> Vec<(Self, MistakeKind)> {
        let mut found = Vec::new();
        match self {
            // The caller leaves out what does not fit the elements.
            Self::Same => {
                let all = Self::NUMBERS.into_iter().chain(Self::CHARACTERS);
                let others = all.filter(|map| *map != Self::Same);
                found.extend(others.map(|map| (map.with_constant(draw), ExtraMap)));
                return found;
            }
            Self::Square => found.push((Self::Double, WrongOperator)),
            Self::Double => found.extend([(Self::Square, WrongOperator), (Self::Half, WrongOperator)]),
            Self::Half => found.push((Self::Double, WrongOperator)),
            Self::Add(k) => found.push((Self::Subtract(k), WrongOperator)),
            Self::Subtract(k) => {
                found.extend([(Self::Add(k), WrongOperator), (Self::SubtractFrom(k), SwappedArguments)])
            }
            Self::SubtractFrom(k) => found.push((Self::Subtract(k), SwappedArguments)),
            Self::Upper => found.push((Self::Lower, WrongOperator)),
            Self::Lower => found.push((Self::Upper, WrongOperator)),
            Self::Repeat(_) => {}
        }
        found.extend(self.other_constants().into_iter().map(|map| (map, WrongConstant)));
        found.push((Self::Same, MissingMap));
        found
    }

    fn other_constants(self) -> Vec<Self> {
        let near = |k: i64, (low, high): (i64, i64), with: fn(i64) -> Self| {
            let both = [k - 1, k + 1].into_iter();
            both.filter(|k| (low..=high).contains(k)).map(with).collect()
        };
        match self {
            Self::Add(k) => near(k, TERM, Self::Add),
            Self::Subtract(k) => near(k, TERM, Self::Subtract),
            Self::SubtractFrom(k) => near(k, TERM, Self::SubtractFrom),
            Self::Repeat(k) => near(k, TIMES, Self::Repeat),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_what_python_makes_of_them() {
        let of = |map: Map, x: i64| map.apply(&Value::Int(x));
        assert_eq!(of(Map::Half, -3), Value::Int(-2), "// rounds down");
        assert_eq!(of(Map::Half, 3), Value::Int(1));
        assert_eq!(of(Map::Square, -4), Value::Int(16));
        assert_eq!(of(Map::Subtract(5), 2), Value::Int(-3));
        assert_eq!(of(Map::SubtractFrom(5), 2), Value::Int(3));
    }

    #[test]
    fn characters_become_what_python_makes_of_them() {
        let of = |map: Map, c: &str| map.apply(&Value::Str(c.into()));
        assert_eq!(of(Map::Upper, "b"), Value::Str("B".into()));
        assert_eq!(of(Map::Lower, "7"), Value::Str("7".into()));
        assert_eq!(of(Map::Repeat(3), "b"), Value::Str("bbb".into()));
    }
}
