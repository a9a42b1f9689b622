//! Charts as SVG text: lines over a number, bars with intervals, histograms over time.
//!
//! Written by plotters' SVG backend; axes and legends are laid out here. A chart has no background and its
//! text has the colour of the page (`currentColor`), so it is readable on white and on black. The six series
//! colours have a contrast of at least 3 to both and differ under the common colour blindnesses; a seventh
//! series is dashed. Charts need no script, no font file and no network, and work inside an HTML page or as
//! a file. Nothing is animated or interactive. A page holds each chart twice, for wide and for narrow
//! columns, so that no text is scaled below 10 pixels.

#[cfg(feature = "svg")]
mod axis;
#[cfg(feature = "svg")]
mod bars;
#[cfg(feature = "svg")]
mod canvas;
mod data;
#[cfg(feature = "svg")]
mod heat;
#[cfg(feature = "svg")]
mod lines;
#[cfg(feature = "svg")]
mod text;

pub use data::{Bar, BarChart, HeatMap, LineChart, Mark, Scale, Series};

/// A chart that can be drawn.
pub trait Chart {
    /// The chart as an SVG file.
    ///
    /// # Errors
    /// The drawing library's, if it has any.
    fn svg(&self) -> Result<String, PlotError>;

    /// The chart as a part of a page, for wide and narrow columns.
    ///
    /// # Errors
    /// As [`Self::svg`].
    fn html(&self) -> Result<String, PlotError>;
}

/// A chart that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart `{title}` could not be drawn: {problem}")]
pub struct PlotError {
    /// The chart's title.
    pub title: String,
    /// What the drawing library says.
    pub problem: String,
}

/// Blue, orange, green, purple, red, grey: a contrast of at least 3 to white and to near-black, and
/// apart by at least 12 (CIE 1976) under protanopia, deuteranopia and tritanopia.
pub const PALETTE: [(u8, u8, u8); 6] = [
    (0x2f, 0x7f, 0xd0),
    (0xd9, 0x77, 0x0a),
    (0x12, 0xa0, 0x7c),
    (0xb0, 0x3a, 0x9e),
    (0xd0, 0x34, 0x2c),
    (0x6d, 0x6d, 0x6d),
];

#[cfg(test)]
#[cfg(feature = "svg")]
mod tests;
