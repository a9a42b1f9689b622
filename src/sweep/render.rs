//! The table as Markdown and CSV; `html.rs` has the HTML.

use super::{
    Estimate,
    name::shown,
    table::{Row, Status, Table},
};
use crate::text::duration;
use std::fmt::Write;

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
pub(super) fn title_with_unit(metric: &str) -> String {
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
pub(super) fn value(metric: &str, x: f64) -> String {
    if metric.contains("pass_at_") {
        format!("{:.1}%", 100.0 * x)
    } else {
        format!("{x:.4}")
    }
}

/// A difference, with its sign.
pub(super) fn signed(metric: &str, x: f64) -> String {
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
pub(super) fn interval(metric: &str, e: &Estimate) -> Option<String> {
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
pub(super) fn marked(e: &Estimate) -> bool {
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
pub(super) fn costs(row: &Row) -> [String; 4] {
    let of = |e: Option<Estimate>, text: &dyn Fn(f64) -> String| e.map_or_else(|| "–".into(), |e| text(e.mean));
    [
        of(row.cost.train_seconds, &duration),
        of(row.cost.eval_seconds, &duration),
        of(row.cost.tokens_per_second, &|x| format!("{x:.0}")),
        of(row.cost.peak_memory, &gib),
    ]
}

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
    let mut titles = vec!["".to_owned()];
    titles.extend(full_keys(table));
    titles.push("seeds".into());
    titles.extend(table.shown_metrics().into_iter().map(|m| title_with_unit(m)));
    titles.extend(["training", "evaluation", "tok/s", "peak memory"].map(str::to_owned));
    let rows = table.settings.iter().map(|row| {
        let mut cells = vec![row.rank.map_or_else(|| "–".into(), |rank| rank.to_string())];
        cells.extend(row.values.values().map(shown));
        cells.push(seeds(row, table));
        cells.extend(
            table
                .shown_metrics()
                .into_iter()
                .map(|m| row.metrics.get(m).map_or("–".into(), |e| estimate(m, e))),
        );
        cells.extend(costs(row));
        cells
    });
    grid(&mut out, &titles, rows);
    if table.settings.len() > 1 {
        let _ = writeln!(out, "## Difference to {}\n", table.baseline);
        let titles: Vec<String> = std::iter::once("setting".to_owned())
            .chain(table.shown_metrics().into_iter().map(|m| title_with_unit(m)))
            .collect();
        let rows = table.settings.iter().filter(|row| !row.is_baseline).map(|row| {
            let cells = table
                .shown_metrics()
                .into_iter()
                .map(|m| row.difference.get(m).map_or("–".into(), |e| difference(m, e)));
            std::iter::once(row.label.clone()).chain(cells).collect()
        });
        grid(&mut out, &titles, rows);
    }
    let open: Vec<_> = table.arms.iter().filter(|arm| arm.status != Status::Finished).collect();
    if !open.is_empty() {
        out.push_str("## Not finished\n\n");
        let titles = ["arm", "seed", "status", "reason"].map(str::to_owned);
        let rows = open.into_iter().map(|arm| {
            let reason = arm.reason.clone().unwrap_or_default();
            vec![
                arm.label.clone(),
                arm.seed.to_string(),
                arm.status.name().into(),
                reason,
            ]
        });
        grid(&mut out, &titles, rows);
    }
    out.push_str("## Arms\n\n");
    let mut titles = ["run", "seed"].map(str::to_owned).to_vec();
    titles.extend(table.shown_metrics().into_iter().map(|m| title_with_unit(m)));
    titles.extend(["skipped steps", "rollbacks"].map(str::to_owned));
    let rows = table
        .arms
        .iter()
        .filter(|arm| arm.status == Status::Finished)
        .map(|arm| {
            let mut cells = vec![arm.run_name.clone(), arm.seed.to_string()];
            cells.extend(
                table
                    .shown_metrics()
                    .into_iter()
                    .map(|m| arm.figures.results.get(m).map_or("–".into(), |x| value(m, *x))),
            );
            cells.extend([arm.figures.skipped.to_string(), arm.figures.rollbacks.to_string()]);
            cells
        });
    grid(&mut out, &titles, rows);
    out
}

/// `3`, or `2 of 3`.
pub(super) fn seeds(row: &Row, table: &Table) -> String {
    match (row.seeds.len(), table.seeds.len()) {
        (n, all) if n == all => n.to_string(),
        (n, all) => format!("{n} of {all}"),
    }
}

fn grid(out: &mut String, titles: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    out.push_str(&line(titles));
    out.push_str(&format!("|{}\n", "---|".repeat(titles.len())));
    for row in rows {
        out.push_str(&line(&row));
    }
    out.push('\n');
}

/// `sweep.csv`: one line per setting.
pub fn settings_csv(table: &Table) -> String {
    let mut titles = vec!["rank".to_owned()];
    titles.extend(
        table
            .settings
            .first()
            .into_iter()
            .flat_map(|row| row.values.keys().cloned()),
    );
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
    titles.extend(
        table
            .settings
            .first()
            .into_iter()
            .flat_map(|row| row.values.keys().cloned()),
    );
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

    #[test]
    fn cells_of_csv_and_markdown_keep_to_themselves() {
        let text = csv(
            &["a".into(), "b".into()],
            [vec!["1,5".into(), "say \"x\"".into()]].into_iter(),
        );
        assert_eq!(text, "a,b\n\"1,5\",\"say \"\"x\"\"\"\n");
        let mut out = String::new();
        grid(&mut out, &["a".into()], [vec!["x|y\nz".into()]].into_iter());
        assert_eq!(out, "| a |\n|---|\n| x\\|y z |\n\n");
    }
}
