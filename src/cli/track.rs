//! `wmtp track`: bring a run to its trackers after the fact.

use super::{Failure, Output, SettingsArgs};
use crate::{
    paths::expand_home,
    pipeline,
    run::{RunDir, file, find},
    settings::Settings,
    track::{self, TrackerSummary},
};
use std::path::{Path, PathBuf};

/// `wmtp track <sync>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Deliver what a run has logged and a tracker does not have; a run that was never tracked is sent whole.
    Sync(SyncArgs),
}

#[derive(Debug, clap::Args)]
struct SyncArgs {
    /// The run: its name or its directory.
    run: String,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where run directories are (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
    /// Seconds to wait for trackers that do not answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    wait: f64,
}

/// Delivers.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let What::Sync(args) = args.what;
    let (dir, mut settings) = run_with_settings(&args.run, &args.settings, args.output.as_deref())?;
    settings.config.tracking.wait_seconds = args.wait;
    let config = &settings.config;
    let trackers = track::trackers(&config.tracking).map_err(Failure::usage)?;
    if trackers.is_empty() {
        return Err(Failure::usage(
            "no tracker is named: set tracking.kinds, for example --set tracking.kinds=[mlflow]",
        ));
    }
    let run = RunDir::open(&dir, &dir.to_string_lossy()).map_err(Failure::usage)?;
    let summary = pipeline::sync(&run, config, &settings.recipe, trackers)?;
    let left = summary.left(&dir);
    let text = if summary.trackers.is_empty() {
        "another process delivers this run".to_owned()
    } else {
        summary.trackers.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    output.result(&serde_json::to_value(&summary)?, &text)?;
    match left.first() {
        Some(problem) => Err(Failure::Found(problem.clone())),
        None => Ok(()),
    }
}

fn line(tracker: &TrackerSummary) -> String {
    let refused = match tracker.refused.as_slice() {
        [] => String::new(),
        [first, ..] => format!("; {} refused, the first: {first}", tracker.refused.len()),
    };
    format!(
        "{} {}: run {}, {} metric values sent, {} lines left{refused}",
        tracker.name,
        tracker.place,
        tracker.run["run_id"].as_str().unwrap_or("-"),
        tracker.delivered,
        tracker.left
    )
}

/// A run's directory, and its own settings under whatever is given now.
pub(super) fn run_with_settings(
    run: &str,
    args: &SettingsArgs,
    output: Option<&Path>,
) -> Result<(PathBuf, Settings), Failure> {
    let load = |args: &SettingsArgs| {
        args.sources(None)
            .flag("--output", "paths.runs", output.map(Path::to_path_buf))
            .load()
    };
    let runs = expand_home(&load(args)?.config.paths.runs);
    let dir = find(&runs, run).ok_or_else(|| {
        Failure::usage(format!(
            "there is no run `{run}`: give its directory, or the name of one in {} that holds run.json",
            runs.display()
        ))
    })?;
    let own = [dir.join(file::CONFIG), dir.join(file::RECIPE)];
    let settings = match own {
        [config, recipe] if config.is_file() && recipe.is_file() => load(&args.under(config, recipe))?,
        _ => load(args)?,
    };
    Ok((dir, settings))
}
