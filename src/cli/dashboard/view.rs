//! How a [`Board`] is drawn, on any size of terminal.

use super::board::{Asked, Board, Curve, Stage};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Clear, Dataset, Gauge, GraphType, Paragraph, Wrap},
};
use std::time::{Duration, Instant};

/// Colours of heads 1, 2, 3, ...; they repeat.
const HEADS: [Color; 6] = [
    Color::Cyan,
    Color::Yellow,
    Color::Magenta,
    Color::Green,
    Color::Blue,
    Color::Red,
];
/// Columns from which both charts are side by side.
const WIDE: u16 = 100;
/// Lines below which there is no chart.
const CHART: u16 = 7;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, board: &Board, now: Instant) {
    let area = frame.area();
    let figures = flow(figures(board), area.width);
    let heads = flow(heads(board), area.width);
    let messages = messages(board, area);
    let [title, bar, times, numbers, of_heads, charts, said, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(height(&figures)),
        Constraint::Length(height(&heads)),
        Constraint::Fill(1),
        Constraint::Length(height(&messages)),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(heading(board, area.width), title);
    frame.render_widget(progress(board), bar);
    frame.render_widget(clock(board, now, area.width), times);
    frame.render_widget(Paragraph::new(figures), numbers);
    frame.render_widget(Paragraph::new(heads), of_heads);
    draw_charts(frame, board, charts);
    frame.render_widget(Paragraph::new(messages), said);
    frame.render_widget(footer(board), keys);
    if board.asked == Asked::Choices {
        draw_choices(frame, area);
    }
}

fn height(lines: &[Line<'_>]) -> u16 {
    u16::try_from(lines.len()).unwrap_or(u16::MAX)
}

fn bold(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}

fn dim(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::DIM))
}

fn heading(board: &Board, width: u16) -> Line<'static> {
    let both = board.run.chars().count() + board.what.chars().count() + 2;
    let mut spans = vec![bold(board.run.clone())];
    if both <= usize::from(width) {
        spans.push(dim(format!("  {}", board.what)));
    }
    Line::from(spans)
}

fn stage(board: &Board) -> &'static str {
    match board.stage {
        Stage::Starting => "starting",
        Stage::Value => "value stage",
        Stage::Training => "training",
        Stage::Validating(..) => "validating",
    }
}

/// The bar: what is under way, step of total, percent.
fn progress(board: &Board) -> Gauge<'static> {
    let (done, total) = board.steps;
    let label = match board.stage {
        Stage::Starting => stage(board).to_owned(),
        Stage::Validating(part, parts) if total == 0 => format!("{} {part}/{parts}", stage(board)),
        Stage::Validating(part, parts) => format!("{} {part}/{parts}, step {done}/{total}", stage(board)),
        Stage::Value | Stage::Training => format!(
            "{}: step {done}/{total}, {:.0}%",
            stage(board),
            (100.0 * board.share()).floor()
        ),
    };
    Gauge::default()
        .gauge_style(Style::new().fg(Color::Blue).bg(Color::DarkGray))
        .label(Span::styled(label, Style::new().fg(Color::White)))
        .ratio(board.share())
}

fn clock(board: &Board, now: Instant, width: u16) -> Line<'static> {
    let of_stage = match (board.stage, board.time_left(now)) {
        (Stage::Value, Some(left)) => format!("{} of the value stage", duration(left)),
        (_, Some(left)) => duration(left),
        (_, None) => "-".into(),
    };
    let mut spans = vec![
        dim("time left "),
        bold(of_stage),
        dim("   elapsed "),
        bold(duration(now.saturating_duration_since(board.opened))),
    ];
    if width < 40 {
        spans.truncate(2);
    }
    Line::from(spans)
}

/// `7 s`, `3:07`, `2:03:07`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

/// A name and its value, kept together.
struct Cell {
    name: Span<'static>,
    value: Span<'static>,
}

impl Cell {
    fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: dim(format!("{name} ")),
            value: bold(value),
        }
    }
}

/// As many cells a line as fit.
fn flow(cells: Vec<Cell>, width: u16) -> Vec<Line<'static>> {
    const GAP: usize = 3;
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut used = usize::MAX;
    for Cell { name, value } in cells {
        let size = name.width() + value.width();
        if used.saturating_add(GAP + size) > usize::from(width) {
            lines.push(Line::default());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push_span(Span::raw(" ".repeat(GAP)));
                used += GAP;
            }
            line.push_span(name);
            line.push_span(value);
            used += size;
        }
    }
    lines
}

fn figures(board: &Board) -> Vec<Cell> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let loss = if board.stage == Stage::Value {
        "value loss"
    } else {
        "loss"
    };
    let mut cells = vec![
        Cell::new(loss, or_dash(board.loss.map(|x| format!("{x:.4}")))),
        Cell::new("lr", or_dash(board.lr.map(|x| format!("{x:.2e}")))),
        Cell::new("gradient norm", or_dash(board.norm.map(|x| format!("{x:.3}")))),
        Cell::new("tokens/s", or_dash(board.tok_s.map(|x| format!("{x:.0}")))),
        Cell::new("memory", or_dash(board.memory.map(memory))),
    ];
    if let Some((least, largest, entropy)) = board.weights {
        cells.push(Cell::new("weights", format!("{least:.2} to {largest:.2}")));
        cells.push(Cell::new("their entropy", format!("{entropy:.3}")));
    }
    if let Some((step, loss, _)) = &board.valid {
        cells.push(Cell::new("validation loss", format!("{loss:.4} at step {step}")));
    }
    cells
}

