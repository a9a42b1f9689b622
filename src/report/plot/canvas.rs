//! What all charts share: the sheet with its title and legend, colours, and the finishing of the SVG.

use super::{PALETTE, PlotError};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        Color, RGBAColor, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};
use std::fmt::Display;

/// Units of the drawing in one pixel of the page: plotters draws at whole numbers, and lines at whole
/// pixels look like stairs.
pub const FINE: f64 = 2.0;

/// Pixels of the page across.
pub const WIDTH: f64 = 720.0;

/// The page's text colour, put in when the chart is finished.
pub const INK: RGBColor = RGBColor(1, 2, 0);

/// Dashed lines are drawn in colours (1, 3, n) and finished to the palette's n-th with dashes.
const DASHED: (u8, u8) = (1, 3);

pub type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Drawing units of so many pixels of the page.
pub fn px(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

/// Roughly the pixels that a text is wide.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// A text of at most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}\u{2026}", kept.trim_end())
}

pub fn text(size: f64, opacity: f64, h: HPos) -> TextStyle<'static> {
    // plotters divides by 1.24 what it writes.
    let mut style = TextStyle::from(("sans-serif", size * FINE * 1.24).into_font());
    style.color = INK.mix(opacity).to_backend_color();
    style.pos(Pos::new(h, VPos::Center))
}

/// The n-th series' colour.
pub fn color(series: usize) -> RGBColor {
    let (r, g, b) = PALETTE[series % PALETTE.len()];
    RGBColor(r, g, b)
}

/// The n-th series' colour for a dashed line.
pub fn dashed(series: usize) -> RGBColor {
    RGBColor(DASHED.0, DASHED.1, (series % PALETTE.len()) as u8)
}

/// An entry of a legend.
pub struct Entry {
    pub name: String,
    pub color: RGBAColor,
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

    fn draw<'a>(&self, sheet: &Sheet<'a>) -> Result<(), Failure<'a>> {
        let title = text(14.0, 1.0, HPos::Left);
        sheet.draw_text(self.title, &title, (0, px(12.0)))?;
        if !self.unit.is_empty() {
            let at = text_width(self.title, 14.0) + 12.0;
            sheet.draw_text(self.unit, &text(12.0, 0.65, HPos::Left), (px(at), px(12.0)))?;
        }
        for (row, entries) in self.rows().into_iter().enumerate() {
            let y = px(33.0 + 18.0 * row as f64);
            for (entry, x) in entries.into_iter().filter_map(|(i, x)| Some((self.legend.get(i)?, x))) {
                if entry.block {
                    let corners = [(px(x), y - px(5.0)), (px(x + 18.0), y + px(5.0))];
                    sheet.draw(&Rectangle::new(corners, entry.color.filled()))?;
                } else {
                    let line = vec![(px(x), y), (px(x + 18.0), y)];
                    sheet.draw(&PathElement::new(line, entry.color.stroke_width(px(2.0) as u32)))?;
                }
                let name = shortened(&entry.name, Self::LONGEST);
                sheet.draw_text(&name, &text(Self::SIZE, 0.9, HPos::Left), (px(x + 24.0), y))?;
            }
        }
        Ok(())
    }
}

/// What plotters says when it can't draw.
pub type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// Draws a heading and, below it, what `body` draws into a sheet `height` pixels high.
pub fn chart(
    heading: &Heading<'_>,
    height: f64,
    body: impl for<'a> FnOnce(&Sheet<'a>) -> Result<(), Failure<'a>>,
) -> Result<String, PlotError> {
    let top = heading.height();
    let size = (px(WIDTH) as u32, px(top + height) as u32);
    let mut svg = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let (above, below) = root.split_vertically(px(top));
        let all = heading
            .draw(&above)
            .and_then(|()| body(&below))
            .and_then(|()| root.present());
        all.map_err(|error| error.to_string())
    };
    drawn.map_err(|problem| PlotError {
        title: heading.title.to_owned(),
        problem,
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
    for series in 0..PALETTE.len() {
        let full = attribute(color(series));
        body = body.replace(
            &format!("stroke={}", attribute(dashed(series))),
            &format!("stroke={full} stroke-dasharray=\"12 8\""),
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
fn attribute(RGBColor(r, g, b): RGBColor) -> String {
    format!("\"#{r:02X}{g:02X}{b:02X}\"")
}

fn escaped(text: &impl Display) -> String {
    text.to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
