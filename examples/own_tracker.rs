//! A tracker of one's own: implement `Tracker`, and hand it to the pipeline.
//!
//!     cargo run --release --example own_tracker -- runs
//!
//! This one prints a line whenever the loss has fallen below the last line's by a tenth of a nat. It
//! is called from a thread of its own, in order; what it refuses with `TrackError::Away` comes again.

use serde_json::Value;
use std::path::PathBuf;
use wmtp::{
    pipeline::{Show, Sources, TrainRequest, micro_model, train_tracked},
    settings::{Pipeline, Sources as SettingSources},
    stop::Stop,
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
        println!("{}", status.name().to_lowercase());
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output: PathBuf = std::env::args().nth(1).unwrap_or_else(|| "runs".into()).into();
    let settings = SettingSources::new(Some(Pipeline::Baseline))
        .set("train.steps=20")
        .load()?;
    let (device_name, device) = wmtp::device::resolve("flex")?;
    let cache = tempfile::tempdir()?;
    let request = TrainRequest {
        algorithm: Pipeline::Baseline,
        seed: settings.config.seed,
        sources: Sources {
            data: settings.recipe.data.source.clone(),
            base: micro_model(cache.path(), &device)?,
            ..Sources::default()
        },
        device,
        device_name,
        cache: cache.path().into(),
        output,
        run_name: "own-tracker".into(),
        resume: None,
        copy: None,
        config_yaml: settings.config.to_yaml(),
        recipe_yaml: settings.recipe.to_yaml(),
        show: Show::Lines,
        stop: Stop::default(),
        config: settings.config,
        recipe: settings.recipe,
    };
    let own = Milestones { lowest: f64::INFINITY };
    let summary = train_tracked(&request, None, vec![Box::new(own)])?;
    println!("{}", summary.checkpoint.display());
    Ok(())
}
