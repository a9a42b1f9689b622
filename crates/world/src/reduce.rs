//! The last node of a task's tree: what becomes of the mapped elements.

use crate::{draw::Draw, mistake::MistakeKind, value::Value};
use MistakeKind::{EdgeCase, WrongOrder, WrongReduction};

/// What a function returns where there is no element to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fallback {
    /// `0`
    Zero,
    /// `None`
    None,
}

impl Fallback {
    /// The Python literal.
    pub fn python(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::None => "None",
        }
    }
}

/// A function of all mapped elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reduce {
    /// How many there are; of numbers or characters, without a map.
    Count,
    /// The sum of numbers.
    Sum,
    /// The largest number.
    Max(Fallback),
    /// The smallest number.
    Min(Fallback),
    /// A list of them.
    List,
    /// A list of numbers, the last first.
    Reversed,
    /// A list of numbers in ascending order.
    Ascending,
    /// A list of numbers in descending order.
    Descending,
    /// One string of them.
    Join,
    /// One string, the last first.
    JoinReversed,
    /// One string of them in ascending order.
    JoinSorted,
}

impl Reduce {
    /// What can be made of numbers.
    pub const NUMBERS: [Self; 8] = [
        Self::Count,
        Self::Sum,
        Self::Max(Fallback::Zero),
        Self::Min(Fallback::Zero),
        Self::List,
        Self::Reversed,
        Self::Ascending,
        Self::Descending,
    ];
    /// What can be made of characters.
    pub const CHARACTERS: [Self; 5] = [
        Self::Count,
        Self::List,
        Self::Join,
        Self::JoinReversed,
        Self::JoinSorted,
    ];

    /// The reduction's name; those that differ in the default have the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Max(_) => "max",
            Self::Min(_) => "min",
            Self::List => "list",
            Self::Reversed => "reversed",
            Self::Ascending => "ascending",
            Self::Descending => "descending",
            Self::Join => "join",
            Self::JoinReversed => "join_reversed",
            Self::JoinSorted => "join_sorted",
        }
    }

    /// The reduction with a default drawn anew.
    pub fn with_constant(self, draw: &mut Draw) -> Self {
        match self {
            Self::Max(_) => Self::Max(draw.pick(&[Fallback::Zero, Fallback::None])),
            Self::Min(_) => Self::Min(draw.pick(&[Fallback::Zero, Fallback::None])),
            other => other,
        }
    }

    /// The result for the mapped elements.
    pub fn apply(self, mut values: Vec<Value>) -> Value {
        match self {
            Self::Count => Value::Int(values.len() as i64),
            Self::Sum => Value::Int(values.iter().map(number).sum()),
            Self::Max(default) => values.into_iter().max().unwrap_or(default.into()),
            Self::Min(default) => values.into_iter().min().unwrap_or(default.into()),
            Self::List => Value::List(values),
            Self::Reversed => {
                values.reverse();
                Value::List(values)
            }
            Self::Ascending => {
                values.sort();
                Value::List(values)
            }
            // Equal numbers cannot be told apart, so reversing gives what Python's stable sort gives.
            Self::Descending => {
                values.sort();
                values.reverse();
                Value::List(values)
            }
            Self::Join => joined(&values),
            Self::JoinReversed => {
                values.reverse();
                joined(&values)
            }
            Self::JoinSorted => {
                values.sort();
                joined(&values)
            }
        }
    }

    /// The result in words; `elements` names the mapped elements with their article.
    pub fn words(self, elements: &str, draw: &mut Draw) -> String {
        let bare = elements.strip_prefix("the ").unwrap_or(elements);
        let forms = match self {
            Self::Count => [format!("the number of {bare}"), format!("the count of {elements}")],
            Self::Sum => [format!("the sum of {elements}"), format!("the total of {elements}")],
            Self::Max(default) => [
                format!("the largest of {elements}, or {} if there is none", default.python()),
                format!("the maximum of {elements}, or {} if there is none", default.python()),
            ],
            Self::Min(default) => [
                format!("the smallest of {elements}, or {} if there is none", default.python()),
                format!("the minimum of {elements}, or {} if there is none", default.python()),
            ],
            Self::List => [format!("a list of {elements}"), format!("the list of {elements}")],
            Self::Reversed => [
                format!("a reversed list of {elements}"),
                format!("the reversed list of {elements}"),
            ],
            Self::Ascending => [
                format!("a sorted list of {elements}"),
                format!("an ascending list of {elements}"),
            ],
            Self::Descending => [
                format!("a descending list of {elements}"),
                format!("the descending list of {elements}"),
            ],
            Self::Join => [format!("a string of {elements}"), format!("the string of {elements}")],
            Self::JoinReversed => [
                format!("a reversed string of {elements}"),
                format!("the reversed string of {elements}"),
            ],
            Self::JoinSorted => [
                format!("a sorted string of {elements}"),
                format!("the sorted string of {elements}"),
            ],
        };
        let form = draw.below(forms.len());
        forms[form].clone()
    }

    /// Reductions that take this one's place in a natural mistake; symmetric, as the neighbours of a filter.
    pub fn neighbours(self) -> Vec<(Self, MistakeKind)> {
        match self {
            Self::Count => vec![(Self::Sum, WrongReduction)],
            Self::Sum => vec![
                (Self::Count, WrongReduction),
                (Self::Max(Fallback::Zero), WrongReduction),
                (Self::Min(Fallback::Zero), WrongReduction),
            ],
            Self::Max(Fallback::Zero) => vec![
                (Self::Min(Fallback::Zero), WrongReduction),
                (Self::Sum, WrongReduction),
                (Self::Max(Fallback::None), EdgeCase),
            ],
            Self::Max(Fallback::None) => vec![
                (Self::Min(Fallback::None), WrongReduction),
                (Self::Max(Fallback::Zero), EdgeCase),
            ],
            Self::Min(Fallback::Zero) => vec![
                (Self::Max(Fallback::Zero), WrongReduction),
                (Self::Sum, WrongReduction),
                (Self::Min(Fallback::None), EdgeCase),
            ],
            Self::Min(Fallback::None) => vec![
                (Self::Max(Fallback::None), WrongReduction),
                (Self::Min(Fallback::Zero), EdgeCase),
            ],
            Self::List => vec![
                (Self::Reversed, WrongOrder),
                (Self::Ascending, WrongOrder),
                (Self::Join, WrongReduction),
            ],
            Self::Reversed => vec![(Self::List, WrongOrder), (Self::Ascending, WrongOrder)],
            Self::Ascending => vec![
                (Self::List, WrongOrder),
                (Self::Reversed, WrongOrder),
                (Self::Descending, WrongOrder),
            ],
            Self::Descending => vec![(Self::Ascending, WrongOrder)],
            Self::Join => vec![
                (Self::List, WrongReduction),
                (Self::JoinReversed, WrongOrder),
                (Self::JoinSorted, WrongOrder),
            ],
            Self::JoinReversed => vec![(Self::Join, WrongOrder), (Self::JoinSorted, WrongOrder)],
            Self::JoinSorted => vec![(Self::Join, WrongOrder), (Self::JoinReversed, WrongOrder)],
        }
    }
}

