//! Comparison of several runs: overlaid curves, and tables of differences.

use super::{
    ReportError, evaluation, figures,
    findings::{Level, findings},
    page::{Pages, render, started, state},
    paired::{self, Comparison},
    plot::PlotError,
    run::{Run, visible},
    settings,
    summary::{Unit, final_figures, percent},
};
use crate::eval::paired::{Difference, Test};
use minijinja::context;
use serde::Serialize;

/// A row of a table with a cell for each run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    label: String,
    cells: Vec<Cell>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Cell {
    text: String,
    /// Difference from the first run.
    difference: String,
}

/// The names under which runs are shown: their own, or their directories if two have the same.
pub fn names(runs: &[Run]) -> Vec<String> {
    let own: Vec<String> = runs.iter().map(Run::name).collect();
    let twice = |name: &String| own.iter().filter(|other| *other == name).count() > 1;
    runs.iter()
        .zip(&own)
        .map(|(run, name)| {
            if twice(name) {
                visible(&run.dir.display().to_string())
            } else {
                name.clone()
            }
        })
        .collect()
}

/// The comparison of two runs or more.
///
/// # Errors
/// As [`super::page::pages`].
pub fn pages(runs: &[Run]) -> Result<Pages, ReportError> {
    let failed = |problem: String| ReportError::Page {
        dir: runs.first().map(|run| run.dir.clone()).unwrap_or_default(),
        problem,
    };
    let drawn = |error: PlotError| failed(error.to_string());
    let names = names(runs);
    let scores: Vec<_> = names
        .iter()
        .cloned()
        .zip(runs.iter().map(evaluation::pass_at_1))
        .collect();
    let (paired, unpaired) = super::paired_differences(runs);
    let trained = runs.iter().any(|run| !run.steps.is_empty());
    let charts = if trained {
        figures::of_runs(runs, &names).map_err(drawn)?
    } else {
        Vec::new()
    };
    let context = context! {
        names => &names,
        trained,
        paired => paired_rows(&paired),
        unpaired => unpaired.iter().map(|line| visible(line)).collect::<Vec<_>>(),
        about => about(runs),
        figures => table(runs),
        charts,
        passes => evaluation::chart(&scores).map_err(drawn)?,
        scores => score_table(&scores),
        differences => settings::differences(runs),
        problems => problems(runs, &names),
        findings => found(runs, &names),
        version => env!("CARGO_PKG_VERSION"),
        made => crate::clock::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
    };
    Ok(Pages {
        html: render("compare.html", &context).map_err(failed)?,
        markdown: render("compare.md", &context).map_err(failed)?,
    })
}

/// A paired difference as a row of its table.
#[derive(Clone, Debug, Serialize)]
struct PairedRow {
    evaluation: String,
    notes: String,
    runs: String,
    k: usize,
    problems: usize,
    a: String,
    b: String,
    difference: String,
    interval: String,
    p_value: String,
    test: String,
}

fn paired_rows(all: &[Comparison]) -> Vec<PairedRow> {
    let row = |comparison: &Comparison, d: &Difference| PairedRow {
        evaluation: visible(&comparison.evaluation),
        notes: visible(&comparison.notes.join("; ")),
        runs: format!("{} \u{2212} {}", comparison.b, comparison.a),
        k: d.k,
        problems: d.problems,
        a: percent(d.a),
        b: percent(d.b),
        difference: paired::points(d.difference),
        interval: format!("{} to {}", paired::points(d.ci95[0]), paired::points(d.ci95[1])),
        p_value: paired::p_value(d.p_value),
        test: match (d.test, d.only_a, d.only_b) {
            (Test::McnemarExact, Some(a), Some(b)) => format!("McNemar, exact: {b} against {a} problems"),
            (Test::McnemarExact, ..) => "McNemar, exact".into(),
            (Test::Bootstrap, ..) => "paired bootstrap".into(),
            (Test::Sign, ..) => "sign test".into(),
        },
    };
    let rows = all
        .iter()
        .flat_map(|comparison| comparison.differences.iter().map(move |d| row(comparison, d)));
    rows.collect()
}

