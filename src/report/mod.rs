//! Reports of runs as Markdown and HTML.
//!
//! [`write()`] reads a run's directory, and nothing else, and writes `report.md` and `report.html` into it;
//! [`write_comparison`] compares several runs. The HTML is one file without scripts or network access. The
//! report names files that are missing or damaged; only a directory that is no run's is an error.

pub mod card;
mod compare;
pub mod evaluation;
mod figures;
pub mod findings;
mod hub_header;
pub mod outcomes;
mod page;
pub mod paired;
pub use wmtp_charts as plot;
pub mod run;
mod samples;
mod settings;
mod summary;

pub use run::{ReportError, Run};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where a report was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// `report.md`.
    pub markdown: PathBuf,
    /// `report.html`.
    pub html: PathBuf,
}

/// Writes the report of the run in `dir` into `output`, or into the run's directory.
///
/// # Errors
/// A directory that is no training run's; a file that can't be written.
pub fn write(dir: &Path, output: Option<&Path>) -> Result<Written, ReportError> {
    let run = Run::read(dir)?;
    write_of(&run, output)
}

/// The same of a run that was read already.
///
/// # Errors
/// A file that can't be written.
pub fn write_of(run: &Run, output: Option<&Path>) -> Result<Written, ReportError> {
    save(&page::pages(run)?, output.unwrap_or(&run.dir), "report")
}

/// Writes the comparison of several runs into `output`.
///
/// # Errors
/// A file that can't be written.
pub fn write_comparison(runs: &[Run], output: &Path) -> Result<Written, ReportError> {
    save(&compare::pages(runs)?, output, "comparison")
}

/// The first run against each other one: paired differences over the problems that both answered, and a
/// sentence for each evaluation that could not be compared.
pub fn paired_differences(runs: &[Run]) -> (Vec<paired::Comparison>, Vec<String>) {
    let names = compare::names(runs);
    let mut named = runs.iter().zip(names.iter().map(String::as_str));
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    if let Some(first) = named.next() {
        for other in named {
            let (found, missing) = paired::compare(first, other);
            all.extend(found);
            problems.extend(missing);
        }
    }
    (all, problems)
}

/// A run's final figures, scores and findings as JSON.
pub fn figures_json(run: &Run) -> Value {
    let figures = summary::final_figures(run).into_iter();
    let figures: Map<String, Value> = figures.map(|figure| (figure.key, figure.value.into())).collect();
    let scores = evaluation::pass_at_1(run).into_iter();
    let scores = scores.map(|s| json!({"evaluation": s.label, "pass_at_1": s.value, "ci95": s.interval}));
    json!({
        "name": run.name(),
        "run_dir": run.dir,
        "state": page::state(run),
        "figures": figures,
        "evaluations": scores.collect::<Vec<_>>(),
        "findings": findings::findings(run),
        "problems": run.problems,
    })
}

fn save(pages: &page::Pages, dir: &Path, name: &str) -> Result<Written, ReportError> {
    let written = Written {
        markdown: dir.join(format!("{name}.md")),
        html: dir.join(format!("{name}.html")),
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    for (path, text) in [(&written.markdown, &pages.markdown), (&written.html, &pages.html)] {
        crate::fs::write(path, text.as_bytes()).map_err(failed(path))?;
    }
    Ok(written)
}
