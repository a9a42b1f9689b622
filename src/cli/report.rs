//! `wmtp report`: what a run did, as pages; or several runs side by side.

use super::{Failure, Output, SettingsArgs};
use crate::{
    report::{self, ReportError, Run, Written},
    settings::expand_home,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `wmtp report RUN [RUN…]`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs: their names, their directories, or `auto` for the newest; several are laid side by side.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where the pages go: the run's own directory, or for several runs `comparison-TIME` beside them, if
    /// absent.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Reads the runs and writes their report.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let parent = expand_home(&settings.config.paths.runs);
    let mut runs = Vec::new();
    for name in &args.runs {
        runs.push(Run::read(&find(name, &parent)?)?);
    }
    let written = match runs.as_slice() {
        [only] => report::write_of(only, args.output.as_deref())?,
        several => {
            let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
            let beside = || parent.join(format!("comparison-{time}"));
            report::write_comparison(several, &args.output.unwrap_or_else(beside))?
        }
    };
    let document = json!({
        "runs": runs.iter().map(report::figures_json).collect::<Vec<_>>(),
        "markdown": written.markdown,
        "html": written.html,
    });
    output.result(&document, &text(&runs, &written))
}

/// A run by name, by directory, or the newest training run.
fn find(name: &str, parent: &Path) -> Result<PathBuf, Failure> {
    if name == "auto" {
        return crate::track::newest(parent, is_training).ok_or_else(|| {
            Failure::usage(format!(
                "{} holds no training run: give one's directory",
                parent.display()
            ))
        });
    }
    let named = [parent.join(name), PathBuf::from(name)];
    named
        .into_iter()
        .find(|dir| !name.is_empty() && dir.is_dir())
        .ok_or_else(|| {
            Failure::usage(format!(
                "there is no run `{name}` under {}, and no directory of that name: give a run's name or its directory",
                parent.display()
            ))
        })
}

fn is_training(run: &Path) -> bool {
    let text = std::fs::read_to_string(run.join("run.json")).ok();
    let record: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
    record.is_some_and(|record| record["kind"] != "evaluation")
}

fn text(runs: &[Run], written: &Written) -> String {
    let mut lines = Vec::new();
    for run in runs {
        let found = report::findings::findings(run);
        let worth = found.iter().filter(|f| f.level < report::findings::Level::Note);
        lines.push(format!(
            "{}: {} finding(s) worth a look",
            run.name(),
            worth.clone().count()
        ));
        lines.extend(worth.map(|finding| format!("  {}", finding.seen)));
        lines.extend(run.problems.iter().map(|problem| format!("  {problem}")));
    }
    lines.push(format!("{}\n{}", written.html.display(), written.markdown.display()));
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
