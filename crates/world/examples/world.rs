//! Writes the small world as JSONL: `cargo run -p wmtp-world --example world -- [SEED [TRAINING [HELD_OUT]]]`.

use std::{
    env,
    io::{self, BufWriter, Write},
};
use wmtp_world::{Task, World, WorldConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = WorldConfig::default();
    let mut arguments = env::args().skip(1);
    if let Some(seed) = arguments.next() {
        config.seed = seed.parse()?;
    }
    if let Some(training) = arguments.next() {
        config.training = training.parse()?;
    }
    if let Some(held_out) = arguments.next() {
        config.held_out = held_out.parse()?;
    }
    let world = World::new(&config);
    let mut out = BufWriter::new(io::stdout().lock());
    for (tasks, held_out) in [(&world.training, false), (&world.held_out, true)] {
        for task in tasks {
            writeln!(out, "{}", row(task, held_out)?)?;
        }
    }
    Ok(out.flush()?)
}

/// The task's fields, its prompt, and whether its combination is held out.
fn row(task: &Task, held_out: bool) -> serde_json::Result<serde_json::Value> {
    let mut row = serde_json::to_value(task)?;
    row["prompt"] = task.prompt().into();
    row["held_out"] = held_out.into();
    Ok(row)
}
