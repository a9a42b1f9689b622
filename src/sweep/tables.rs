//! Figures of a sweep as text, and the tables of its report as cells; `render.rs` writes them as Markdown,
//! `html.rs` as HTML.

use super::{
    Estimate,
    name::shown,
    table::{Row, Status, Table},
};
use crate::{run::file, text::duration};
use serde::Serialize;
use std::path::PathBuf;

/// `1.25 GiB`.
pub(super) fn gib(bytes: f64) -> String {
    format!("{:.2} GiB", bytes / f64::from(1 << 30))
}

/// A figure's name as a column's title.
pub(super) fn title(metric: &str) -> String {
    match metric {
        "valid_loss" => "validation loss".into(),
        "best_valid_loss" => "best validation loss".into(),
        _ => match (metric.strip_prefix("valid_ce_head_"), metric.split_once(".pass_at_")) {
            (Some(k), _) => format!("validation CE, head {k}"),
            (_, Some((benchmark, k))) => format!("{benchmark} pass@{k}"),
            _ => metric.replace('_', " "),
        },
    }
}

/// [`title`] with its unit.
fn title_with_unit(metric: &str) -> String {
    match metric.contains("pass_at_") {
        true => title(metric),
        false => format!("{} (nats)", title(metric)),
    }
}

/// The varied keys in full.
pub(super) fn full_keys(table: &Table) -> Vec<String> {
    let first = table.settings.first();
    first.into_iter().flat_map(|row| row.values.keys().cloned()).collect()
}

/// A figure: percent for pass@k, nats with four decimals for losses.
fn value(metric: &str, x: f64) -> String {
    if metric.contains("pass_at_") {
        format!("{:.1}%", 100.0 * x)
    } else {
        format!("{x:.4}")
    }
}

/// A difference, with its sign.
fn signed(metric: &str, x: f64) -> String {
    let text = value(metric, x.abs()).replace('%', " points");
    format!("{}{text}", if x < 0.0 { "−" } else { "+" })
}

/// `6.5321 ± 0.0123`, or `6.5321` for one seed.
pub(super) fn estimate(metric: &str, e: &Estimate) -> String {
    let mean = value(metric, e.mean);
    match interval(metric, e) {
        Some(interval) => format!("{mean} {interval}"),
        None => mean,
    }
}

/// `± 0.0123`, or `(0.0 to 3.7)` where the interval is not symmetric around the mean.
fn interval(metric: &str, e: &Estimate) -> Option<String> {
    let [low, high] = e.ci95?;
    let number = |x: f64| value(metric, x).trim_end_matches('%').to_owned();
    let even = (e.mean - 0.5 * (low + high)).abs() <= 1e-9 * (high - low).max(e.mean.abs());
    Some(if even {
        format!("± {}", number(0.5 * (high - low)))
    } else {
        format!("({} to {})", number(low), number(high))
    })
}

/// Minimum number of seeds for marking a difference: with fewer the interval rests on the assumption of a
/// normal distribution, which so few values can't confirm.
pub(super) const MARKED_FROM: usize = 5;

/// Whether a difference is marked: enough seeds, and an interval without 0.
fn marked(e: &Estimate) -> bool {
    e.n >= MARKED_FROM && e.ci95.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
}

/// `−0.0031 ± 0.0009`, with a star if it is marked.
pub(super) fn difference(metric: &str, e: &Estimate) -> String {
    let mean = signed(metric, e.mean);
    match e.ci95 {
        Some([low, high]) => {
            let star = if marked(e) { " *" } else { "" };
            format!(
                "{mean} ± {}{star}",
                value(metric, 0.5 * (high - low)).trim_end_matches('%')
            )
        }
        None => mean,
    }
}

/// Time, speed and memory of a setting.
fn costs(row: &Row) -> [String; 4] {
    let of = |e: Option<Estimate>, text: &dyn Fn(f64) -> String| e.map_or_else(|| "–".into(), |e| text(e.mean));
    [
        of(row.cost.train_seconds, &duration),
        of(row.cost.eval_seconds, &duration),
        of(row.cost.tokens_per_second, &|x| format!("{x:.0}")),
        of(row.cost.peak_memory, &gib),
    ]
}

