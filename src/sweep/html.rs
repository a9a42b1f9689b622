//! The table and its plots as one self-contained HTML file.

use super::{SweepError, figures::Figures, plots::Plot, render::introduction, table::Table, tables::Tables};
use minijinja::{Environment, Value, context};
use std::{collections::BTreeSet, path::Path};

/// `sweep.html`; links are relative to `dir`.
///
/// # Errors
/// A template that can't be rendered.
pub fn page(table: &Table, plots: &[Plot], dir: &Path) -> Result<String, SweepError> {
    let tables = Tables::of(table);
    let context = context! {
        name => table.sweep,
        style => include_str!("sweep.css"),
        header => header(table),
        introduction => introduction(table),
        tables => tables.sections(&table.baseline),
        arms => tables.arms,
        plots,
    };
    render(context, dir).map_err(|e| SweepError::Other(format!("the sweep's page can't be made: {e:#}")))
}

/// What users write is escaped.
fn render(context: Value, dir: &Path) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    let dir = dir.to_owned();
    env.add_filter("link", move |report: String| relative(Path::new(&report), &dir));
    env.add_template("sweep.html", include_str!("sweep.html"))?;
    env.get_template("sweep.html")?.render(context)
}

/// Model, data, device, program and time: a line each, with all values where arms differ.
fn header(table: &Table) -> [(&'static str, String); 6] {
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
    [
        ("Model", all(|figures| &figures.about.model)),
        ("Data", all(|figures| &figures.about.data)),
        ("Device", all(|figures| &figures.about.device)),
        ("Program (commit)", short_commits(&all(|figures| &figures.program))),
        ("First arm started", started.min().map(minute).unwrap_or_default()),
        ("Page made", minute(&crate::clock::now().to_string())),
    ]
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

/// The URL of a report that is below the page's directory; none for others.
fn relative(report: &Path, dir: &Path) -> Value {
    let path = report.strip_prefix(dir).ok().filter(|_| report.is_file());
    let url = path.and_then(Path::to_str).map(encoded);
    url.map_or(Value::from(()), Value::from_safe_string)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_never_markup() {
        let cells = |text: &str| context! { titles => [context! { text }], rows => Vec::<Value>::new() };
        let context = context! {
            name => "<a href=\"x\">&",
            introduction => ["is **<b>**"],
            tables => [("<h2>", cells("<i>"))],
            arms => cells("run"),
        };
        let page = render(context, Path::new("")).unwrap();
        for escaped in [
            "<h1>Sweep &lt;a href=&quot;x&quot;&gt;&amp;</h1>",
            "<p>is <b>&lt;b&gt;</b></p>",
            "<h2>&lt;h2&gt;</h2>",
            "<th>&lt;i&gt;</th>",
            "<th>run</th>",
        ] {
            assert!(page.contains(escaped), "{escaped}: {page}");
        }
        let program = "0.1.0 (e403965c82ef3fbe68236a2e8a619f92e89934d1-dirty), 0.1.0 (unknown)";
        assert_eq!(short_commits(program), "0.1.0 (e403965c82ef-dirty), 0.1.0 (unknown)");
        assert_eq!(encoded("a b/\"c\"/é.html"), "a%20b/%22c%22/%C3%A9.html");
    }
}
