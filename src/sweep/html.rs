//! The table and its plots as one self-contained HTML file.

use super::{
    Estimate,
    figures::Figures,
    name::shown,
    plots::Plot,
    render::{costs, difference, full_keys, interval, introduction, marked, seeds, signed, title_with_unit, value},
    table::{ArmRow, Status, Table},
};
use std::{collections::BTreeSet, fmt::Write, path::Path};

const STYLE: &str = include_str!("sweep.css");

/// `sweep.html`; links are relative to `dir`.
pub fn page(table: &Table, plots: &[Plot], dir: &Path) -> String {
    let name = escaped(&table.sweep);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sweep {name}</title>\n<style>\n{STYLE}</style>\n<body>\n<h1>Sweep {name}</h1>\n"
    );
    header(&mut out, table);
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
                plot.html,
                escaped(&plot.caption)
            );
        }
        out.push_str("</div>\n");
    }
    arms(&mut out, table, dir);
    out.push_str("</body>\n</html>\n");
    out
}

/// Model, data, device, program and time: a line each, with all values where arms differ.
fn header(out: &mut String, table: &Table) {
    let trained: Vec<_> = table
        .arms
        .iter()
        .filter(|arm| arm.run_dir.is_some())
        .map(|arm| &arm.figures)
        .collect();
    let all = |of: fn(&Figures) -> &str| {
        let values: BTreeSet<&str> = trained
            .iter()
            .map(|figures| of(figures))
            .filter(|v| !v.is_empty())
            .collect();
        values.into_iter().collect::<Vec<_>>().join(", ")
    };
    let started = trained
        .iter()
        .map(|figures| figures.about.started.as_str())
        .filter(|at| !at.is_empty());
    let rows = [
        ("Model", all(|figures| &figures.about.model)),
        ("Data", all(|figures| &figures.about.data)),
        ("Device", all(|figures| &figures.about.device)),
        ("Program (commit)", short_commits(&all(|figures| &figures.program))),
        ("First arm started", started.min().map(minute).unwrap_or_default()),
        ("Page made", minute(&jiff::Timestamp::now().to_string())),
    ];
    out.push_str("<dl>\n");
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value));
    }
    out.push_str("</dl>\n");
}

/// Commit hashes cut to 12 digits.
fn short_commits(text: &str) -> String {
    let hash = |word: &str| word.len() > 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let short = words.map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match hash(bare) {
            true => format!("{}{}", bare.get(..12).unwrap_or(bare), &word[bare.len()..]),
            false => word.to_owned(),
        }
    });
    short.collect()
}

/// A formatted time; unchanged if it is not a time.
fn minute(time: &str) -> String {
    let at: Option<jiff::Timestamp> = time.parse().ok();
    at.map_or(time.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// A link to an arm's report if that is below the page's directory; else the arm's name.
fn arm_link(arm: &ArmRow, dir: &Path) -> String {
    let name = escaped(&arm.run_name);
    let report = arm.run_dir.as_ref().map(|run| run.join(crate::run::file::REPORT_HTML));
    let relative = report.filter(|report| report.is_file());
    let relative = relative.as_deref().and_then(|report| report.strip_prefix(dir).ok());
    match relative.and_then(Path::to_str) {
        Some(path) => format!("<a href=\"{}\">{name}</a>", escaped(&encoded(path))),
        None => name,
    }
}

/// A relative path as a URL: all but unreserved characters are percent-encoded.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let bytes = path.bytes();
    bytes.fold(String::new(), |out, byte| match plain(byte) {
        true => out + char::from(byte).encode_utf8(&mut [0; 4]),
        false => format!("{out}%{byte:02X}"),
    })
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
    out.push_str("<div class=\"wide-table\"><table>\n<thead><tr>");
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
    titles.extend(full_keys(table).iter().map(text));
    titles.push(figure("seeds".into()));
    titles.extend(metric_titles(table));
    titles.extend(["training time", "evaluation time", "tokens/s", "peak memory"].map(|t| figure(t.into())));
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
    titles.extend(metric_titles(table));
    let rows = table.settings.iter().filter(|row| !row.is_baseline).map(|row| {
        let mut cells = vec![text(&row.label)];
        cells.extend(table.shown_metrics().into_iter().map(|m| {
            figure(row.difference.get(m).map_or("–".into(), |e| {
                let better = (e.mean < 0.0) != (m.contains("pass_at_"));
                match (marked(e), better) {
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
    match interval(metric, e) {
        Some(interval) => format!("{} <small>{interval}</small>", value(metric, e.mean)),
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

fn metric_titles(table: &Table) -> impl Iterator<Item = Cell> {
    let shown = table.shown_metrics().into_iter();
    shown.map(|metric| figure(escaped(&title_with_unit(metric))))
}

fn arms(out: &mut String, table: &Table, dir: &Path) {
    out.push_str("<details>\n<summary>Every finished arm</summary>\n");
    let mut titles = vec![text("run"), figure("seed".into())];
    titles.extend(metric_titles(table));
    titles.extend(["skipped steps", "rollbacks"].map(|t| figure(t.into())));
    let rows = table
        .arms
        .iter()
        .filter(|arm| arm.status == Status::Finished)
        .map(|arm| {
            let mut cells = vec![(arm_link(arm, dir), false), figure(arm.seed.to_string())];
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
        let program = "0.1.0 (e403965c82ef3fbe68236a2e8a619f92e89934d1-dirty), 0.1.0 (unknown)";
        assert_eq!(short_commits(program), "0.1.0 (e403965c82ef-dirty), 0.1.0 (unknown)");
        assert_eq!(encoded("a b/\"c\"/é.html"), "a%20b/%22c%22/%C3%A9.html");
    }
}
