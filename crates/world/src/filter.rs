//! The first node of a task's tree: which elements count.

use crate::{draw::Draw, mistake::MistakeKind, value::Value};
use MistakeKind::{ExtraFilter, InvertedCondition, MissingFilter, OffByOne, WrongConstant, WrongOperator};

/// A condition on one element. The numbers' filters keep no character and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// Every element.
    All,
    /// `x % 2 == 0`
    Even,
    /// `x % 2 == 1`, which Python has for negative odd numbers, too.
    Odd,
    /// `x > k`, k from 0 to 9.
    Greater(i64),
    /// `x >= k`
    AtLeast(i64),
    /// `x < k`
    Less(i64),
    /// `x <= k`
    AtMost(i64),
    /// `x % k == 0`, k from 3 to 9.
    Multiple(i64),
    /// `c in "aeiou"`
    Vowel,
    /// `c not in "aeiou"`
    NotVowel,
    /// `c.isdigit()`
    Digit,
    /// `c.isalpha()`
    Letter,
    /// `c.isupper()`
    Upper,
    /// `c.islower()`
    Lower,
}

/// Bounds of the comparisons' constant.
const BOUND: (i64, i64) = (0, 9);
/// Bounds of the divisors.
const DIVISOR: (i64, i64) = (3, 9);
const VOWELS: &str = "aeiou";

impl Filter {
    /// The filters of numbers, with constants that stand for all.
    pub const NUMBERS: [Self; 8] = [
        Self::All,
        Self::Even,
        Self::Odd,
        Self::Greater(0),
        Self::AtLeast(0),
        Self::Less(0),
        Self::AtMost(0),
        Self::Multiple(3),
    ];
    /// The filters of characters.
    pub const CHARACTERS: [Self; 7] = [
        Self::All,
        Self::Vowel,
        Self::NotVowel,
        Self::Digit,
        Self::Letter,
        Self::Upper,
        Self::Lower,
    ];

