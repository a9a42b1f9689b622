//! The table's plots: differences to the baseline, figures over a varied number, losses over steps, cost.

use super::{
    SweepError,
    name::shown,
    table::{Row, Status, Table},
    tables::{difference, full_keys, gib, title},
};
use crate::{
    report::plot::{Bar, BarChart, Chart, LineChart, Mark, PlotError, Scale, Series},
    text::duration,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Maximum number of curves in one plot.
const CURVES: usize = 8;

/// A chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// Its file's name without `.svg`.
    pub name: String,
    /// Its caption.
    pub caption: String,
    /// The chart as a file of its own.
    pub svg: String,
    /// The chart as a part of a page.
    pub html: String,
}

fn plot(name: String, caption: String, chart: &impl Chart) -> Result<Plot, SweepError> {
    let drawn = |made: Result<String, PlotError>| made.map_err(|e| SweepError::Other(e.to_string()));
    let (svg, html) = (drawn(chart.svg())?, drawn(chart.html())?);
    Ok(Plot {
        name,
        caption,
        svg,
        html,
    })
}

/// All plots of a table.
///
/// # Errors
/// The drawing library's.
pub fn plots(table: &Table) -> Result<Vec<Plot>, SweepError> {
    let mut plots = Vec::new();
    for metric in shown_metrics(table) {
        if let Some(chart) = differences(table, metric) {
            let caption = format!(
                "{} minus that of {}, paired by seed, with 95% t-intervals.",
                title(metric),
                table.baseline
            );
            plots.push(plot(
                format!("difference-{}", metric.replace('.', "-")),
                caption,
                &chart,
            )?);
        }
        for (key, chart) in over_numbers(table, metric) {
            let name = format!("{}-by-{}", metric.replace('.', "-"), key.replace('.', "-"));
            let caption = "Dots are means over seeds; pale lines are single seeds.";
            plots.push(plot(name, caption.into(), &chart)?);
        }
    }
    for (name, what, curve) in [
        ("valid-loss", "Validation loss over steps", valid_curve as Curve),
        (
            "train-ce",
            "Training cross-entropy of head 1 over steps",
            train_curve as Curve,
        ),
    ] {
        if let Some(chart) = curves(table, what, curve) {
            let caption = format!("Means over the finished seeds{}.", limited(table));
            plots.push(plot(name.into(), caption, &chart)?);
        }
    }
    for (name, chart) in costs(table) {
        let caption = match name.as_str() {
            "time" => "Means over seeds. Arms that share a machine are slower than alone.",
            _ => "Means over seeds of the training process's peak resident set size.",
        };
        plots.push(plot(name, caption.into(), &chart)?);
    }
    Ok(plots)
}

fn limited(table: &Table) -> String {
    if table.settings.len() > CURVES {
        format!(", of the {CURVES} best settings and the baseline")
    } else {
        String::new()
    }
}

/// The ranking figure, and every pass@k.
fn shown_metrics(table: &Table) -> Vec<&str> {
    let wanted = |m: &&String| **m == table.rank_by || *m == "valid_loss" || m.contains("pass_at_");
    table.metrics.iter().filter(wanted).map(String::as_str).collect()
}

fn differences(table: &Table, metric: &str) -> Option<BarChart> {
    // In percentage points for pass@k, as the bar's label.
    let scale = if metric.contains("pass_at_") { 100.0 } else { 1.0 };
    let bars: Vec<Bar> = table
        .settings
        .iter()
        .filter_map(|row| {
            let e = row.difference.get(metric)?;
            Some(Bar {
                label: row.label.clone(),
                series: 0,
                value: scale * e.mean,
                interval: e.ci95.map(|ends| ends.map(|end| scale * end)),
                shown: difference(metric, e),
            })
        })
        .collect();
    bars.iter().any(|bar| bar.value != 0.0).then(|| BarChart {
        title: format!("{}: difference to {}", title(metric), table.baseline),
        unit: if metric.contains("pass_at_") {
            "percentage points"
        } else {
            "nats"
        }
        .into(),
        series: Vec::new(),
        bars,
        includes: None,
    })
}

