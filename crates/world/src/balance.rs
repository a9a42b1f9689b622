//! Which of several mistakes a wrong program has, so that labels do not leak.

use crate::{
    draw::Draw,
    mistake::MistakeKind,
    style::Style,
    tree::{InputKind, Tree},
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// Chooses mistakes so that an edit and its reverse are made equally often in each style. Then a program's
/// words, length and layout carry no information about its label; the description decides.
#[derive(Debug, Default)]
pub struct Balance(BTreeMap<(Style, Change), i32>);

/// An edit as the balance counts it: the names of the node before and after, and which constant is larger.
type Change = (InputKind, &'static str, &'static str, Ordering);

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
