//! What all charts share: the sheet that is drawn on, title and legend, the frame with its ticks, and
//! the finishing of the SVG.

use super::{PALETTE, PlotError, axis::Axis};
use plotters_backend::{
    BackendColor, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontFamily,
    text_anchor::{Pos, VPos},
};
use plotters_svg::SVGBackend;
use std::{convert::Infallible, fmt::Display, io};

pub use plotters_backend::text_anchor::HPos;

/// Units of the drawing in one pixel of the page: the backend draws at whole numbers, and lines at whole
/// pixels look like stairs.
pub const FINE: f64 = 2.0;

/// Pixels of the page across.
pub const WIDTH: f64 = 720.0;

/// The page's text colour, put in when the chart is finished.
const INK: (u8, u8, u8) = (1, 2, 0);

/// Dashed lines are drawn in colours (1, 3, n) and finished to the palette's n-th with dashes.
const DASHED: (u8, u8) = (1, 3);

/// What the backend says when it can't draw.
pub type Failure = DrawingErrorKind<io::Error>;

/// A place in drawing units.
pub type Place = (i32, i32);

/// Drawing units of so many pixels of the page.
pub fn px(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

/// Roughly the pixels that a text is wide.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.53
}

/// A text of at most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}\u{2026}", kept.trim_end())
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

    /// The same with another opacity.
    pub fn pale(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }

    /// The same for lines of another width.
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

/// How a text is written: the page's colour, centred on its height.
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
        // The backend divides by 1.24 what it writes.
        self.size * FINE * 1.24
    }

    fn anchor(&self) -> Pos {
        Pos::new(self.anchor, VPos::Center)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::SansSerif
    }

    // SVG leaves fonts to its reader: neither of these two is asked.
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

/// What is drawn on. Places count from `top`.
pub struct Sheet<'a> {
    backend: SVGBackend<'a>,
    top: i32,
}

impl Sheet<'_> {
    fn down(&self, (x, y): Place) -> Place {
        (x, y + self.top)
    }

    /// A line through several places.
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

/// Two axes and where they lie.
pub struct Frame {
    pub x: Axis,
    pub y: Axis,
    /// Pixels of the page from the left, right, top and bottom edge of the sheet's lower part.
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    /// The frame that leaves room for the labels, and `right` pixels at the right.
    pub fn new(x: Axis, y: Axis, right: f64) -> Self {
        Self {
            x,
            y,
            left: 54.0,
            right: WIDTH - right,
            top: 6.0,
            bottom: HEIGHT - 38.0,
        }
    }

    /// The place of a point.
    pub fn at(&self, (x, y): (f64, f64)) -> Place {
        (
            self.x.map(x, (px(self.left), px(self.right))),
            self.y.map(y, (px(self.bottom), px(self.top))),
        )
    }

    /// Axes, ticks with their labels, and lines at the ticks if there is to be a `grid`.
    pub fn draw(&self, sheet: &mut Sheet<'_>, x_label: &str, grid: bool) -> Result<(), Failure> {
        let (line, mark) = (Ink::text(0.13), Ink::text(0.45));
        let (left, right, top, bottom) = (px(self.left), px(self.right), px(self.top), px(self.bottom));
        for &tick in self.x.ticks() {
            let (x, _) = self.at((tick, self.y.range().start));
            if grid {
                sheet.path(&[(x, top), (x, bottom)], line)?;
            }
            sheet.path(&[(x, bottom), (x, bottom + px(3.0))], mark)?;
            sheet.text(&self.x.label(tick), 11.0, 0.8, HPos::Center, (x, bottom + px(11.0)))?;
        }
        for &tick in self.y.ticks() {
            let (_, y) = self.at((self.x.range().start, tick));
            if grid {
                sheet.path(&[(left, y), (right, y)], line)?;
            }
            sheet.path(&[(left - px(3.0), y), (left, y)], mark)?;
            sheet.text(&self.y.label(tick), 11.0, 0.8, HPos::Right, (left - px(6.0), y))?;
        }
        sheet.path(&[(left, top), (left, bottom), (right, bottom)], mark)?;
        if !x_label.is_empty() {
            let middle = (left + right) / 2;
            sheet.text(x_label, 11.0, 0.65, HPos::Center, (middle, bottom + px(27.0)))?;
        }
        Ok(())
    }
}

/// Pixels that charts with a frame are high, without their heading.
pub const HEIGHT: f64 = 240.0;

/// An entry of a legend.
pub struct Entry {
    pub name: String,
    pub ink: Ink,
    /// A block instead of a line.
    pub block: bool,
}

/// What stands above a chart.
pub struct Heading<'a> {
    pub title: &'a str,
    /// Unit of the values.
    pub unit: &'a str,
    pub legend: Vec<Entry>,
}

impl Heading<'_> {
    const SIZE: f64 = 12.0;
    const LONGEST: usize = 44;

    /// The legend's rows: indices of entries with the place of each.
    fn rows(&self) -> Vec<Vec<(usize, f64)>> {
        let mut rows: Vec<Vec<(usize, f64)>> = Vec::new();
        let mut x = f64::INFINITY;
        for (i, entry) in self.legend.iter().enumerate() {
            let width = 24.0 + text_width(&shortened(&entry.name, Self::LONGEST), Self::SIZE) + 18.0;
            if x + width > WIDTH {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((i, x));
            }
            x += width;
        }
        rows
    }

    /// Pixels that it takes.
    pub fn height(&self) -> f64 {
        26.0 + 18.0 * self.rows().len() as f64
    }

    fn draw(&self, sheet: &mut Sheet<'_>) -> Result<(), Failure> {
        sheet.text(self.title, 14.0, 1.0, HPos::Left, (0, px(12.0)))?;
        if !self.unit.is_empty() {
            let at = text_width(self.title, 14.0) + 12.0;
            sheet.text(self.unit, 12.0, 0.65, HPos::Left, (px(at), px(12.0)))?;
        }
        for (row, entries) in self.rows().into_iter().enumerate() {
            let y = px(33.0 + 18.0 * row as f64);
            for (entry, x) in entries.into_iter().filter_map(|(i, x)| Some((self.legend.get(i)?, x))) {
                if entry.block {
                    sheet.block((px(x), y - px(5.0)), (px(x + 18.0), y + px(5.0)), entry.ink)?;
                } else {
                    sheet.path(&[(px(x), y), (px(x + 18.0), y)], entry.ink.wide(2.0))?;
                }
                let name = shortened(&entry.name, Self::LONGEST);
                sheet.text(&name, Self::SIZE, 0.9, HPos::Left, (px(x + 24.0), y))?;
            }
        }
        Ok(())
    }
}

/// Draws a heading and, below it, what `body` draws `height` pixels high.
pub fn chart(
    heading: &Heading<'_>,
    height: f64,
    body: impl FnOnce(&mut Sheet<'_>) -> Result<(), Failure>,
) -> Result<String, PlotError> {
    let top = heading.height();
    let size = (px(WIDTH) as u32, px(top + height) as u32);
    let mut svg = String::new();
    let drawn = {
        let backend = SVGBackend::with_string(&mut svg, size);
        let mut sheet = Sheet { backend, top: 0 };
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

/// Puts in what the backend can't say: size on the page, a name for screen readers, the page's text
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

/// A colour as the backend writes it.
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