/// For every varied key with three or more numbers: a line for each combination of the other keys.
fn over_numbers(table: &Table, metric: &str) -> Vec<(String, LineChart)> {
    let scale = if metric.contains("pass_at_") { 100.0 } else { 1.0 };
    let keys = table.keys.iter().enumerate();
    let full = full_keys(table);
    keys.filter_map(|(n, key)| {
        let of = |row: &Row| row.values.values().nth(n).and_then(Value::as_f64);
        let mut xs: Vec<f64> = table.settings.iter().filter_map(of).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        // If the other keys are drawn at random, each line would be a point.
        if xs.len() < 3 {
            return None;
        }
        let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
        for row in &table.settings {
            let name = others(table, row, n);
            match groups.iter_mut().find(|(other, _)| *other == name) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((name, vec![row])),
            }
        }
        groups.retain(|(_, rows)| rows.len() > 1);
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        if groups.is_empty() || groups.len() > CURVES {
            return None;
        }
        let mut series = Vec::new();
        for (color, (name, rows)) in groups.iter().enumerate() {
            let value_of = |row: &Row, seed: Option<u64>| {
                let arms = table.arms.iter().filter(|arm| {
                    arm.label == row.label && arm.status == Status::Finished && seed.is_none_or(|s| s == arm.seed)
                });
                let values: Vec<f64> = arms.filter_map(|a| a.figures.results.get(metric).copied()).collect();
                (!values.is_empty()).then(|| scale * values.iter().sum::<f64>() / values.len() as f64)
            };
            let line = |seed| {
                let point = |row: &&Row| Some((of(row)?, value_of(row, seed)?));
                let mut points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                points
            };
            if groups.len() == 1 && table.seeds.len() > 1 {
                let faint = |&seed: &u64| Series::new("", line(Some(seed))).marked(Mark::Faint).colored(color);
                series.extend(table.seeds.iter().map(faint));
            }
            series.push(Series::new(name.clone(), line(None)).marked(Mark::Dots).colored(color));
        }
        let ys: Vec<f64> = series.iter().flat_map(|s| &s.points).map(|(_, y)| *y).collect();
        if !vary(&ys) {
            return None;
        }
        let wide = matches!((xs.first(), xs.last()), (Some(low), Some(high)) if *low > 0.0 && *high > low * 20.0);
        let full = full.get(n).unwrap_or(key);
        let chart = LineChart {
            title: format!("{} by {full}", title(metric)),
            unit: if metric.contains("pass_at_") { "%" } else { "nats" }.into(),
            x_label: full.clone(),
            series,
            x_scale: if wide { Scale::Log } else { Scale::Linear },
            ..LineChart::default()
        };
        Some((key.clone(), chart))
    })
    .collect()
}

/// Values of all varied keys but the n-th, for display.
fn others(table: &Table, row: &Row, n: usize) -> String {
    let pairs = table
        .keys
        .iter()
        .zip(row.values.values())
        .enumerate()
        .filter(|(i, _)| *i != n);
    let parts: Vec<String> = pairs
        .map(|(_, (key, value))| format!("{key} = {}", shown(value)))
        .collect();
    parts.join(", ")
}

/// Whether the chart has anything to show.
fn vary(values: &[f64]) -> bool {
    values
        .first()
        .is_some_and(|first| values.iter().any(|value| value != first))
}

type Curve = fn(&super::figures::Figures) -> &Vec<(usize, f64)>;

fn valid_curve(figures: &super::figures::Figures) -> &Vec<(usize, f64)> {
    &figures.valid_curve
}

fn train_curve(figures: &super::figures::Figures) -> &Vec<(usize, f64)> {
    &figures.train_curve
}

/// One line per setting; None if no arm has two points.
fn curves(table: &Table, what: &str, curve: Curve) -> Option<LineChart> {
    let rows = table.settings.iter().enumerate();
    let shown = rows.filter(|(n, row)| *n < CURVES || row.is_baseline);
    let series: Vec<Series> = shown
        .map(|(_, row)| {
            let arms: Vec<_> = table
                .arms
                .iter()
                .filter(|arm| arm.label == row.label && arm.status == Status::Finished)
                .map(|arm| curve(&arm.figures))
                .collect();
            Series::new(row.label.clone(), mean_curve(&arms))
        })
        .collect();
    series.iter().any(|s| s.points.len() > 1).then(|| LineChart {
        title: what.into(),
        unit: "nats".into(),
        x_label: "step".into(),
        series,
        ..LineChart::default()
    })
}

/// At every step that all curves have.
fn mean_curve(curves: &[&Vec<(usize, f64)>]) -> Vec<(f64, f64)> {
    let mut sums: BTreeMap<usize, (usize, f64)> = BTreeMap::new();
    for (step, y) in curves.iter().copied().flatten() {
        let (n, sum) = sums.entry(*step).or_default();
        *n += 1;
        *sum += y;
    }
    let of_all = sums.into_iter().filter(|(_, (n, _))| *n == curves.len());
    of_all.map(|(step, (n, sum))| (step as f64, sum / n as f64)).collect()
}

fn costs(table: &Table) -> Vec<(String, BarChart)> {
    let chart = |name: &str, title: &str, unit: &str, of: &dyn Fn(&Row) -> Option<(f64, String)>| {
        let bars: Vec<Bar> = table
            .settings
            .iter()
            .filter_map(|row| {
                let (value, shown) = of(row)?;
                Some(Bar {
                    label: row.label.clone(),
                    value,
                    shown,
                    ..Bar::default()
                })
            })
            .collect();
        (!bars.is_empty()).then(|| {
            let chart = BarChart {
                title: title.into(),
                unit: unit.into(),
                series: Vec::new(),
                bars,
                includes: None,
            };
            (name.to_owned(), chart)
        })
    };
    [
        chart("time", "Training time", "seconds", &|row| {
            row.cost.train_seconds.map(|e| (e.mean, duration(e.mean)))
        }),
        chart("memory", "Peak memory of training", "GiB", &|row| {
            row.cost.peak_memory.map(|e| (e.mean / f64::from(1 << 30), gib(e.mean)))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_all_alike_are_nothing_to_see() {
        assert!(!vary(&[]) && !vary(&[0.0, 0.0]) && vary(&[0.0, 1.0]));
    }

    #[test]
    fn a_mean_curve_has_the_steps_that_all_have() {
        let (a, b) = (vec![(1, 2.0), (2, 4.0), (3, 6.0)], vec![(1, 4.0), (3, 8.0)]);
        assert_eq!(mean_curve(&[&a, &b]), [(1.0, 3.0), (3.0, 7.0)]);
        assert_eq!(mean_curve(&[]), []);
    }
}
