//! What charts show.

#[cfg(not(feature = "svg"))]
use super::{Chart, PlotError};

/// Scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    #[default]
    Linear,
    /// Logarithmic; values at or below 0 are not shown.
    Log,
}

impl Scale {
    /// Whether the scale can show a value.
    pub fn shows(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }

    /// A unit or a name with the kind of its axis, if that is not linear.
    #[cfg(feature = "svg")]
    pub(crate) fn named(self, text: &str) -> String {
        match (self, text) {
            (Self::Linear, text) => text.to_owned(),
            (Self::Log, "") => "log scale".into(),
            (Self::Log, text) => format!("{text}, log scale"),
        }
    }

    #[cfg(feature = "svg")]
    pub(crate) fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }

    #[cfg(feature = "svg")]
    pub(crate) fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => 10f64.powf(place),
        }
    }
}

/// Style of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    #[default]
    Line,
    /// A dashed line.
    Dashed,
    /// A thin pale line that is not in the legend: single values behind their mean.
    Faint,
    /// A line with a dot at every value, for few values.
    Dots,
}

/// One line.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend. A chart whose series has no name has no legend.
    pub name: String,
    /// x and y; a y that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
    /// Its style.
    pub mark: Mark,
    /// Index of its colour; that of the series if None.
    pub color: Option<usize>,
}

impl Series {
    /// A line.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            ..Self::default()
        }
    }

    /// With another style.
    #[must_use]
    pub fn marked(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// With the n-th colour of the palette.
    #[must_use]
    pub fn colored(mut self, color: usize) -> Self {
        self.color = Some(color);
        self
    }
}

/// Several lines over one x.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    /// Its title.
    pub title: String,
    /// Unit of the values, after the title.
    pub unit: String,
    /// Label of the x axis.
    pub x_label: String,
    /// The lines.
    pub series: Vec<Series>,
    /// Scale of the x axis.
    pub x_scale: Scale,
    /// Scale of the y axis.
    pub y_scale: Scale,
    /// Values that the x axis includes even without a point: first and last step of a run.
    pub x_includes: Vec<f64>,
}

/// One figure.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Its label, at its left.
    pub label: String,
    /// Index of its series.
    pub series: usize,
    /// Its length.
    pub value: f64,
    /// Its uncertainty: lower and upper end.
    pub interval: Option<[f64; 2]>,
    /// The figure as text, at its right.
    pub shown: String,
}

/// Bars below each other.
#[derive(Clone, Debug, Default)]
pub struct BarChart {
    /// Its title.
    pub title: String,
    /// Unit of the values, after the title.
    pub unit: String,
    /// Names of the series; a single one needs none.
    pub series: Vec<String>,
    /// From top to bottom. Neighbours with the same label are drawn as a group, labelled once.
    pub bars: Vec<Bar>,
    /// A value that the axis reaches even where no bar does, so that small ones look small.
    pub includes: Option<f64>,
}

/// Histograms over x, each with the same bins.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// Its title.
    pub title: String,
    /// Unit of the values, after the title.
    pub unit: String,
    /// Label of the x axis.
    pub x_label: String,
    /// Edges of the bins along y, ascending, one more than bins. On a logarithmic axis the first may be 0:
    /// that bin is then drawn as high as the next.
    pub edges: Vec<f64>,
    /// Label of the y axis.
    pub y_label: String,
    /// Scale of the y axis.
    pub y_scale: Scale,
    /// Values of y that are marked by a line, with their labels.
    pub marks: Vec<(f64, String)>,
    /// x, and the count of each bin. Ascending in x.
    pub columns: Vec<(f64, Vec<f64>)>,
}

/// Without the feature `svg` a file is refused, and in a page a sentence stands for the chart.
#[cfg(not(feature = "svg"))]
macro_rules! not_drawn {
    ($($chart:ty)*) => {$(
        impl Chart for $chart {
            fn svg(&self) -> Result<String, PlotError> {
                Err(PlotError {
                    title: self.title.clone(),
                    problem: "this program was built without charts: build it with the feature `charts`".into(),
                })
            }

            fn html(&self) -> Result<String, PlotError> {
                Ok("<p>A chart is missing: this program was built without the feature <code>charts</code>.</p>".into())
            }
        }
    )*};
}

#[cfg(not(feature = "svg"))]
not_drawn!(BarChart HeatMap LineChart);
