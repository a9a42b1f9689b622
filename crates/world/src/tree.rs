//! What a task computes: a tree of filter, map and reduction. It is evaluated here and written as Python in
//! `style`; a mistake is another tree.

use crate::{draw::Draw, filter::Filter, map::Map, mistake::MistakeKind, reduce::Reduce, value::Value};

/// What a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputKind {
    /// A list of whole numbers.
    Numbers,
    /// A string, character by character.
    Characters,
}

/// `reduce(map(x) for x in input if filter(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tree {
    /// The type of the input.
    pub kind: InputKind,
    /// Which elements count.
    pub filter: Filter,
    /// What each of them becomes.
    pub map: Map,
    /// What becomes of all.
    pub reduce: Reduce,
}

impl Tree {
    /// All combinations of filter, map and reduction that make a task, each with the constants that stand for all:
    /// 400 of numbers and 103 of characters.
    pub fn combinations() -> Vec<Self> {
        let numbers = product(InputKind::Numbers, &Filter::NUMBERS, &Map::NUMBERS, &Reduce::NUMBERS);
        let characters = product(
            InputKind::Characters,
            &Filter::CHARACTERS,
            &Map::CHARACTERS,
            &Reduce::CHARACTERS,
        );
        numbers
            .into_iter()
            .chain(characters)
            .filter(Tree::makes_sense)
            .collect()
    }

    /// Whether each node has an effect, and belongs to the kind.
    pub fn makes_sense(&self) -> bool {
        let of_kind = match self.kind {
            InputKind::Numbers => {
                contains(&Filter::NUMBERS, self.filter.name(), |f| f.name())
                    && contains(&Map::NUMBERS, self.map.name(), |m| m.name())
                    && contains(&Reduce::NUMBERS, self.reduce.name(), |r| r.name())
            }
            InputKind::Characters => {
                contains(&Filter::CHARACTERS, self.filter.name(), |f| f.name())
                    && contains(&Map::CHARACTERS, self.map.name(), |m| m.name())
                    && contains(&Reduce::CHARACTERS, self.reduce.name(), |r| r.name())
            }
        };
        let idle = matches!(
            (self.filter, self.map),
            (Filter::Digit, Map::Upper | Map::Lower) | (Filter::Upper, Map::Upper) | (Filter::Lower, Map::Lower)
        );
        of_kind && !idle && (self.reduce != Reduce::Count || self.map == Map::Same)
    }

    /// The tree with constants that stand for all: equal for the tasks of one combination.
    pub fn combination(&self) -> Combination {
        Combination {
            kind: self.kind,
            filter: self.filter.name(),
            map: self.map.name(),
            reduce: self.reduce.name(),
        }
    }

    /// The same nodes with constants drawn anew.
    pub fn with_constants(&self, draw: &mut Draw) -> Self {
        Self {
            kind: self.kind,
            filter: self.filter.with_constant(draw),
            map: self.map.with_constant(draw),
            reduce: self.reduce.with_constant(draw),
        }
    }

    /// What the function returns for `input`.
    pub fn evaluate(&self, input: &Value) -> Value {
        let kept = input
            .elements()
            .into_iter()
            .filter(|element| self.filter.keeps(element));
        self.reduce
            .apply(kept.map(|element| self.map.apply(&element)).collect())
    }

    /// Trees that differ from this one in one node as a natural mistake does. Symmetric: constants that the
    /// mistake adds are drawn, and may be those of any neighbour that has this tree among its own.
    pub fn neighbours(&self, draw: &mut Draw) -> Vec<(Self, MistakeKind)> {
        let filters = self.filter.neighbours(draw).into_iter();
        let filters = filters.map(|(filter, kind)| (Self { filter, ..*self }, kind));
        let maps = self.map.neighbours(draw).into_iter();
        let maps = maps.map(|(map, kind)| (Self { map, ..*self }, kind));
        let reductions = self.reduce.neighbours().into_iter();
        let reductions = reductions.map(|(reduce, kind)| (Self { reduce, ..*self }, kind));
        let all = filters.chain(maps).chain(reductions);
        all.filter(|(tree, _)| tree.makes_sense()).collect()
    }
}

/// The names of a tree's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Combination {
    /// The type of the input.
    pub kind: InputKind,
    /// The filter's name.
    pub filter: &'static str,
    /// The map's name.
    pub map: &'static str,
    /// The reduction's name.
    pub reduce: &'static str,
}

impl std::fmt::Display for Combination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            InputKind::Numbers => "numbers",
            InputKind::Characters => "characters",
        };
        write!(f, "{kind}/{}/{}/{}", self.filter, self.map, self.reduce)
    }
}

fn product(kind: InputKind, filters: &[Filter], maps: &[Map], reductions: &[Reduce]) -> Vec<Tree> {
    let mut all = Vec::with_capacity(filters.len() * maps.len() * reductions.len());
    for &filter in filters {
        for &map in maps {
            all.extend(reductions.iter().map(|&reduce| Tree {
                kind,
                filter,
                map,
                reduce,
            }));
        }
    }
    all
}

fn contains<T: Copy>(all: &[T], name: &str, of: fn(T) -> &'static str) -> bool {
    all.iter().any(|part| of(*part) == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn combinations_are_distinct_and_have_the_documented_number() {
        let all = Tree::combinations();
        let of = |kind| all.iter().filter(|tree| tree.kind == kind).count();
        assert_eq!((of(InputKind::Numbers), of(InputKind::Characters)), (400, 103));
        let names: BTreeSet<String> = all.iter().map(|tree| tree.combination().to_string()).collect();
        assert_eq!(names.len(), 503);
        assert!(names.contains("numbers/even/square/sum") && names.contains("characters/vowel/same/count"));
    }

    #[test]
    fn a_tree_filters_then_maps_then_reduces() {
        let tree = Tree {
            kind: InputKind::Numbers,
            filter: Filter::Greater(2),
            map: Map::SubtractFrom(3),
            reduce: Reduce::Ascending,
        };
        // sorted([3 - x for x in [5, 2, 3, 9] if x > 2]) == [-6, -2, 0]
        let input = Value::List([5, 2, 3, 9].map(Value::Int).into());
        assert_eq!(tree.evaluate(&input).python(), "[-6, -2, 0]");
    }

    /// Each mistake has a reverse, but for the constants that are drawn: so every edit can be balanced.
    #[test]
    fn the_neighbours_of_a_trees_neighbours_have_the_tree_among_them() {
        let draw = &mut Draw::new(0, 0);
        for combination in Tree::combinations() {
            let tree = combination.with_constants(draw);
            for (mistake, _) in tree.neighbours(draw) {
                assert_ne!(mistake, tree);
                let mut back = mistake.neighbours(draw).into_iter().map(|(tree, _)| tree.combination());
                assert!(back.any(|back| back == tree.combination()), "{mistake:?} to {tree:?}");
            }
        }
    }
}
