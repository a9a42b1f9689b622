//! A whole world: training tasks, and tasks of combinations that training never shows.

use crate::{
    balance::Balance,
    draw::Draw,
    filter::Filter,
    map::Map,
    task::Task,
    tree::{Combination, InputKind, Tree},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Range};

/// What decides a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Decides the held-out combinations and all draws.
    pub seed: u64,
    /// Number of training tasks, at most 65,535.
    pub training: u16,
    /// Number of held-out tasks, at most 65,535.
    pub held_out: u16,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            training: 5000,
            held_out: 90,
        }
    }
}

/// Tasks to train on, and tasks to evaluate on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Tasks of nine tenths of the combinations. Their ids follow those of the held-out tasks.
    pub training: Vec<Task>,
    /// Tasks of the other combinations, with ids from 1. Their wrong programs may compute what training tasks do.
    pub held_out: Vec<Task>,
}

/// One combination in this number is held out.
const HELD_OUT_SHARE: usize = 10;
/// Draws of one task, of which the first nearly always succeeds.
const TRIES: usize = 32;

impl World {
    /// The world of a configuration. Equal configurations give equal worlds, on every machine.
    pub fn new(config: &WorldConfig) -> Self {
        let mut split = Draw::new(config.seed, 0);
        let numbers = Split::new(InputKind::Numbers, &mut split);
        let characters = Split::new(InputKind::Characters, &mut split);
        let held_out = [numbers.held_out, characters.held_out];
        let hidden: BTreeSet<Combination> = held_out.iter().flatten().map(Tree::combination).collect();
        let first = u32::from(config.held_out) + 1;
        Self {
            training: tasks(
                [numbers.training, characters.training],
                first..first + u32::from(config.training),
                &mut Draw::new(config.seed, 1),
                |mistake| !hidden.contains(&mistake.combination()),
            ),
            held_out: tasks(held_out, 1..first, &mut Draw::new(config.seed, 2), |_| true),
        }
    }
}

/// The combinations of one kind of input, each side in a drawn order.
struct Split {
    training: Vec<Tree>,
    held_out: Vec<Tree>,
}

impl Split {
    fn new(kind: InputKind, draw: &mut Draw) -> Self {
        let mut held_out = Tree::combinations();
        held_out.retain(|tree| tree.kind == kind);
        draw.shuffle(&mut held_out);
        // Numbers and characters share the programs of what neither filters nor maps: it is never held out.
        held_out.sort_by_key(|tree| tree.filter == Filter::All && tree.map == Map::Same);
        let training = held_out.split_off(held_out.len() / HELD_OUT_SHARE);
        Self { training, held_out }
    }
}

/// Tasks with the given ids. Of three, two are of numbers and one is of characters; within a kind, all
/// combinations take turns.
fn tasks(
    [numbers, characters]: [Vec<Tree>; 2],
    ids: Range<u32>,
    draw: &mut Draw,
    allowed: impl Fn(&Tree) -> bool,
) -> Vec<Task> {
    let mut balance = Balance::default();
    let (mut numbers, mut characters) = (numbers.iter().cycle(), characters.iter().cycle());
    let tasks = ids.enumerate().filter_map(|(place, id)| {
        let combination = match place % 3 {
            2 => characters.next()?,
            _ => numbers.next()?,
        };
        (0..TRIES).find_map(|_| Task::draw(id, combination, &allowed, &mut balance, draw))
    });
    tasks.collect()
}
