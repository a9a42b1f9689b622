//! Sweeps: many variants of a recipe trained and evaluated, and an ablation table of them.
//!
//! A sweep file names keys and their values; every combination (or a number of random draws) with every
//! seed is an *arm*. Arms are child processes of this program, `wmtp train` and then `wmtp eval`, so that
//! memory and time of each are measured separately. Progress is read from the arms' directories: a killed
//! sweep resumes, and so does one whose arms ran elsewhere.
//!
//! Knows settings and run directories, not training or evaluation.

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
mod table;
mod tables;
mod tracking;

pub use arm::{Arm, Overlay, Sweep};
pub use config::*;
pub use error::SweepError;
pub use expand::Setting;
pub use figures::{Cost, Figures};
pub use jobs::{job_lines, shell_line};
pub use plan::{ArmPlan, limits, plans};
pub use render::summary;
pub use run::{Limits, run};
pub use state::{ArmState, End, Eval, Ran, Step, Train, state, state_in};
pub use table::{ArmRow, CostRow, Row, Status, Table};
pub use tracking::TrackedSweep;

pub use crate::statistics::{Estimate, t_quantile_975};
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
        ("sweep.html".to_owned(), html::page(table, &plots, dir)?),
    ];
    files.extend(plots.into_iter().map(|plot| (format!("{}.svg", plot.name), plot.svg)));
    for (name, text) in files {
        let path = dir.join(name);
        crate::fs::write(&path, text.as_bytes()).map_err(SweepError::io("writing", &path))?;
    }
    Ok(())
}
