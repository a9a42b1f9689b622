//! The table as Markdown and CSV; `html.rs` has the HTML.

use super::{
    Estimate,
    name::shown,
    table::{Status, Table},
    tables::{Cell, Grid, MARKED_FROM, Tables, difference, estimate, full_keys, seeds, title},
};
use std::fmt::Write;

/// The text before the table.
pub(super) fn introduction(table: &Table) -> Vec<String> {
    let arms = table.arms.len();
    let mut lines = vec![format!(
        "{} settings with {}: {arms} arms, {} finished, {} failed, {} unfinished, {} missing. Sorted by {}, {} first; compared with **{}**.",
        table.settings.len(),
        match table.seeds.len() {
            1 => "one seed".to_owned(),
            n => format!("{n} seeds"),
        },
        table.count(Status::Finished),
        table.count(Status::Failed),
        table.count(Status::Unfinished),
        table.count(Status::Missing),
        title(&table.rank_by),
        if table.higher_is_better { "highest" } else { "lowest" },
        table.baseline,
    )];
    if table.seeds.len() == 1 {
        lines.push("One seed: there is no interval, and a difference may be chance.".into());
    } else {
        lines.push(
            "Figures are means over the finished seeds ± half of a 95% t-interval (a pass@k that is equal for all seeds has Wilson's interval over the problems); differences are paired by seed. Nothing corrects for comparing many settings.".into(),
        );
        lines.push(if table.seeds.len() < MARKED_FROM {
            format!(
                "Differences of fewer than {MARKED_FROM} seeds are not marked: their intervals rest on very few values."
            )
        } else {
            "A star marks a difference whose interval does not hold 0.".into()
        });
    }
    let programs = table.programs();
    if programs.len() > 1 {
        let all = programs.into_iter().collect::<Vec<_>>().join(", ");
        lines.push(format!("The arms were trained by different programs: {all}."));
    }
    lines
}

/// The table for a terminal: settings, the figure they are sorted by, and its difference.
pub fn summary(table: &Table) -> String {
    let mut lines = vec![[
        String::new(),
        "setting".to_owned(),
        "seeds".to_owned(),
        title(&table.rank_by),
        format!("difference to {}", table.baseline),
    ]];
    lines.extend(table.settings.iter().map(|row| {
        let of = |map: &std::collections::BTreeMap<String, Estimate>, text: &dyn Fn(&str, &Estimate) -> String| {
            map.get(&table.rank_by)
                .map_or_else(String::new, |e| text(&table.rank_by, e))
        };
        [
            row.rank.map_or_else(|| "–".into(), |rank| rank.to_string()),
            row.label.clone(),
            seeds(row, table),
            of(&row.metrics, &estimate),
            of(&row.difference, &difference),
        ]
    }));
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|l| l.get(column))
            .map(|c| c.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..5).map(|column| width(column).unwrap_or(0)).collect();
    lines.iter().fold(String::new(), |out, line| {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        out + cells.join("  ").trim_end() + "\n"
    })
}

/// `sweep.md`.
pub fn markdown(table: &Table) -> String {
    let mut out = format!("# Sweep {}\n\n", table.sweep);
    for line in introduction(table) {
        let _ = writeln!(out, "{line}\n");
    }
    let tables = Tables::of(table);
    let sections = tables.sections(&table.baseline);
    for (heading, table) in sections.into_iter().chain([("Arms".into(), &tables.arms)]) {
        let _ = writeln!(out, "## {heading}\n");
        grid(&mut out, table);
    }
    out
}

