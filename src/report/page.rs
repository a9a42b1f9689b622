//! The report of one run: its content, and its pages.

use super::{
    ReportError, evaluation, figures,
    findings::{Finding, findings},
    plot::PlotError,
    run::{Run, visible},
    samples::{self, Sample},
    settings::{self, Setting},
    summary::{self, CurveRow, final_figures},
};
use crate::run::EventLine;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;
use serde_json::Value;

/// A report as text.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `report.md`.
    pub markdown: String,
    /// `report.html`.
    pub html: String,
}

/// A label with its value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub label: String,
    pub value: String,
}

impl Pair {
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
        }
    }
}

/// An event as it is shown.
#[derive(Clone, Debug, Serialize)]
struct Event {
    time: String,
    step: usize,
    event: String,
    reason: String,
}

/// Events that are not shown: they report normal operation.
const ROUTINE: [&str; 1] = ["checkpoint"];

/// The report of one run.
///
/// # Errors
/// Errors of the drawing library or the template; a run's content causes none.
pub fn pages(run: &Run) -> Result<Pages, ReportError> {
    let failed = |problem: String| ReportError::Page {
        dir: run.dir.clone(),
        problem,
    };
    let drawn = |error: PlotError| failed(error.to_string());
    let charts = figures::of_run(run).map_err(drawn)?;
    let weights = figures::weights(run).map_err(drawn)?;
    let scores = vec![(run.name(), evaluation::pass_at_1(run))];
    let passes = evaluation::chart(&scores).map_err(drawn)?;
    let samples: Vec<Sample> = samples::samples(run);
    let all_settings: Vec<Setting> = settings::settings(run);
    let changed: Vec<&Setting> = all_settings.iter().filter(|setting| setting.changed).collect();
    let (routine, told): (Vec<&EventLine>, Vec<&EventLine>) = run
        .events
        .iter()
        .partition(|event| ROUTINE.contains(&event.event.as_ref()));
    let curves: Vec<CurveRow> = summary::curves(run);
    let found: Vec<Finding> = findings(run).into_iter().map(clean).collect();
    let stage = evaluation::value_stage(run);
    let stage: Vec<Pair> = stage
        .into_iter()
        .map(|(label, value)| Pair::new(label, value))
        .collect();
    let context = context! {
        name => run.name(),
        state => state(run),
        header => header(run),
        tiles => tiles(run),
        findings => found,
        problems => run.problems.iter().map(|problem| visible(problem)).collect::<Vec<_>>(),
        charts,
        weights,
        curves,
        samples,
        legend => samples::legend(),
        recorded => run.recipe.get("train.record.documents") != Some(&Value::from(0)),
        evaluations => evaluation::rows(run),
        passes,
        value_stage => stage,
        events => told.into_iter().map(event).collect::<Vec<_>>(),
        routine => routine.len(),
        changed,
        settings => &all_settings,
        environment => environment(run),
        version => env!("CARGO_PKG_VERSION"),
        made => crate::clock::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
    };
    Ok(Pages {
        html: render("report.html", &context).map_err(failed)?,
        markdown: render("report.md", &context).map_err(failed)?,
    })
}

/// Renders one of the templates; those whose name ends in `.html` escape their values.
pub(super) fn render(name: &str, context: &minijinja::Value) -> Result<String, String> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|name| {
        if name.ends_with(".html") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    env.add_filter("cell", |text: String| markdown(&text, true));
    env.add_filter("line", |text: String| markdown(&text, false));
    env.add_filter("code", |text: String| code(&text));
    env.add_filter("prose", |text: String| minijinja::Value::from_safe_string(prose(&text)));
    let templates = [
        ("card.md", include_str!("templates/card.md")),
        ("style.css", include_str!("templates/style.css")),
        ("macros.html", include_str!("templates/macros.html")),
        ("report.html", include_str!("templates/report.html")),
        ("report.md", include_str!("templates/report.md")),
        ("compare.html", include_str!("templates/compare.html")),
        ("compare.md", include_str!("templates/compare.md")),
    ];
    for (name, text) in templates {
        env.add_template(name, text).map_err(|e| format!("{e:#}"))?;
    }
    let template = env.get_template(name).map_err(|e| format!("{e:#}"))?;
    template.render(context).map_err(|e| format!("{e:#}"))
}

/// A text inside of a Markdown table's cell or paragraph, on one line: no markup of its own but code in
/// backticks, where that can hold no markup. `table`: a bar would end the cell.
fn markdown(text: &str, table: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let parts: Vec<&str> = text.split('`').collect();
    // Several backticks in a row are a fence: there all are escaped.
    let single = parts.len() % 2 == 1 && !text.contains("``");
    for (i, part) in parts.iter().enumerate() {
        let code = single && i % 2 == 1 && is_code(part);
        if code {
            out.push('`');
            out.push_str(part);
            out.push('`');
            continue;
        }
        let marks = if i % 2 == 1 { "\\`" } else { "" };
        let closed = if i + 1 < parts.len() { marks } else { "" };
        out.push_str(marks);
        for c in part.chars() {
            match c {
                '\n' => out.push(' '),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                '|' if !table => out.push('|'),
                '|' | '*' | '_' | '[' | ']' | '\\' | '~' | '#' => {
                    out.push('\\');
                    out.push(c);
                }
                c => out.push(c),
            }
        }
        out.push_str(closed);
    }
    out
}

/// Whether a text between backticks can be shown as code: nothing in it is markup.
fn is_code(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_.-:/=, @+[]{}()'\"*\u{2026}".contains(c);
    !text.trim().is_empty() && text.trim() == text && text.chars().all(plain)
}

