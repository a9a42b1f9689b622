//! Sweeps: many variants of a recipe trained and evaluated, and an ablation table of them.
//!
//! A sweep file names keys and their values; every combination (or so many random draws) with every
//! seed is an *arm*. Arms are child processes of this program, `wmtp train` and then `wmtp eval`, so
//! that each one's memory and time are its own. What is done is read from the arms' directories: a
//! sweep that was killed goes on where it was, and so does one whose arms ran elsewhere.
//!
//! It knows settings and run directories, and nothing of how training or evaluation work.

mod arm;
mod child;
mod config;
mod draw;
mod error;
mod expand;
mod figures;
mod html;
mod jobs;
mod name;
mod plan;
mod plots;
mod render;
mod resources;
mod run;
mod state;
mod statistics;
mod table;
mod tracking;

pub use arm::{Arm, Overlay, Sweep};
pub use config::*;
pub use error::SweepError;
pub use expand::Setting;
pub use figures::{Cost, Figures};
pub use jobs::{job_lines, shell_line};
pub use plan::{ArmPlan, limits, plans};
pub use render::{duration, summary};
pub use run::{Limits, run};
pub use state::{ArmState, End, Eval, Ran, Step, Train, state, state_in};
pub use statistics::{Estimate, t_quantile_975};
pub use table::{ArmRow, CostRow, Row, Status, Table};
pub use tracking::TrackedSweep;

use crate::run::write_atomically;
use std::path::Path;

/// Writes `sweep.md`, `sweep.json`, `sweep.csv`, `arms.csv`, the plots and `sweep.html` into a directory.
///
/// # Errors
/// What the file system says.
pub fn write_table(table: &Table, dir: &Path) -> Result<(), SweepError> {
    std::fs::create_dir_all(dir).map_err(SweepError::io("making", dir))?;
    let json = serde_json::to_string_pretty(table)
        .map_err(|e| SweepError::Other(format!("the table can't be written as JSON: {e}")))?;
    let plots = plots::plots(table)?;
    let mut files = vec![
        ("sweep.md".to_owned(), render::markdown(table)),
        ("sweep.json".to_owned(), json + "\n"),
        ("sweep.csv".to_owned(), render::settings_csv(table)),
        ("arms.csv".to_owned(), render::arms_csv(table)),
        ("sweep.html".to_owned(), html::page(table, &plots, dir)),
    ];
    files.extend(plots.into_iter().map(|plot| (format!("{}.svg", plot.name), plot.svg)));
    for (name, text) in files {
        write_atomically(&dir.join(name), text.as_bytes()).map_err(|e| SweepError::Other(e.to_string()))?;
    }
    Ok(())
}