    /// The filter's name; filters that differ in the constant have the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Even => "even",
            Self::Odd => "odd",
            Self::Greater(_) => "greater",
            Self::AtLeast(_) => "at_least",
            Self::Less(_) => "less",
            Self::AtMost(_) => "at_most",
            Self::Multiple(_) => "multiple",
            Self::Vowel => "vowel",
            Self::NotVowel => "not_vowel",
            Self::Digit => "digit",
            Self::Letter => "letter",
            Self::Upper => "upper",
            Self::Lower => "lower",
        }
    }

    /// The filter with a constant drawn anew.
    pub fn with_constant(self, draw: &mut Draw) -> Self {
        match self {
            Self::Greater(_) => Self::Greater(draw.between(BOUND.0, BOUND.1)),
            Self::AtLeast(_) => Self::AtLeast(draw.between(BOUND.0, BOUND.1)),
            Self::Less(_) => Self::Less(draw.between(BOUND.0, BOUND.1)),
            Self::AtMost(_) => Self::AtMost(draw.between(BOUND.0, BOUND.1)),
            Self::Multiple(_) => Self::Multiple(draw.between(DIVISOR.0, DIVISOR.1)),
            other => other,
        }
    }

    /// Whether the filter keeps an element. `%` has the divisor's sign, as in Python.
    pub fn keeps(self, element: &Value) -> bool {
        match (self, element) {
            (Self::All, _) => true,
            (Self::Even, Value::Int(x)) => x.rem_euclid(2) == 0,
            (Self::Odd, Value::Int(x)) => x.rem_euclid(2) == 1,
            (Self::Greater(k), Value::Int(x)) => *x > k,
            (Self::AtLeast(k), Value::Int(x)) => *x >= k,
            (Self::Less(k), Value::Int(x)) => *x < k,
            (Self::AtMost(k), Value::Int(x)) => *x <= k,
            (Self::Multiple(k), Value::Int(x)) => x.rem_euclid(k) == 0,
            (_, Value::Str(text)) => text.chars().all(|c| self.keeps_character(c)),
            _ => false,
        }
    }

    fn keeps_character(self, c: char) -> bool {
        match self {
            Self::Vowel => VOWELS.contains(c),
            Self::NotVowel => !VOWELS.contains(c),
            Self::Digit => c.is_ascii_digit(),
            Self::Letter => c.is_ascii_alphabetic(),
            Self::Upper => c.is_ascii_uppercase(),
            Self::Lower => c.is_ascii_lowercase(),
            _ => false,
        }
    }

    /// The condition on variable `x` in Python; none where every element counts.
    pub fn python(self, x: &str) -> Option<String> {
        Some(match self {
            Self::All => return None,
            Self::Even => format!("{x} % 2 == 0"),
            Self::Odd => format!("{x} % 2 == 1"),
            Self::Greater(k) => format!("{x} > {k}"),
            Self::AtLeast(k) => format!("{x} >= {k}"),
            Self::Less(k) => format!("{x} < {k}"),
            Self::AtMost(k) => format!("{x} <= {k}"),
            Self::Multiple(k) => format!("{x} % {k} == 0"),
            Self::Vowel => format!("{x} in \"{VOWELS}\""),
            Self::NotVowel => format!("{x} not in \"{VOWELS}\""),
            Self::Digit => format!("{x}.isdigit()"),
            Self::Letter => format!("{x}.isalpha()"),
            Self::Upper => format!("{x}.isupper()"),
            Self::Lower => format!("{x}.islower()"),
        })
    }

    /// The kept elements in words, a plural without article; `everything` names all of them.
    pub fn words(self, everything: &str, draw: &mut Draw) -> String {
        let forms = match self {
            Self::All => return everything.to_owned(),
            Self::Even => ["even numbers", "even values"].map(str::to_owned),
            Self::Odd => ["odd numbers", "odd values"].map(str::to_owned),
            Self::Greater(0) => ["positive numbers", "numbers greater than 0"].map(str::to_owned),
            Self::Greater(k) => [format!("numbers greater than {k}"), format!("numbers above {k}")],
            Self::AtLeast(k) => [format!("numbers of at least {k}"), format!("numbers from {k} upwards")],
            Self::Less(0) => ["negative numbers", "numbers less than 0"].map(str::to_owned),
            Self::Less(k) => [format!("numbers less than {k}"), format!("numbers below {k}")],
            Self::AtMost(k) => [format!("numbers of at most {k}"), format!("numbers up to {k}")],
            Self::Multiple(k) => [format!("multiples of {k}"), format!("numbers divisible by {k}")],
            Self::Vowel => ["lowercase vowels", "vowels in lower case"].map(str::to_owned),
            Self::NotVowel => [
                "characters other than lowercase vowels",
                "characters that are not lowercase vowels",
            ]
            .map(str::to_owned),
            Self::Digit => ["digits", "decimal digits"].map(str::to_owned),
            Self::Letter => ["letters", "letters of the alphabet"].map(str::to_owned),
            Self::Upper => ["uppercase letters", "capital letters"].map(str::to_owned),
            Self::Lower => ["lowercase letters", "small letters"].map(str::to_owned),
        };
        let form = draw.below(forms.len());
        forms[form].clone()
    }

    /// Filters that take this one's place in a natural mistake, and the mistake that this is. The relation is
    /// symmetric: a filter is among the neighbours of each of its neighbours.
    pub fn neighbours(self, draw: &mut Draw) -> Vec<(Self, MistakeKind)> {
        let mut found = Vec::new();
        match self {
            // The caller leaves out what does not fit the elements.
            Self::All => {
                let all = Self::NUMBERS.into_iter().chain(Self::CHARACTERS);
                let others = all.filter(|filter| *filter != Self::All);
                found.extend(others.map(|filter| (filter.with_constant(draw), ExtraFilter)));
                return found;
            }
            Self::Even => found.push((Self::Odd, InvertedCondition)),
            Self::Odd => found.push((Self::Even, InvertedCondition)),
            Self::Greater(k) => found.extend([(Self::AtLeast(k), OffByOne), (Self::Less(k), WrongOperator)]),
            Self::AtLeast(k) => found.extend([(Self::Greater(k), OffByOne), (Self::AtMost(k), WrongOperator)]),
            Self::Less(k) => found.extend([(Self::AtMost(k), OffByOne), (Self::Greater(k), WrongOperator)]),
            Self::AtMost(k) => found.extend([(Self::Less(k), OffByOne), (Self::AtLeast(k), WrongOperator)]),
            Self::Multiple(_) => {}
            Self::Vowel => found.push((Self::NotVowel, InvertedCondition)),
            Self::NotVowel => found.push((Self::Vowel, InvertedCondition)),
            Self::Digit => found.push((Self::Letter, WrongOperator)),
            Self::Letter => found.push((Self::Digit, WrongOperator)),
            Self::Upper => found.push((Self::Lower, WrongOperator)),
            Self::Lower => found.push((Self::Upper, WrongOperator)),
        }
        found.extend(self.other_constants().into_iter().map(|filter| (filter, WrongConstant)));
        found.push((Self::All, MissingFilter));
        found
    }

    /// The same filter with the constants next to its own.
    fn other_constants(self) -> Vec<Self> {
        let near = |k: i64, (low, high): (i64, i64), with: fn(i64) -> Self| {
            let both = [k - 1, k + 1].into_iter();
            both.filter(|k| (low..=high).contains(k)).map(with).collect()
        };
        match self {
            Self::Greater(k) => near(k, BOUND, Self::Greater),
            Self::AtLeast(k) => near(k, BOUND, Self::AtLeast),
            Self::Less(k) => near(k, BOUND, Self::Less),
            Self::AtMost(k) => near(k, BOUND, Self::AtMost),
            Self::Multiple(k) => near(k, DIVISOR, Self::Multiple),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(filter: Filter, numbers: &[i64]) -> Vec<i64> {
        let kept = numbers.iter().filter(|x| filter.keeps(&Value::Int(**x)));
        kept.copied().collect()
    }

    fn kept_of(filter: Filter, text: &str) -> String {
        text.chars()
            .filter(|c| filter.keeps(&Value::Str(c.to_string())))
            .collect()
    }

    #[test]
    fn remainders_of_negative_numbers_are_pythons() {
        // [x for x in range(-7, 0) if x % 2 == 1] == [-7, -5, -3, -1]
        let numbers = [-7, -6, -5, -4, -3, -2, -1];
        assert_eq!(kept(Filter::Odd, &numbers), [-7, -5, -3, -1]);
        assert_eq!(kept(Filter::Even, &numbers), [-6, -4, -2]);
        assert_eq!(kept(Filter::Multiple(3), &numbers), [-6, -3]);
    }

    #[test]
    fn comparisons_keep_or_drop_their_bound() {
        let numbers = [2, 3, 4];
        assert_eq!(kept(Filter::Greater(3), &numbers), [4]);
        assert_eq!(kept(Filter::AtLeast(3), &numbers), [3, 4]);
        assert_eq!(kept(Filter::Less(3), &numbers), [2]);
        assert_eq!(kept(Filter::AtMost(3), &numbers), [2, 3]);
    }

    #[test]
    fn characters_are_classed_as_pythons_methods_do() {
        let text = "aB 1eZ";
        assert_eq!(kept_of(Filter::Vowel, text), "ae");
        assert_eq!(kept_of(Filter::NotVowel, text), "B 1Z");
        assert_eq!(kept_of(Filter::Digit, text), "1");
        assert_eq!(kept_of(Filter::Letter, text), "aBeZ");
        assert_eq!(kept_of(Filter::Upper, text), "BZ");
        assert_eq!(kept_of(Filter::Lower, text), "ae");
    }
}
