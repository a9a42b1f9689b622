//! Horizontal bars with intervals: one row a figure, so that long names never meet.

use super::{
    PlotError, Scale,
    axis::Axis,
    canvas::{self, Entry, Failure, HPos, Heading, Ink, Sheet, px, shortened, text_width},
};

/// One figure.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// What it belongs to, at its left.
    pub label: String,
    /// Which of the chart's series.
    pub series: usize,
    /// How long.
    pub value: f64,
    /// Its uncertainty: lower and upper end.
    pub interval: Option<[f64; 2]>,
    /// The figure as text, at its right.
    pub shown: String,
}

/// Bars below each other.
#[derive(Clone, Debug, Default)]
pub struct BarChart {
    /// What is shown.
    pub title: String,
    /// Unit of the values, beside the title.
    pub unit: String,
    /// Names of the series; a single one needs none.
    pub series: Vec<String>,
    /// From top to bottom. Neighbours with the same label are drawn as a group, labelled once.
    pub bars: Vec<Bar>,
}

impl BarChart {
    const ROW: f64 = 20.0;
    const GAP: f64 = 8.0;
    const LONGEST: usize = 40;

    /// The chart as SVG, 720 pixels wide and as high as it has to be.
    ///
    /// # Errors
    /// The drawing library's, if it has any.
    pub fn svg(&self) -> Result<String, PlotError> {
        let series = self.series.iter().enumerate();
        let legend = series
            .filter(|(_, name)| !name.is_empty())
            .map(|(i, name)| Entry {
                name: name.clone(),
                ink: Ink::series(i).pale(0.85),
                block: true,
            })
            .collect();
        let heading = Heading {
            title: &self.title,
            unit: &self.unit,
            legend,
        };
        let bottom = self.places().last().map_or(20.0, |y| y + Self::ROW);
        canvas::chart(&heading, bottom + 28.0, |sheet| self.draw(sheet, bottom))
    }

    /// The upper edge of every bar.
    fn places(&self) -> Vec<f64> {
        let mut y = 4.0;
        let mut places = Vec::with_capacity(self.bars.len());
        for (i, bar) in self.bars.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|i| self.bars.get(i));
            if before.is_some_and(|before| before.label != bar.label) {
                y += Self::GAP;
            }
            places.push(y);
            y += Self::ROW;
        }
        places
    }

    fn draw(&self, sheet: &mut Sheet<'_>, bottom: f64) -> Result<(), Failure> {
        let ends = |bar: &Bar| {
            let [low, high] = bar.interval.unwrap_or_default();
            [bar.value, low, high, 0.0]
        };
        let axis = Axis::over(self.bars.iter().flat_map(ends), Scale::Linear, 0.02, 6);
        let widest = |widths: &mut dyn Iterator<Item = f64>| widths.fold(0.0, f64::max);
        let label = |bar: &Bar| shortened(&bar.label, Self::LONGEST);
        let left = 12.0 + widest(&mut self.bars.iter().map(|bar| text_width(&label(bar), 12.0)));
        let right = canvas::WIDTH - 16.0 - widest(&mut self.bars.iter().map(|bar| text_width(&bar.shown, 11.0)));
        let along = |value: f64| axis.map(value, (px(left), px(right)));
        for &tick in axis.ticks() {
            sheet.path(&[(along(tick), 0), (along(tick), px(bottom + 4.0))], Ink::text(0.13))?;
            let below = (along(tick), px(bottom + 14.0));
            sheet.text(&axis.label(tick), 11.0, 0.8, HPos::Center, below)?;
        }
        for (i, (bar, y)) in self.bars.iter().zip(self.places()).enumerate() {
            let middle = px(y + Self::ROW / 2.0);
            let before = i.checked_sub(1).and_then(|i| self.bars.get(i));
            if before.is_none_or(|before| before.label != bar.label) {
                sheet.text(&label(bar), 12.0, 0.9, HPos::Right, (px(left - 8.0), middle))?;
            }
            if !bar.value.is_finite() {
                let at = (along(0.0) + px(6.0), middle);
                sheet.text(&bar.shown, 11.0, 0.65, HPos::Left, at)?;
                continue;
            }
            let (from, to) = (along(bar.value.min(0.0)), along(bar.value.max(0.0)));
            let ink = Ink::series(bar.series).pale(0.85);
            sheet.block((from, px(y + 3.0)), (to, px(y + Self::ROW - 3.0)), ink)?;
            let mut end = to;
            if let Some([low, high]) = bar.interval.filter(|i| i.iter().all(|v| v.is_finite())) {
                let (low, high, cap) = (along(low), along(high), px(3.5));
                end = end.max(high);
                for line in [
                    [(low, middle), (high, middle)],
                    [(low, middle - cap), (low, middle + cap)],
                    [(high, middle - cap), (high, middle + cap)],
                ] {
                    sheet.path(&line, Ink::text(0.9).wide(1.0))?;
                }
            }
            sheet.text(&bar.shown, 11.0, 0.9, HPos::Left, (end + px(6.0), middle))?;
        }
        Ok(())
    }
}
