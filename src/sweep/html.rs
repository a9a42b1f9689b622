//! The table and its plots as one HTML file that asks nothing of the network.

use super::{
    name::shown,
    plots::Plot,
    render::{costs, difference, introduction, seeds, signed, title, value},
    statistics::Estimate,
    table::{Status, Table},
};
use std::fmt::Write;

const STYLE: &str = include_str!("sweep.css");

/// `sweep.html`.
pub fn page(table: &Table, plots: &[Plot]) -> String {
    let name = escaped(&table.sweep);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Sweep {name}</title>\n<style>\n{STYLE}</style>\n<body>\n<h1>Sweep {name}</h1>\n"
    );
    for line in introduction(table) {
        let _ = writeln!(out, "<p>{}</p>", bold(&escaped(&line)));
    }
    settings(&mut out, table);
    if table.settings.len() > 1 {
        differences(&mut out, table);
    }
    open_arms(&mut out, table);
    if !plots.is_empty() {
        out.push_str("<h2>Plots</h2>\n<div class=\"plots\">\n");
        for plot in plots {
            let _ = writeln!(
                out,
                "<figure>\n{}\n<figcaption>{}</figcaption>\n</figure>",
                plot.svg,
                escaped(&plot.caption)
            );
        }
        out.push_str("</div>\n");
    }
    arms(&mut out, table);
    out.push_str("</body>\n</html>\n");
    out
}

/// A cell: its text, and whether it is a number.
type Cell = (String, bool);

fn text(text: impl AsRef<str>) -> Cell {
    (escaped(text.as_ref()), false)
}

fn figure(html: String) -> Cell {
    (html, true)
}

fn grid(out: &mut String, titles: &[Cell], rows: impl Iterator<Item = (&'static str, Vec<Cell>)>) {
    let class = |number: bool| if number { " class=\"n\"" } else { "" };
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for (title, number) in titles {
        let _ = write!(out, "<th{}>{title}</th>", class(*number));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (kind, cells) in rows {
        let _ = write!(
            out,
            "<tr{}>",
            if kind.is_empty() {
                String::new()
            } else {
                format!(" class=\"{kind}\"")
            }
        );
        for (cell, number) in cells {
            let _ = write!(out, "<td{}>{cell}</td>", class(number));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn settings(out: &mut String, table: &Table) {
    out.push_str("<h2>Settings</h2>\n");
    let mut titles = vec![figure(String::new())];
    titles.extend(table.keys.iter().map(text));
    titles.push(figure("seeds".into()));
    titles.extend(table.shown_metrics().into_iter().map(|m| figure(escaped(&title(m)))));
    titles.extend(["training", "evaluation", "tok/s", "peak memory"].map(|t| figure(t.into())));
    let rows = table.settings.iter().map(|row| {
        let mut cells = vec![figure(row.rank.map_or_else(|| "–".into(), |rank| rank.to_string()))];
        cells.extend(row.values.values().map(|value| text(shown(value))));
        cells.push(figure(seeds(row, table)));
        cells.extend(
            table
                .shown_metrics()
                .into_iter()
                .map(|m| figure(row.metrics.get(m).map_or("–".into(), |e| mean(m, e)))),
        );
        cells.extend(costs(row).map(|cost| figure(escaped(&cost))));
        (if row.is_baseline { "baseline" } else { "" }, cells)
    });
    grid(out, &titles, rows);
}

fn differences(out: &mut String, table: &Table) {
    let _ = writeln!(out, "<h2>Difference to {}</h2>", escaped(&table.baseline));
    let mut titles = vec![text("setting")];
    titles.extend(table.shown_metrics().into_iter().map(|m| figure(escaped(&title(m)))));
    let rows = table.settings.iter().filter(|row| !row.is_baseline).map(|row| {
        let mut cells = vec![text(&row.label)];
        cells.extend(table.shown_metrics().into_iter().map(|m| {
            figure(row.difference.get(m).map_or("–".into(), |e| {
                let better = (e.mean < 0.0) != (m.contains("pass_at_"));
                let sure = e.ci95.is_some_and(|[low, high]| low > 0.0 || high < 0.0);
                match (sure, better) {
                    (true, true) => format!("<span class=\"better\">{}</span>", spread(m, e)),
                    (true, false) => format!("<span class=\"worse\">{}</span>", spread(m, e)),
                    (false, _) => spread(m, e),
                }
            }))
        }));
        ("", cells)
    });
    grid(out, &titles, rows);
}

/// `6.5321 ±0.0123`, the second part smaller.
fn mean(metric: &str, e: &Estimate) -> String {
    match e.ci95 {
        Some([low, high]) => format!(
            "{} <small>±{}</small>",
            value(metric, e.mean),
            value(metric, 0.5 * (high - low)).trim_end_matches('%')
        ),
        None => value(metric, e.mean),
    }
}

fn spread(metric: &str, e: &Estimate) -> String {
    let whole = difference(metric, e);
    let first = signed(metric, e.mean);
    match whole.strip_prefix(&first).filter(|rest| !rest.is_empty()) {
        Some(rest) => format!("{first} <small>{}</small>", escaped(rest.trim_start())),
        None => first,
    }
}

fn open_arms(out: &mut String, table: &Table) {
    let open: Vec<_> = table.arms.iter().filter(|arm| arm.status != Status::Finished).collect();
    if open.is_empty() {
        return;
    }
    out.push_str("<h2>Not finished</h2>\n");
    let titles = ["setting", "seed", "status", "reason"].map(text);
    let rows = open.into_iter().map(|arm| {
        let reason = arm.reason.clone().unwrap_or_default();
        let cells = vec![
            text(&arm.label),
            figure(arm.seed.to_string()),
            text(arm.status.name()),
            text(reason),
        ];
        (arm.status.name(), cells)
    });
    grid(out, &titles, rows);
}

fn arms(out: &mut String, table: &Table) {
    out.push_str("<details>\n<summary>Every finished arm</summary>\n");
    let mut titles = vec![text("run"), figure("seed".into())];
    titles.extend(table.shown_metrics().into_iter().map(|m| figure(escaped(&title(m)))));
    titles.extend(["skipped steps", "rollbacks"].map(|t| figure(t.into())));
    let rows = table
        .arms
        .iter()
        .filter(|arm| arm.status == Status::Finished)
        .map(|arm| {
            let mut cells = vec![text(&arm.run_name), figure(arm.seed.to_string())];
            cells.extend(
                table
                    .shown_metrics()
                    .into_iter()
                    .map(|m| figure(arm.figures.results.get(m).map_or("–".into(), |x| value(m, *x)))),
            );
            cells.extend([arm.figures.skipped, arm.figures.rollbacks].map(|n| figure(n.to_string())));
            ("", cells)
        });
    grid(out, &titles, rows);
    out.push_str("</details>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// `**x**` of the introduction.
fn bold(html: &str) -> String {
    let parts = html.split("**").enumerate();
    parts
        .map(|(n, part)| {
            if n % 2 == 1 {
                format!("<b>{part}</b>")
            } else {
                part.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_never_markup() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        assert_eq!(bold(&escaped("is **<b>**")), "is <b>&lt;b&gt;</b>");
    }
}