fn plain(label: &str, texts: impl Iterator<Item = String>) -> Row {
    let cell = |text| Cell {
        text,
        ..Cell::default()
    };
    Row {
        label: label.into(),
        cells: texts.map(cell).collect(),
    }
}

fn about(runs: &[Run]) -> Vec<Row> {
    let text = |key: &'static str| runs.iter().map(move |run| run.text(key).unwrap_or_else(|| "–".into()));
    // The first digits identify a hash.
    let hash = |key: &'static str| text(key).map(|hash| hash.chars().take(12).collect());
    vec![
        plain("State", runs.iter().map(|run| state(run).to_owned())),
        plain("Pipeline", text("algorithm")),
        plain("Model", text("model")),
        plain("Data", text("data")),
        plain("Seed", text("seed")),
        plain("Device", text("device")),
        plain("Started", runs.iter().map(started)),
        plain("Model SHA-256", hash("model_sha256")),
        plain("Data SHA-256", hash("data_sha256")),
        plain("Commit", hash("commit")),
    ]
}

/// Final figures, each with its difference from the first run's.
fn table(runs: &[Run]) -> Vec<Row> {
    let all: Vec<_> = runs.iter().map(final_figures).collect();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for figure in all.iter().flatten() {
        if !keys.iter().any(|(key, _)| *key == figure.key) {
            keys.push((&figure.key, &figure.label));
        }
    }
    let row = |(key, label): &(&str, &str)| {
        let of = |i: usize| {
            all.get(i)
                .and_then(|figures| figures.iter().find(|figure| figure.key == *key))
        };
        let cell = |i: usize| {
            let figure = of(i);
            let difference = match (i, figure, of(0)) {
                (1.., Some(figure), Some(first)) => figure.difference(first),
                _ => None,
            };
            Cell {
                text: figure.map_or("–".into(), |figure| figure.shown()),
                difference: difference.unwrap_or_default(),
            }
        };
        let nats = (0..all.len()).filter_map(of).any(|figure| figure.unit == Unit::Nats);
        Row {
            label: format!("{label}{}", if nats { " (nats)" } else { "" }),
            cells: (0..all.len()).map(cell).collect(),
        }
    };
    keys.iter()
        .map(row)
        .filter(|row| row.cells.iter().any(|cell| cell.text != "–"))
        .collect()
}

fn score_table(scores: &[(String, Vec<evaluation::Score>)]) -> Vec<Row> {
    let mut labels: Vec<&str> = Vec::new();
    for score in scores.iter().flat_map(|(_, scores)| scores) {
        if !labels.contains(&score.label.as_str()) {
            labels.push(&score.label);
        }
    }
    let text = |scores: &[evaluation::Score], label: &str| {
        let score = scores.iter().find(|score| score.label == label)?;
        let interval = score.interval.map_or(String::new(), |[low, high]| {
            format!(" ({} to {})", percent(low), percent(high))
        });
        Some(format!("{}{interval}", percent(score.value)))
    };
    let cells = |label: &str| {
        let texts: Vec<String> = scores
            .iter()
            .map(|(_, scores)| text(scores, label).unwrap_or_else(|| "not evaluated".into()))
            .collect();
        plain(label, texts.into_iter())
    };
    labels.into_iter().map(cells).collect()
}

fn problems(runs: &[Run], names: &[String]) -> Vec<String> {
    let all = runs.iter().zip(names);
    all.flat_map(|(run, name)| {
        run.problems
            .iter()
            .map(move |problem| format!("{name}: {}", visible(problem)))
    })
    .collect()
}

/// The findings of each run, notes left out.
fn found(runs: &[Run], names: &[String]) -> Vec<Row> {
    let texts = |run: &Run| {
        let worth = findings(run).into_iter().filter(|finding| finding.level < Level::Note);
        worth.map(|finding| visible(&finding.seen)).collect::<Vec<_>>()
    };
    let rows = runs
        .iter()
        .zip(names)
        .map(|(run, name)| plain(name, texts(run).into_iter()));
    rows.filter(|row| !row.cells.is_empty()).collect()
}
