//! What stands for the drawing in a program built without the feature `svg`.

use super::{BarChart, Chart, HeatMap, LineChart, PlotError};

/// A file is refused; in a page a sentence stands for the chart.
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

not_drawn!(BarChart HeatMap LineChart);
