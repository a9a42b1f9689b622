//! A whole world: training tasks, and tasks of combinations that training never shows.

use crate::{
    balance::Balance,
    draw::Draw,
    filter::Filter,
    map::Map,
    task::Task,
    tree::{Combination, Tree},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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

/// One of so many combinations is held out.
const HELD_OUT_SHARE: usize = 10;
/// Draws of one task, of which the first nearly always succeeds.
const TRIES: usize = 32;

impl World {
    /// The world of a configuration. Equal configurations give equal worlds, on every machine.
    pub fn new(config: &WorldConfig) -> Self {
        let mut combinations = Tree::combinations();
        Draw::new(config.seed, 0).shuffle(&mut combinations);
        // Numbers and characters share the programs of what neither filters nor maps: it is never held out.
        combinations.sort_by_key(|tree| tree.filter == Filter::All && tree.map == Map::Same);
        let (held_out, training) = combinations.split_at(combinations.len() / HELD_OUT_SHARE);
        let hidden: BTreeSet<Combination> = held_out.iter().map(Tree::combination).collect();
        let first = u32::from(config.held_out) + 1;
        Self {
            training: tasks(
                training,
                first,
                config.training,
                &mut Draw::new(config.seed, 1),
                |mistake| !hidden.contains(&mistake.combination()),
            ),
            held_out: tasks(held_out, 1, config.held_out, &mut Draw::new(config.seed, 2), |_| true),
        }
    }
}

/// `number` tasks with ids from `first`, of all combinations in turn.
fn tasks(
    combinations: &[Tree],
    first: u32,
    number: u16,
    draw: &mut Draw,
    allowed: impl Fn(&Tree) -> bool,
) -> Vec<Task> {
    let mut balance = Balance::default();
    let ids = first..first + u32::from(number);
    let tasks = ids.zip(combinations.iter().cycle()).filter_map(|(id, combination)| {
        (0..TRIES).find_map(|_| Task::draw(id, combination, &allowed, &mut balance, draw))
    });
    tasks.collect()
}
