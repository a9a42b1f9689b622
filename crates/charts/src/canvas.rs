//! Parts that all charts share: the sheet (drawing area), title and legend, the frame with its ticks, and
//! the final SVG.

use super::{
    PALETTE, PlotError,
    axis::Axis,
    text::{text_width, wrapped},
};
use plotters_backend::{
    BackendColor, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontFamily,
    text_anchor::{Pos, VPos},
};
use plotters_svg::SVGBackend;
use std::{convert::Infallible, fmt::Display, io};

pub use plotters_backend::text_anchor::HPos;

/// Drawing units per pixel of the page: the backend rounds to whole numbers, and lines rounded to whole
/// pixels look jagged.
pub const FINE: f64 = 2.0;

/// Layout of a chart. A page holds one drawing for each and shows the one that fits, so that text is hardly
/// scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A column of a desktop page, or a file of its own.
    Wide,
    /// A phone.
    Narrow,
}

impl Layout {
    /// Its CSS class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }

    /// Width in pixels.
    pub fn width(self) -> f64 {
        match self {
            Self::Wide => 560.0,
            Self::Narrow => 340.0,
        }
    }

    /// Height of charts with a frame in pixels, without their heading.
    pub fn height(self) -> f64 {
        match self {
            Self::Wide => 240.0,
            Self::Narrow => 220.0,
        }
    }

    /// Maximum number of ticks along x.
    pub fn ticks(self) -> usize {
        match self {
            Self::Wide => 6,
            Self::Narrow => 5,
        }
    }
}

/// Size of labels at ticks and bars, in pixels.
pub const SMALL: f64 = 12.0;

/// Placeholder for the page's text colour, replaced in the final SVG.
const INK: (u8, u8, u8) = (1, 2, 0);

/// Placeholder for dashed lines: colour (1, 3, n) becomes the palette's n-th with dashes in the final SVG.
const DASHED: (u8, u8) = (1, 3);

/// Error of the backend.
pub type Failure = DrawingErrorKind<io::Error>;

/// A point in drawing units.
pub type Place = (i32, i32);

/// Pixels of the page in drawing units.
pub fn px(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

/// A colour with its opacity and, for lines, the width in pixels of the page.
#[derive(Clone, Copy, Debug)]
pub struct Ink {
    color: (u8, u8, u8),
    opacity: f64,
    width: f64,
}

impl Ink {
    /// The page's text colour.
    pub fn text(opacity: f64) -> Self {
        Self::new(INK, opacity)
    }

    /// The n-th series' colour.
    pub fn series(n: usize) -> Self {
        Self::new(PALETTE[n % PALETTE.len()], 1.0)
    }

    /// The n-th series' colour, for a dashed line.
    pub fn dashed(n: usize) -> Self {
        Self::new((DASHED.0, DASHED.1, (n % PALETTE.len()) as u8), 1.0)
    }

    fn new(color: (u8, u8, u8), opacity: f64) -> Self {
        Self {
            color,
            opacity,
            width: 0.5,
        }
    }

    /// With another opacity.
    pub fn pale(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }

    /// With another line width.
    pub fn wide(self, width: f64) -> Self {
        Self { width, ..self }
    }
}

impl BackendStyle for Ink {
    fn color(&self) -> BackendColor {
        BackendColor {
            alpha: self.opacity,
            rgb: self.color,
        }
    }

    fn stroke_width(&self) -> u32 {
        px(self.width).max(1) as u32
    }
}

/// Style of a text: the page's colour, vertically centred.
struct Lettering {
    size: f64,
    opacity: f64,
    anchor: HPos,
}

impl BackendTextStyle for Lettering {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        Ink::text(self.opacity).color()
    }

    fn size(&self) -> f64 {
        // The backend divides the size by 1.24.
        self.size * FINE * 1.24
    }

    fn anchor(&self) -> Pos {
        Pos::new(self.anchor, VPos::Center)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::SansSerif
    }

    // SVG viewers choose the font: neither of these two is called.
    fn layout_box(&self, _text: &str) -> Result<(Place, Place), Infallible> {
        Ok(((0, 0), (0, 0)))
    }

    fn draw<E, F: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        _text: &str,
        _at: Place,
        _draw: F,
    ) -> Result<Result<(), E>, Infallible> {
        Ok(Ok(()))
    }
}

/// The drawing area. Coordinates are relative to `top`.
pub struct Sheet<'a> {
    backend: SVGBackend<'a>,
    top: i32,
    /// The layout.
    pub layout: Layout,
}

