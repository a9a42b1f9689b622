//! `wmtp report`: what a run did, as pages; or several runs side by side.

use super::{Failure, Output, SettingsArgs};
use crate::{
    paths::expand_home,
    report::{self, ReportError, Run},
    run::{RunRecord, is_run, newest},
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// `wmtp report RUN [RUN…]`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs: names (arms of sweeps too), directories, or `auto` for the newest. Several are laid side by
    /// side, with paired differences of their evaluations; evaluations themselves may be given, too.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Output directory; by default the run's own, or for several runs `comparison-TIME` next to them.
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
}

/// Reads the runs and writes their report.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let parent = expand_home(&settings.config.paths.runs);
    let mut runs = Vec::new();
    for name in &args.runs {
        let dir = find(name, &parent)?;
        runs.push(match args.runs.len() {
            1 => Run::read(&dir)?,
            _ => Run::read_any(&dir)?,
        });
    }
    let (paired, unpaired) = report::paired_differences(&runs);
    let written = match runs.as_slice() {
        [only] => report::write_of(only, args.output.as_deref())?,
        several => {
            let time = crate::clock::local().strftime("%Y%m%d-%H%M%S");
            let next_to_them = || parent.join(format!("comparison-{time}"));
            report::write_comparison(several, &args.output.unwrap_or_else(next_to_them))?
        }
    };
    let document = json!({
        "runs": runs.iter().map(report::figures_json).collect::<Vec<_>>(),
        "paired": paired,
        "unpaired": unpaired,
        "markdown": written.markdown,
        "html": written.html,
    });
    let mut lines = vec![text(&runs)];
    for comparison in &paired {
        lines.push(format!(
            "{} \u{2212} {}, {}",
            comparison.b, comparison.a, comparison.evaluation
        ));
        lines.extend(comparison.notes.iter().map(|note| format!("  {note}")));
        let sentences = comparison.differences.iter().map(report::paired::sentence);
        lines.extend(sentences.map(|line| format!("  {line}")));
    }
    lines.extend(unpaired);
    lines.push(format!("{}\n{}", written.html.display(), written.markdown.display()));
    output.result(&document, &lines.join("\n"))
}

/// A run by name, by directory, or the newest training run.
fn find(name: &str, parent: &Path) -> Result<PathBuf, Failure> {
    if name == "auto" {
        return newest(parent, is_training).ok_or_else(|| {
            Failure::usage(format!(
                "{} holds no training run: give one's directory",
                parent.display()
            ))
        });
    }
    let named = [parent.join(name), PathBuf::from(name)];
    if let Some(dir) = named.into_iter().find(|dir| !name.is_empty() && dir.is_dir()) {
        return Ok(dir);
    }
    let arms = arms_named(name, parent);
    match arms.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::usage(format!(
            "there is no run `{name}` under {} or in a sweep there, and no directory of that name: give a run's name or its directory",
            parent.display()
        ))),
        several => {
            let dirs: Vec<String> = several.iter().map(|dir| format!("`{}`", dir.display())).collect();
            Err(Failure::usage(format!(
                "`{name}` is in several sweeps: {}; give one of these directories",
                dirs.join(", ")
            )))
        }
    }
}

/// Arms and evaluations of this name in the sweeps under `parent`: `SWEEP/ARM`, `SWEEP/evals/ARM/NAME`.
fn arms_named(name: &str, parent: &Path) -> Vec<PathBuf> {
    let mut parts = Path::new(name).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(_)), None)
    );
    if !plain {
        return Vec::new();
    }
    let subdirectories = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        dirs.sort();
        dirs
    };
    let mut found = Vec::new();
    for sweep in subdirectories(parent) {
        found.push(sweep.join(name));
        found.extend(subdirectories(&sweep.join("evals")).iter().map(|arm| arm.join(name)));
    }
    found.retain(|dir| is_run(dir));
    found
}

fn is_training(run: &Path) -> bool {
    RunRecord::read(run).is_some_and(|record| !record.is_evaluation())
}

fn text(runs: &[Run]) -> String {
    let mut lines = Vec::new();
    for run in runs {
        let found = report::findings::findings(run);
        let worth = found.iter().filter(|f| f.level < report::findings::Level::Note);
        lines.push(format!(
            "{}: {} worth a look",
            run.name(),
            match worth.clone().count() {
                1 => "1 finding".to_owned(),
                n => format!("{n} findings"),
            }
        ));
        lines.extend(worth.map(|finding| format!("  {}", finding.seen)));
        lines.extend(run.problems.iter().map(|problem| format!("  {problem}")));
    }
    lines.join("\n")
}

/// A directory that is no run's is usage.
impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NoRun { .. } => Self::usage(error),
            ReportError::Page { .. } | ReportError::Write { .. } => Self::failed(error),
        }
    }
}
