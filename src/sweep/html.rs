//! The table and its plots as one self-contained HTML file.

use super::{
    figures::Figures,
    plots::Plot,
    render::introduction,
    table::Table,
    tables::{Cell, Grid, Tables},
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
    let tables = Tables::of(table);
    section(&mut out, "Settings", &tables.settings, dir);
    if let Some(differences) = &tables.differences {
        section(&mut out, &format!("Difference to {}", table.baseline), differences, dir);
    }
    if let Some(open) = &tables.open {
        section(&mut out, "Not finished", open, dir);
    }
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
    out.push_str("<details>\n<summary>Every finished arm</summary>\n");
    grid(&mut out, &tables.arms, dir);
    out.push_str("</details>\n</body>\n</html>\n");
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

/// A cell's text, as a link if its run's report is below the page's directory.
fn linked(cell: &Cell, dir: &Path) -> String {
    let name = escaped(&cell.text);
    let report = cell.report.as_deref().filter(|report| report.is_file());
    let relative = report.and_then(|report| report.strip_prefix(dir).ok());
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

/// A cell's content: its note is smaller.
fn content(cell: &Cell, dir: &Path) -> String {
    let mut html = linked(cell, dir);
    if !cell.note.is_empty() {
        html = format!("{html} <small>{}</small>", escaped(&cell.note));
    }
    match cell.class {
        "" => html,
        class => format!("<span class=\"{class}\">{html}</span>"),
    }
}

fn section(out: &mut String, heading: &str, table: &Grid, dir: &Path) {
    let _ = writeln!(out, "<h2>{}</h2>", escaped(heading));
    grid(out, table, dir);
}

fn grid(out: &mut String, table: &Grid, dir: &Path) {
    let class = |name: &str| match name {
        "" => String::new(),
        name => format!(" class=\"{name}\""),
    };
    let line = |cells: &[Cell], tag: &str| {
        let cell = |cell: &Cell| {
            let number = class(if cell.is_number { "n" } else { "" });
            format!("<{tag}{number}>{}</{tag}>", content(cell, dir))
        };
        cells.iter().map(cell).collect::<String>()
    };
    let _ = write!(
        out,
        "<div class=\"wide-table\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
        line(&table.titles, "th")
    );
    for (kind, cells) in &table.rows {
        let _ = writeln!(out, "<tr{}>{}</tr>", class(kind), line(cells, "td"));
    }
    out.push_str("</tbody>\n</table></div>\n");
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