impl Sheet<'_> {
    fn down(&self, (x, y): Place) -> Place {
        (x, y + self.top)
    }

    /// A line through several points.
    pub fn path(&mut self, points: &[Place], ink: Ink) -> Result<(), Failure> {
        let points: Vec<Place> = points.iter().map(|&at| self.down(at)).collect();
        self.backend.draw_path(points, &ink)
    }

    /// A filled rectangle.
    pub fn block(&mut self, from: Place, to: Place, ink: Ink) -> Result<(), Failure> {
        let corners = (
            (from.0.min(to.0), from.1.min(to.1)),
            (from.0.max(to.0), from.1.max(to.1)),
        );
        let (from, to) = (self.down(corners.0), self.down(corners.1));
        self.backend.draw_rect(from, to, &ink, true)
    }

    /// A filled circle.
    pub fn dot(&mut self, at: Place, radius: f64, ink: Ink) -> Result<(), Failure> {
        let at = self.down(at);
        self.backend.draw_circle(at, px(radius) as u32, &ink, true)
    }

    /// A text whose middle is at the height of `at`.
    pub fn text(&mut self, text: &str, size: f64, opacity: f64, anchor: HPos, at: Place) -> Result<(), Failure> {
        let at = self.down(at);
        let style = Lettering { size, opacity, anchor };
        self.backend.draw_text(text, &style, at)
    }
}

/// Two axes and their position.
pub struct Frame<'a> {
    pub x: Axis,
    pub y: Axis,
    /// Label of the x axis, below it.
    pub x_label: &'a str,
    /// Label of the y axis, above it.
    pub y_label: &'a str,
    /// Margins in pixels at the left, right, top and bottom of the sheet's lower part.
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl<'a> Frame<'a> {
    /// The frame, with margins for the labels and `right` pixels at the right.
    pub fn new(layout: Layout, x: Axis, y: Axis, labels: (&'a str, &'a str), right: f64) -> Self {
        let widths = y.ticks().iter().map(|&tick| text_width(&y.label(tick), SMALL));
        let left = widths.fold(20.0, f64::max) + 10.0;
        Self {
            x,
            y,
            x_label: labels.0,
            y_label: labels.1,
            left,
            right: layout.width() - right,
            top: if labels.1.is_empty() { 8.0 } else { 26.0 },
            bottom: layout.height() - 40.0,
        }
    }

    /// Position of a data point.
    pub fn at(&self, (x, y): (f64, f64)) -> Place {
        (
            self.x.map(x, (px(self.left), px(self.right))),
            self.y.map(y, (px(self.bottom), px(self.top))),
        )
    }

    /// Axes, ticks with their labels, names, and lines at the ticks if `grid`.
    pub fn draw(&self, sheet: &mut Sheet<'_>, grid: bool) -> Result<(), Failure> {
        let (line, mark) = (Ink::text(0.13), Ink::text(0.45));
        let (left, right, top, bottom) = (px(self.left), px(self.right), px(self.top), px(self.bottom));
        for &tick in self.x.ticks() {
            let (x, _) = self.at((tick, self.y.range().start));
            if grid {
                sheet.path(&[(x, top), (x, bottom)], line)?;
            }
            sheet.path(&[(x, bottom), (x, bottom + px(3.0))], mark)?;
            sheet.text(&self.x.label(tick), SMALL, 0.8, HPos::Center, (x, bottom + px(12.0)))?;
        }
        for &tick in self.y.ticks() {
            let (_, y) = self.at((self.x.range().start, tick));
            if grid {
                sheet.path(&[(left, y), (right, y)], line)?;
            }
            sheet.path(&[(left - px(3.0), y), (left, y)], mark)?;
            sheet.text(&self.y.label(tick), SMALL, 0.8, HPos::Right, (left - px(6.0), y))?;
        }
        sheet.path(&[(left, top), (left, bottom), (right, bottom)], mark)?;
        if !self.x_label.is_empty() {
            let middle = (left + right) / 2;
            sheet.text(self.x_label, SMALL, 0.75, HPos::Center, (middle, bottom + px(29.0)))?;
        }
        if !self.y_label.is_empty() {
            sheet.text(self.y_label, SMALL, 0.75, HPos::Left, (0, px(8.0)))?;
        }
        Ok(())
    }
}

/// An entry of a legend.
pub struct Entry {
    pub name: String,
    pub ink: Ink,
    /// A block instead of a line.
    pub block: bool,
}

/// Title, unit and legend above a chart.
pub struct Heading<'a> {
    pub title: &'a str,
    /// Unit of the values.
    pub unit: &'a str,
    pub legend: Vec<Entry>,
}

/// A line of text with its height, or a row of the legend.
enum Part {
    Text {
        text: String,
        x: f64,
        size: f64,
        opacity: f64,
    },
    Entry {
        index: usize,
        lines: Vec<String>,
        x: f64,
    },
}

