//! Charts as SVG text: lines over a number, bars with intervals, histograms over time.
//!
//! Written by plotters' SVG backend; axes and legends are laid out here. A chart has no background and its text takes the colour of the page
//! (`currentColor`), so it is readable on white and on black; the six series colours keep a contrast of
//! 3 to both and stay apart under the common colour blindnesses, and a dashed line says the same as a
//! colour does. Charts need no script, no font file and no network, and can stand inside of an HTML page
//! or in a file of their own. Nothing is animated or interactive.

mod axis;
mod bars;
mod canvas;
mod heat;
mod lines;

pub use bars::{Bar, BarChart};
pub use heat::HeatMap;
pub use lines::{LineChart, Mark, Series};

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm; what is not above 0 is not shown.
    Log,
}

impl Scale {
    /// Whether a value has a place.
    pub fn shows(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }

    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => 10f64.powf(place),
        }
    }
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
mod tests;