fn memory(bytes: u64) -> String {
    let gib = crate::text::gib(bytes);
    if gib < 1.0 {
        format!("{:.0} MiB", gib * 1024.0)
    } else {
        format!("{gib:.2} GiB")
    }
}

/// The cross-entropy of each head, and below it that of the newest validation.
fn heads(board: &Board) -> Vec<Cell> {
    let valid = board.valid.as_ref().map_or(&[][..], |(_, _, ce)| ce);
    let count = board.heads.len().max(valid.len());
    (0..count)
        .map(|k| {
            let number = |x: Option<&f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
            let mut value = number(board.heads.get(k));
            if let Some(valid) = valid.get(k) {
                value.push_str(&format!(" ({})", number(Some(valid))));
            }
            let mut cell = Cell::new(&format!("head {}", k + 1), value);
            cell.value = cell.value.style(Style::new().fg(HEADS[k % HEADS.len()]));
            cell
        })
        .collect()
}

fn messages(board: &Board, area: Rect) -> Vec<Line<'static>> {
    let shown = usize::from(area.height.saturating_sub(18)).min(4);
    let from = board.messages.len().saturating_sub(shown);
    let messages = board.messages[from..].iter();
    messages.map(|text| Line::from(dim(text.clone()))).collect()
}

fn footer(board: &Board) -> Line<'static> {
    Line::from(match board.asked {
        Asked::Stop => bold("stopping after this step; Ctrl-C again ends at once"),
        Asked::StopWithoutSaving => bold("stopping after this step, without a checkpoint"),
        Asked::Nothing | Asked::Choices => dim("Ctrl-C: save a checkpoint and stop   q: choices"),
    })
}

fn draw_choices(frame: &mut Frame<'_>, area: Rect) {
    const TEXT: [&str; 4] = [
        "s  save a checkpoint and stop",
        "k  stop without saving",
        "c  continue training",
        "Both stop after the step under way.",
    ];
    let (width, height) = (40.min(area.width), 7.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered().title(" Stop the run? ");
    frame.render_widget(Clear, place);
    let text = TEXT.map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), place);
}

fn draw_charts(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    if area.height < CHART || area.width < 30 {
        return;
    }
    if board.train_loss.points().is_empty() && !board.value_loss.points().is_empty() {
        let curves = [("value loss".to_owned(), Color::Cyan, &board.value_loss, false)];
        draw_chart(frame, area, "value loss", &curves);
        return;
    }
    let mut heads: Vec<_> = (board.head_curves.iter().enumerate())
        .map(|(k, curve)| (format!("head {}", k + 1), HEADS[k % HEADS.len()], curve, false))
        .collect();
    heads.push(("validation".into(), Color::White, &board.valid_loss, true));
    let loss = [("loss".to_owned(), Color::Cyan, &board.train_loss, false)];
    let (loss_title, heads_title) = ("training loss (weighted)", "cross-entropy in nats");
    if area.width >= WIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
        draw_chart(frame, left, loss_title, &loss);
        draw_chart(frame, right, heads_title, &heads);
    } else if area.height >= 2 * CHART + 4 {
        let [top, bottom] = Layout::vertical([Constraint::Fill(1); 2]).areas(area);
        draw_chart(frame, top, loss_title, &loss);
        draw_chart(frame, bottom, heads_title, &heads);
    } else {
        draw_chart(frame, area, heads_title, &heads);
    }
}

/// Curves with name, colour and whether they are single points.
fn draw_chart(frame: &mut Frame<'_>, area: Rect, title: &str, curves: &[(String, Color, &Curve, bool)]) {
    let all = || curves.iter().flat_map(|(_, _, curve, _)| curve.points());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)))
    };
    let (first, last) = range(&mut all().map(|p| p.0));
    let (least, most) = range(&mut all().map(|p| p.1));
    let block = Block::bordered()
        .border_style(Style::new().fg(Color::DarkGray))
        .title(format!(" {title} "));
    if first > last {
        frame.render_widget(block, area);
        return;
    }
    let (low, high) = if most - least < 1e-3 {
        (least - 0.1, most + 0.1)
    } else {
        (least, most)
    };
    let last = last.max(first + 1.0);
    let datasets = curves
        .iter()
        .filter(|(_, _, curve, _)| !curve.points().is_empty())
        .map(|(name, color, curve, points)| {
            let dataset = Dataset::default()
                .marker(if *points { Marker::Dot } else { Marker::Braille })
                .graph_type(if *points { GraphType::Scatter } else { GraphType::Line })
                .style(Style::new().fg(*color))
                .data(curve.points());
            // A single curve has its name in the title.
            if curves.len() > 1 {
                dataset.name(name.clone())
            } else {
                dataset
            }
        })
        .collect();
    let grey = Style::new().fg(Color::DarkGray);
    let chart = Chart::new(datasets)
        .block(block)
        .x_axis(
            Axis::default()
                .style(grey)
                .bounds([first, last])
                .labels([format!("step {first:.0}"), format!("{last:.0}")]),
        )
        .y_axis(Axis::default().style(grey).bounds([low, high]).labels([
            format!("{low:.2}"),
            format!("{:.2}", 0.5 * (low + high)),
            format!("{high:.2}"),
        ]));
    frame.render_widget(chart, area);
}