impl Heading<'_> {
    const TITLE: f64 = 15.0;
    const LINE: f64 = 18.0;

    /// All parts with the vertical centre of their first line, and the total height.
    fn parts(&self, width: f64) -> (Vec<(f64, Part)>, f64) {
        const HALF: f64 = Heading::LINE / 2.0;
        let mut parts = Vec::new();
        let mut y = 4.0;
        let title = wrapped(self.title, Self::TITLE, width);
        let last = title.last().map_or(0.0, |line| text_width(line, Self::TITLE) + 12.0);
        for text in title {
            let (x, size, opacity) = (0.0, Self::TITLE, 1.0);
            parts.push((y + HALF, Part::Text { text, x, size, opacity }));
            y += Self::LINE;
        }
        let (size, opacity) = (SMALL, 0.75);
        if last + text_width(self.unit, size) <= width {
            let (text, x) = (self.unit.to_owned(), last);
            parts.push((y - HALF, Part::Text { text, x, size, opacity }));
        } else {
            for text in wrapped(self.unit, size, width) {
                parts.push((
                    y + HALF,
                    Part::Text {
                        text,
                        x: 0.0,
                        size,
                        opacity,
                    },
                ));
                y += Self::LINE;
            }
        }
        // The current row of the legend: start of its next entry, and its lines.
        let (mut x, mut rows) = (0.0, 0.0f64);
        for (index, entry) in self.legend.iter().enumerate() {
            let lines = wrapped(&entry.name, SMALL, width - 24.0);
            let widest = lines.iter().map(|line| text_width(line, SMALL)).fold(0.0, f64::max);
            if x > 0.0 && x + 24.0 + widest > width {
                y += Self::LINE * rows;
                (x, rows) = (0.0, 0.0);
            }
            rows = rows.max(lines.len() as f64);
            parts.push((y + HALF, Part::Entry { index, lines, x }));
            x += 24.0 + widest + 18.0;
        }
        (parts, y + Self::LINE * rows + 6.0)
    }

    fn draw(&self, sheet: &mut Sheet<'_>) -> Result<(), Failure> {
        let (parts, _) = self.parts(sheet.layout.width());
        for (y, part) in parts {
            match part {
                Part::Text { text, x, size, opacity } => {
                    sheet.text(&text, size, opacity, HPos::Left, (px(x), px(y)))?
                }
                Part::Entry { index, lines, x } => {
                    let Some(entry) = self.legend.get(index) else { continue };
                    if entry.block {
                        sheet.block((px(x), px(y - 5.0)), (px(x + 18.0), px(y + 5.0)), entry.ink)?;
                    } else {
                        sheet.path(&[(px(x), px(y)), (px(x + 18.0), px(y))], entry.ink.wide(2.0))?;
                    }
                    for (row, line) in lines.iter().enumerate() {
                        let at = (px(x + 24.0), px(y + Self::LINE * row as f64));
                        sheet.text(line, SMALL, 0.9, HPos::Left, at)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Draws a heading and below it `body`, which is `height` pixels high, as an SVG file.
pub fn chart(
    layout: Layout,
    heading: &Heading<'_>,
    height: f64,
    body: impl FnOnce(&mut Sheet<'_>) -> Result<(), Failure>,
) -> Result<String, PlotError> {
    let (_, top) = heading.parts(layout.width());
    let size = (px(layout.width()) as u32, px(top + height) as u32);
    let mut svg = String::new();
    let drawn = {
        let backend = SVGBackend::with_string(&mut svg, size);
        let mut sheet = Sheet {
            backend,
            top: 0,
            layout,
        };
        heading.draw(&mut sheet).and_then(|()| {
            sheet.top = px(top);
            body(&mut sheet)?;
            sheet.backend.present()
        })
    };
    drawn.map_err(|problem| PlotError {
        title: heading.title.to_owned(),
        problem: problem.to_string(),
    })?;
    Ok(finished(&svg, heading.title, size))
}

/// A chart in a page, drawn for both layouts; the page's style sheet shows the one that fits.
pub fn responsive(draw: impl Fn(Layout) -> Result<String, PlotError>) -> Result<String, PlotError> {
    let mut html = String::from("<div class=\"plot\">");
    for layout in [Layout::Wide, Layout::Narrow] {
        let svg = draw(layout)?;
        // The page's style sheet has the style of a chart.
        let (before, rest) = svg.split_once("<style>").unwrap_or((&svg, ""));
        let after = rest.split_once("</style>").map_or("", |(_, after)| after);
        let class = format!("class=\"chart {}\"", layout.class());
        html += &before.replacen("class=\"chart\"", &class, 1);
        html += after;
    }
    Ok(html + "</div>")
}

/// Adds what the backend can't express: size on the page, a name for screen readers, the page's text
/// colour, dashes.
fn finished(svg: &str, title: &str, size: (u32, u32)) -> String {
    let body = svg
        .split_once('>')
        .map_or("", |(_, body)| body)
        .replace(" \"/>", "\"/>");
    let mut body = body.replace(&attribute(INK), "\"currentColor\"");
    for (&color, n) in PALETTE.iter().zip(0..) {
        body = body.replace(
            &format!("stroke={}", attribute((DASHED.0, DASHED.1, n))),
            &format!("stroke={} stroke-dasharray=\"12 8\"", attribute(color)),
        );
    }
    let (width, height) = (f64::from(size.0) / FINE, f64::from(size.1) / FINE);
    let name = escaped(&title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {} {}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{name}\">\n\
         <style>.chart{{max-width:100%;height:auto;color:#1f2328}}.chart polyline{{stroke-linejoin:round}}\
         @media(prefers-color-scheme:dark){{.chart{{color:#e6edf3}}}}</style>{body}",
        size.0, size.1
    )
}

/// A colour in the backend's notation.
fn attribute((r, g, b): (u8, u8, u8)) -> String {
    format!("\"#{r:02X}{g:02X}{b:02X}\"")
}

fn escaped(text: &impl Display) -> String {
    text.to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