fn grid(out: &mut String, grid: &Grid) {
    let line = |cells: &[Cell]| {
        let cells = cells.iter().map(|cell| {
            let text = [cell.text.as_str(), &cell.note].join(" ");
            text.trim().replace('|', "\\|").replace('\n', " ")
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    out.push_str(&line(&grid.titles));
    out.push_str(&format!("|{}\n", "---|".repeat(grid.titles.len())));
    for (_, row) in &grid.rows {
        out.push_str(&line(row));
    }
    out.push('\n');
}

/// `sweep.csv`: one line per setting.
pub fn settings_csv(table: &Table) -> String {
    let mut titles = vec!["rank".to_owned()];
    titles.extend(full_keys(table));
    titles.extend(["baseline", "seeds"].map(str::to_owned));
    for metric in &table.metrics {
        for part in [
            "mean",
            "sd",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
        ] {
            titles.push(format!("{metric}_{part}"));
        }
    }
    titles.extend(
        [
            "train_seconds",
            "eval_seconds",
            "tokens_per_second",
            "peak_memory_bytes",
        ]
        .map(str::to_owned),
    );
    let rows = table.settings.iter().map(|row| {
        let mut cells = vec![row.rank.map_or_else(String::new, |rank| rank.to_string())];
        cells.extend(row.values.values().map(shown));
        cells.extend([row.is_baseline.to_string(), row.seeds.len().to_string()]);
        for metric in &table.metrics {
            let (e, d) = (row.metrics.get(metric), row.difference.get(metric));
            let bound = |e: Option<&Estimate>, n: usize| e.and_then(|e| e.ci95?.get(n).copied());
            let parts = [
                e.map(|e| e.mean),
                e.and_then(|e| e.sd),
                bound(e, 0),
                bound(e, 1),
                d.map(|d| d.mean),
                bound(d, 0),
                bound(d, 1),
            ];
            cells.extend(parts.map(number));
        }
        let cost = &row.cost;
        let costs = [
            cost.train_seconds,
            cost.eval_seconds,
            cost.tokens_per_second,
            cost.peak_memory,
        ];
        cells.extend(costs.map(|e| number(e.map(|e| e.mean))));
        cells
    });
    csv(&titles, rows)
}

/// `arms.csv`: one line per arm.
pub fn arms_csv(table: &Table) -> String {
    let mut titles = vec!["run".to_owned()];
    titles.extend(full_keys(table));
    titles.extend(["seed", "status"].map(str::to_owned));
    titles.extend(table.metrics.iter().cloned());
    titles.extend(
        [
            "train_seconds",
            "eval_seconds",
            "tokens_per_second",
            "peak_memory_bytes",
            "reason",
        ]
        .map(str::to_owned),
    );
    let rows = table.arms.iter().map(|arm| {
        let of_setting = table.settings.iter().find(|row| row.label == arm.label);
        let mut cells = vec![arm.run_name.clone()];
        cells.extend(of_setting.into_iter().flat_map(|row| row.values.values().map(shown)));
        cells.extend([arm.seed.to_string(), arm.status.name().to_owned()]);
        cells.extend(
            table
                .metrics
                .iter()
                .map(|m| number(arm.figures.results.get(m).copied())),
        );
        let cost = &arm.figures.cost;
        let costs = [
            cost.train_seconds,
            cost.eval_seconds,
            cost.tokens_per_second,
            cost.peak_memory,
        ];
        cells.extend(costs.map(number));
        cells.push(arm.reason.clone().unwrap_or_default());
        cells
    });
    csv(&titles, rows)
}

/// With all digits; empty if absent.
fn number(x: Option<f64>) -> String {
    x.map_or_else(String::new, |x| x.to_string())
}

/// RFC 4180.
fn csv(titles: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cell = |text: &String| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.clone()
        }
    };
    let line = |cells: &[String]| cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n";
    rows.fold(line(titles), |out, row| out + &line(&row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_csv_and_markdown_keep_to_themselves() {
        let text = csv(
            &["a".into(), "b".into()],
            [vec!["1,5".into(), "say \"x\"".into()]].into_iter(),
        );
        assert_eq!(text, "a,b\n\"1,5\",\"say \"\"x\"\"\"\n");
        let mut out = String::new();
        let table = Grid {
            titles: vec![Cell::text("a")],
            rows: vec![("", vec![Cell::text("x|y\nz")])],
        };
        grid(&mut out, &table);
        assert_eq!(out, "| a |\n|---|\n| x\\|y z |\n\n");
    }
}
