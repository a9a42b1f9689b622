//! A tracker of one's own: implement `Tracker`, and hand it to the pipeline.
//!
//!     cargo run --release --example own_tracker -- runs
//!
//! This one prints a line whenever the loss has fallen below the last line's by a tenth of a nat. It
//! is called from a thread of its own, in order; what it refuses with `TrackError::Away` comes again.

use serde_json::Value;
use wmtp::{
    cli::Lines,
    pipeline::Experiment,
    settings::{Pipeline, Sources},
    track::{Point, RunInfo, Status, TrackError, Tracker},
};

/// Says when the loss has fallen.
struct Milestones {
    lowest: f64,
}

impl Tracker for Milestones {
    fn name(&self) -> &str {
        "milestones"
    }

    fn place(&self) -> String {
        "standard output".into()
    }

    fn start(&mut self, run: &RunInfo, _kept: &Value) -> Result<Value, TrackError> {
        println!("{} in {}", run.name, run.experiment);
        Ok(Value::Null)
    }

    fn metrics(&mut self, points: &[Point], _again: bool) -> Result<(), TrackError> {
        for point in points.iter().filter(|point| point.key == "loss") {
            if point.value < self.lowest - 0.1 {
                self.lowest = point.value;
                println!("step {}: loss {:.2}", point.step, point.value);
            }
        }
        Ok(())
    }

    fn status(&mut self, status: Status, _at: i64) -> Result<(), TrackError> {
        let text = match status {
            Status::Running => "running",
            Status::Finished => "finished",
            Status::Failed => "failed",
            Status::Killed => "interrupted",
        };
        println!("{text}");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "runs".into());
    let cache = tempfile::tempdir()?;
    let settings = Sources::new(Some(Pipeline::Baseline))
        .set("train.steps=20")
        .set("devices.backend=flex")
        .set(format!("paths.runs={output}"))
        .set(format!("paths.cache={}", cache.path().display()))
        .load()?;
    let milestones = Milestones { lowest: f64::INFINITY };
    let summary = Experiment::from(settings)
        .progress(Lines)
        .run_name("own-tracker")
        .tracker(milestones)
        .run()?;
    println!("{}", summary.checkpoint.display());
    Ok(())
}