impl From<Fallback> for Value {
    fn from(default: Fallback) -> Self {
        match default {
            Fallback::Zero => Self::Int(0),
            Fallback::None => Self::None,
        }
    }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        _ => 0,
    }
}

/// `"".join(values)`
fn joined(values: &[Value]) -> Value {
    let texts = values.iter().filter_map(|value| match value {
        Value::Str(text) => Some(text.as_str()),
        _ => None,
    });
    Value::Str(texts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_numbers(reduce: Reduce, numbers: &[i64]) -> String {
        reduce.apply(numbers.iter().map(|x| Value::Int(*x)).collect()).python()
    }

    fn of_texts(reduce: Reduce, texts: &[&str]) -> String {
        reduce
            .apply(texts.iter().map(|t| Value::Str((*t).into())).collect())
            .python()
    }

    #[test]
    fn numbers_are_reduced() {
        let numbers = [3, -1, 3, 2];
        assert_eq!(of_numbers(Reduce::Count, &numbers), "4");
        assert_eq!(of_numbers(Reduce::Sum, &numbers), "7");
        assert_eq!(of_numbers(Reduce::Max(Fallback::None), &numbers), "3");
        assert_eq!(of_numbers(Reduce::Min(Fallback::Zero), &numbers), "-1");
        assert_eq!(of_numbers(Reduce::Reversed, &numbers), "[2, 3, -1, 3]");
        assert_eq!(of_numbers(Reduce::Ascending, &numbers), "[-1, 2, 3, 3]");
        assert_eq!(of_numbers(Reduce::Descending, &numbers), "[3, 3, 2, -1]");
    }

    #[test]
    fn nothing_is_reduced_to_what_the_task_says() {
        assert_eq!(of_numbers(Reduce::Max(Fallback::None), &[]), "None");
        assert_eq!(of_numbers(Reduce::Min(Fallback::Zero), &[]), "0");
        assert_eq!(of_numbers(Reduce::Sum, &[]), "0");
    }

    #[test]
    fn texts_are_joined() {
        let texts = ["b", "A", "b", "1"];
        assert_eq!(of_texts(Reduce::Join, &texts), "\"bAb1\"");
        assert_eq!(of_texts(Reduce::JoinReversed, &texts), "\"1bAb\"");
        assert_eq!(of_texts(Reduce::JoinSorted, &texts), "\"1Abb\"");
    }
}