/// A sentence as HTML, with text between backticks as code.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let parts: Vec<&str> = text.split('`').collect();
    for (i, part) in parts.iter().enumerate() {
        // An unpaired last backtick is literal.
        let (before, after) = match (i % 2, i + 1 < parts.len()) {
            (1, true) => ("<code>", "</code>"),
            (1, false) => ("`", ""),
            _ => ("", ""),
        };
        out.push_str(before);
        for c in part.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#x27;"),
                c => out.push(c),
            }
        }
        out.push_str(after);
    }
    out
}

/// A text as a Markdown block of code, in a fence that the text does not hold.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{text}\n{fence}")
}

fn clean(finding: Finding) -> Finding {
    Finding {
        seen: visible(&finding.seen),
        next: visible(&finding.next),
        ..finding
    }
}

pub(super) fn state(run: &Run) -> &'static str {
    if run.evaluation {
        return "evaluated";
    }
    let stopped = run
        .events
        .iter()
        .rev()
        .find(|event| ["failed", "interrupted"].contains(&event.event.as_ref()));
    match (run.finished(), stopped.map(|event| event.event.as_ref())) {
        (true, _) => "finished",
        (false, Some("failed")) => "failed",
        (false, Some(_)) => "interrupted",
        (false, None) => "not finished",
    }
}

fn header(run: &Run) -> Vec<Pair> {
    let text = |key: &str| run.text(key).unwrap_or_else(|| "–".into());
    let last = run.events.last().map(|event| event.time);
    let mut rows = vec![
        Pair::new("Pipeline", text("algorithm")),
        Pair::new("Model", text("model")),
        Pair::new("Data", text("data")),
        Pair::new("Started", started(run)),
        Pair::new("Last event", last.map_or("–".into(), time)),
        Pair::new("Directory", visible(&run.dir.display().to_string())),
        Pair::new("Model SHA-256", text("model_sha256")),
        Pair::new("Data SHA-256", text("data_sha256")),
        Pair::new("Recipe SHA-256", text("recipe_sha256")),
    ];
    if let Some(tags) = run
        .recipe
        .get("run.tags")
        .and_then(Value::as_array)
        .filter(|tags| !tags.is_empty())
    {
        let tags: Vec<String> = tags.iter().filter_map(Value::as_str).map(visible).collect();
        rows.push(Pair::new("Tags", tags.join(", ")));
    }
    rows
}

/// A figure at the top of a report.
#[derive(Clone, Debug, Serialize)]
struct Tile {
    label: String,
    value: String,
    note: String,
}

fn tiles(run: &Run) -> Vec<Tile> {
    let wanted = [
        ("valid_loss_best", "unweighted, mean over heads"),
        ("loss_last", "weighted, mean of the last tenth of the steps"),
        ("steps", ""),
        ("tokens", ""),
        ("step_seconds", "without validation"),
        ("tok_s_median", ""),
        ("peak_memory", ""),
    ];
    let figures = final_figures(run);
    let mut tiles: Vec<Tile> = wanted
        .iter()
        .filter_map(|(key, note)| Some((figures.iter().find(|figure| figure.key == *key)?, note)))
        .map(|(figure, note)| Tile {
            label: figure.label.clone(),
            value: match figure.unit {
                summary::Unit::Nats if figure.value.is_some() => format!("{} nats", figure.shown()),
                _ => figure.shown(),
            },
            note: (*note).into(),
        })
        .collect();
    for score in evaluation::pass_at_1(run) {
        let percent = super::summary::percent;
        let interval = score.interval.map_or(String::new(), |[low, high]| {
            format!("95%: {} to {}", percent(low), percent(high))
        });
        // The chart has the rest of its label.
        let mut parts = score.label.split(", ");
        let benchmark = parts.next().unwrap_or_default();
        let sampled = parts.find(|part| part.starts_with("temperature") || ["greedy", "given"].contains(part));
        tiles.push(Tile {
            label: format!("pass@1, {benchmark}, {}", sampled.unwrap_or("sampled")),
            value: percent(score.value),
            note: interval,
        });
    }
    tiles
}

fn environment(run: &Run) -> Vec<Pair> {
    let mut rows = Vec::new();
    for (key, label) in [
        ("wmtp", "wmtp"),
        ("commit", "Commit"),
        ("device", "Device"),
        ("seed", "Seed"),
        ("documents", "Training documents"),
        ("response_tokens", "Response tokens an epoch"),
    ] {
        if let Some(value) = run.text(key) {
            rows.push(Pair::new(label, value));
        }
    }
    let environment = serde_json::to_value(&run.record.environment).unwrap_or_default();
    for (key, value) in environment.as_object().into_iter().flatten() {
        let text = match (key.as_str(), value) {
            ("memory_bytes", value) => value.as_f64().map(|bytes| summary::shown(bytes, summary::Unit::Bytes)),
            (_, Value::String(text)) => Some(visible(text)),
            (_, Value::Null) => None,
            (_, other) => Some(other.to_string()),
        };
        let label = match key.as_str() {
            "memory_bytes" => "Memory of the machine".to_owned(),
            "cpu" => "Processor".to_owned(),
            "cores" => "Cores".to_owned(),
            "os" => "System".to_owned(),
            other => visible(other),
        };
        rows.extend(text.map(|text| Pair::new(label, text)));
    }
    rows
}

fn event(event: &EventLine) -> Event {
    Event {
        time: time(event.time),
        step: event.step,
        event: visible(&event.event),
        reason: visible(&event.reason),
    }
}

/// When the run began.
pub(super) fn started(run: &Run) -> String {
    let text = run.text("started").unwrap_or_else(|| "–".into());
    let at: Option<jiff::Timestamp> = text.parse().ok();
    at.map_or(text, |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn time(seconds: u64) -> String {
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok());
    at.map_or("–".into(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests;