/// `3`, or `2 of 3`.
pub(super) fn seeds(row: &Row, table: &Table) -> String {
    match (row.seeds.len(), table.seeds.len()) {
        (n, all) if n == all => n.to_string(),
        (n, all) => format!("{n} of {all}"),
    }
}

/// A cell of a table.
#[derive(Default, Serialize)]
pub(super) struct Cell {
    pub text: String,
    /// What follows the text: its interval.
    pub note: String,
    pub is_number: bool,
    /// `better` or `worse`, of a difference that is marked.
    pub class: &'static str,
    /// The report of the run that it names.
    pub report: Option<String>,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    fn number(text: impl Into<String>) -> Self {
        Self {
            is_number: true,
            ..Self::text(text)
        }
    }

    /// A figure with its interval; a dash without it.
    fn estimate(metric: &str, e: Option<&Estimate>) -> Self {
        let Some(e) = e else { return Self::number("–") };
        Self {
            note: interval(metric, e).unwrap_or_default(),
            ..Self::number(value(metric, e.mean))
        }
    }

    /// A difference with its interval; a dash without it.
    fn difference(metric: &str, e: Option<&Estimate>) -> Self {
        let Some(e) = e else { return Self::number("–") };
        let (whole, mean) = (difference(metric, e), signed(metric, e.mean));
        let note = whole.strip_prefix(&mean).unwrap_or_default().trim_start();
        let is_better = (e.mean < 0.0) != metric.contains("pass_at_");
        Self {
            note: note.to_owned(),
            class: match (marked(e), is_better) {
                (true, true) => "better",
                (true, false) => "worse",
                (false, _) => "",
            },
            ..Self::number(mean)
        }
    }
}

/// Titles, and rows with their class.
#[derive(Serialize)]
pub(super) struct Grid {
    pub titles: Vec<Cell>,
    pub rows: Vec<(&'static str, Vec<Cell>)>,
}

/// All tables of a sweep.
pub(super) struct Tables {
    pub settings: Grid,
    /// None if there is one setting only.
    pub differences: Option<Grid>,
    /// The arms that are not finished, if there are any.
    pub open: Option<Grid>,
    /// The arms that are.
    pub arms: Grid,
}

impl Tables {
    pub fn of(table: &Table) -> Self {
        Self {
            settings: settings(table),
            differences: (table.settings.len() > 1).then(|| differences(table)),
            open: Some(open(table)).filter(|grid| !grid.rows.is_empty()),
            arms: arms(table),
        }
    }

