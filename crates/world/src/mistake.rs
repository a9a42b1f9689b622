//! The kinds of mistakes, and the place of the edit.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is wrong with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MistakeKind {
    /// `>` for `>=` and the like.
    OffByOne,
    /// `>` for `<`, `+` for `-`, `upper` for `lower` and the like.
    WrongOperator,
    /// `in` for `not in`, even for odd.
    InvertedCondition,
    /// Another constant.
    WrongConstant,
    /// `x - k` for `k - x`.
    SwappedArguments,
    /// Every element counts.
    MissingFilter,
    /// A condition that the description does not have.
    ExtraFilter,
    /// The elements themselves.
    MissingMap,
    /// A function of the elements that the description does not have.
    ExtraMap,
    /// `max` for `min`, `len` for `sum`, a list for a string.
    WrongReduction,
    /// Another order of the elements.
    WrongOrder,
    /// Another result where there is no element.
    EdgeCase,
}

/// Where two programs differ: the characters of each, from the first token that differs to the last.
///
/// Programs are ASCII, so characters are bytes.
pub fn edit(right: &str, wrong: &str) -> (Range<usize>, Range<usize>) {
    let (right, wrong) = (right.as_bytes(), wrong.as_bytes());
    let pairs = right.iter().zip(wrong);
    let mut start = pairs.take_while(|(a, b)| a == b).count();
    let limit = right.len().min(wrong.len()) - start;
    let pairs = right.iter().rev().zip(wrong.iter().rev());
    let mut end = pairs.take_while(|(a, b)| a == b).take(limit).count();
    // Neither end cuts a token of one of the programs.
    while cuts(right, start) || cuts(wrong, start) {
        start -= 1;
    }
    while cuts(right, right.len() - end) || cuts(wrong, wrong.len() - end) {
        end -= 1;
    }
    (start..right.len() - end, start..wrong.len() - end)
}

/// Whether the bytes before and after `place` belong to one token: a word, a number or an operator.
fn cuts(text: &[u8], place: usize) -> bool {
    let class = |byte: u8| match byte {
        b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => 1,
        b'<' | b'>' | b'=' | b'!' | b'*' | b'/' | b'+' | b'-' | b'%' => 2,
        _ => 0,
    };
    match (
        place.checked_sub(1).and_then(|before| text.get(before)),
        text.get(place),
    ) {
        (Some(&before), Some(&after)) => class(before) != 0 && class(before) == class(after),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the edit in both programs.
    fn edited<'c>(right: &'c str, wrong: &'c str) -> (&'c str, &'c str) {
        let (of_right, of_wrong) = edit(right, wrong);
        (&right[of_right], &wrong[of_wrong])
    }

    #[test]
    fn an_edit_is_of_whole_tokens() {
        assert_eq!(edited("max(r)", "min(r)"), ("max", "min"));
        assert_eq!(edited("x > 3", "x >= 3"), (">", ">="));
        assert_eq!(edited("x >= 3", "x < 3"), (">=", "<"));
        assert_eq!(edited("x ** 2", "x * 2"), ("**", "*"));
        assert_eq!(edited("x - 13 for", "x - 3 for"), ("13", "3"));
        assert_eq!(edited("default=0)", "default=None)"), ("0", "None"));
        assert_eq!(edited("x - 3)", "3 - x)"), ("x - 3", "3 - x"));
    }

    #[test]
    fn what_was_taken_out_has_an_empty_place() {
        assert_eq!(edited("return r[::-1]", "return r"), ("[::-1]", ""));
        assert_eq!(edit("[x for x in a if x > 3]", "[x for x in a]"), (13..22, 13..13));
        assert_eq!(edit("c in \"aeiou\"", "c not in \"aeiou\""), (2..2, 2..6));
        // Where letters repeat, the programs' common end is not counted twice.
        assert_eq!(edited("f(aa)", "f(aaa)"), ("aa", "aaa"));
        assert_eq!(edited("((x))", "(x)"), ("(x)", "x"));
    }
}
