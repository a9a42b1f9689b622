//! Mistakes: their kinds, the place of the edit, and which of several a wrong program has.

use crate::{
    draw::Draw,
    style::Style,
    tree::{Kind, Tree},
};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// What is wrong with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MistakeKind {
    /// `>` for `>=` and the like.
    OffByOne,
    /// `>` for `<`, `+` for `-`, `upper` for `lower` and the like.
    WrongOperator,
    /// `==` for `!=`, `in` for `not in`, even for odd.
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

/// Chooses mistakes so that an edit and its reverse are made equally often in each style. Then a program's
/// words, length and layout do not tell whether it is right: the description decides.
#[derive(Debug, Default)]
pub struct Balance(BTreeMap<(Style, Change), i32>);

/// An edit as the balance counts it: the names of the node before and after, and which constant is larger.
type Change = (Kind, &'static str, &'static str, Ordering);

impl Balance {
    /// How many times more the edit from `right` to `wrong` was made than its reverse.
    fn excess(&self, style: Style, right: &Tree, wrong: &Tree) -> i32 {
        let made = |from, to| self.0.get(&(style, change(from, to))).copied().unwrap_or(0);
        made(right, wrong) - made(wrong, right)
    }

    /// One of `candidates`, mistakes in the program of `right` in `style`: of those that are not ahead of their
    /// reverses (or are so by the least), each kind is as likely as any other. None where there are none.
    pub fn choose<T>(
        &mut self,
        style: Style,
        right: &Tree,
        mut candidates: Vec<(Tree, MistakeKind, T)>,
        draw: &mut Draw,
    ) -> Option<T> {
        let excess = |wrong: &Tree| self.excess(style, right, wrong).max(0);
        let least = candidates.iter().map(|(wrong, ..)| excess(wrong)).min()?;
        candidates.retain(|(wrong, ..)| excess(wrong) == least);
        let kinds: BTreeSet<MistakeKind> = candidates.iter().map(|(_, kind, _)| *kind).collect();
        let place = draw.below(kinds.len());
        let chosen = kinds.into_iter().nth(place)?;
        candidates.retain(|(_, kind, _)| *kind == chosen);
        let (wrong, _, chosen) = candidates.swap_remove(draw.below(candidates.len()));
        *self.0.entry((style, change(right, &wrong))).or_insert(0) += 1;
        Some(chosen)
    }
}

fn change(from: &Tree, to: &Tree) -> Change {
    let (before, after, order) = if from.filter != to.filter {
        (from.filter.name(), to.filter.name(), from.filter.cmp(&to.filter))
    } else if from.map != to.map {
        (from.map.name(), to.map.name(), from.map.cmp(&to.map))
    } else {
        (from.reduce.name(), to.reduce.name(), from.reduce.cmp(&to.reduce))
    };
    (from.kind, before, after, order)
}