    /// The tables before the arms', each with its heading.
    pub fn sections(&self, baseline: &str) -> Vec<(String, &Grid)> {
        let difference = format!("Difference to {baseline}");
        let others = [(difference, &self.differences), ("Not finished".into(), &self.open)];
        let others = others
            .into_iter()
            .filter_map(|(heading, grid)| Some((heading, grid.as_ref()?)));
        std::iter::once(("Settings".into(), &self.settings))
            .chain(others)
            .collect()
    }
}

fn metric_titles(table: &Table) -> impl Iterator<Item = Cell> {
    let shown = table.shown_metrics().into_iter();
    shown.map(|metric| Cell::number(title_with_unit(metric)))
}

fn settings(table: &Table) -> Grid {
    let mut titles = vec![Cell::number("")];
    titles.extend(full_keys(table).into_iter().map(Cell::text));
    titles.push(Cell::number("seeds"));
    titles.extend(metric_titles(table));
    titles.extend(["training time", "evaluation time", "tokens/s", "peak memory"].map(Cell::number));
    let rows = table.settings.iter().map(|row| {
        let rank = row.rank.map_or_else(|| "–".into(), |rank| rank.to_string());
        let mut cells = vec![Cell::number(rank)];
        cells.extend(row.values.values().map(|value| Cell::text(shown(value))));
        cells.push(Cell::number(seeds(row, table)));
        let metrics = table.shown_metrics().into_iter();
        cells.extend(metrics.map(|m| Cell::estimate(m, row.metrics.get(m))));
        cells.extend(costs(row).map(Cell::number));
        (if row.is_baseline { "baseline" } else { "" }, cells)
    });
    Grid {
        rows: rows.collect(),
        titles,
    }
}

fn differences(table: &Table) -> Grid {
    let others = table.settings.iter().filter(|row| !row.is_baseline);
    let rows = others.map(|row| {
        let mut cells = vec![Cell::text(&row.label)];
        let metrics = table.shown_metrics().into_iter();
        cells.extend(metrics.map(|m| Cell::difference(m, row.difference.get(m))));
        ("", cells)
    });
    Grid {
        rows: rows.collect(),
        titles: std::iter::once(Cell::text("setting"))
            .chain(metric_titles(table))
            .collect(),
    }
}

fn open(table: &Table) -> Grid {
    let open = table.arms.iter().filter(|arm| arm.status != Status::Finished);
    let rows = open.map(|arm| {
        let cells = vec![
            Cell::text(&arm.label),
            Cell::number(arm.seed.to_string()),
            Cell::text(arm.status.name()),
            Cell::text(arm.reason.clone().unwrap_or_default()),
        ];
        (arm.status.name(), cells)
    });
    Grid {
        rows: rows.collect(),
        titles: ["setting", "seed", "status", "reason"].map(Cell::text).into(),
    }
}

fn arms(table: &Table) -> Grid {
    let mut titles = vec![Cell::text("run"), Cell::number("seed")];
    titles.extend(metric_titles(table));
    titles.extend(["skipped steps", "rollbacks"].map(Cell::number));
    let finished = table.arms.iter().filter(|arm| arm.status == Status::Finished);
    let report = |run: &PathBuf| run.join(file::REPORT_HTML).to_str().map(str::to_owned);
    let rows = finished.map(|arm| {
        let run = Cell {
            report: arm.run_dir.as_ref().and_then(report),
            ..Cell::text(&arm.run_name)
        };
        let mut cells = vec![run, Cell::number(arm.seed.to_string())];
        let results = table.shown_metrics().into_iter().map(|m| {
            let result = arm.figures.results.get(m);
            Cell::number(result.map_or("–".into(), |x| value(m, *x)))
        });
        cells.extend(results);
        cells.extend([arm.figures.skipped, arm.figures.rollbacks].map(|n| Cell::number(n.to_string())));
        ("", cells)
    });
    Grid {
        rows: rows.collect(),
        titles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_units_and_differences_their_sign() {
        let e = Estimate {
            n: 3,
            mean: 0.25,
            sd: Some(0.01),
            ci95: Some([0.225, 0.275]),
        };
        assert_eq!(estimate("mbpp.pass_at_1", &e), "25.0% ± 2.5");
        assert_eq!(estimate("valid_loss", &e), "0.2500 ± 0.0250");
        assert_eq!(difference("valid_loss", &e), "+0.2500 ± 0.0250", "of three seeds");
        let enough = Estimate { n: 5, ..e };
        assert_eq!(
            difference("valid_loss", &enough),
            "+0.2500 ± 0.0250 *",
            "0 is not in it"
        );
        let uneven = Estimate {
            mean: 0.0,
            ci95: Some([0.0, 0.037]),
            ..e
        };
        assert_eq!(estimate("mbpp.pass_at_1", &uneven), "0.0% (0.0 to 3.7)");
        let wide = Estimate {
            mean: -0.01,
            ci95: Some([-0.03, 0.01]),
            ..e
        };
        assert_eq!(difference("mbpp.pass_at_1", &wide), "−1.0 points ± 2.0");
        let one = Estimate {
            sd: None,
            ci95: None,
            n: 1,
            ..e
        };
        assert_eq!(estimate("valid_loss", &one), "0.2500");
    }
}
