//! Horizontal bars with intervals: one row per figure, so that long names never overlap.

use super::{
    Bar, BarChart, Chart, PlotError, Scale,
    axis::Axis,
    canvas::{self, Entry, Failure, HPos, Heading, Ink, Layout, SMALL, Sheet, px},
    text::{text_width, wrapped},
};

/// A row of the drawing, with its upper edge.
enum Row<'a> {
    /// A line of a label above its bars.
    Label(String),
    /// A bar, and its label if that is at the left.
    Bar(&'a Bar, Option<&'a str>),
}

impl Chart for BarChart {
    fn svg(&self) -> Result<String, PlotError> {
        self.drawn(Layout::Wide)
    }

    fn html(&self) -> Result<String, PlotError> {
        canvas::responsive(|layout| self.drawn(layout))
    }
}

impl BarChart {
    const ROW: f64 = 20.0;
    const LINE: f64 = 18.0;
    const GAP: f64 = 8.0;
    /// The share of the width that labels may take at the left; wider ones are placed above their bars.
    const BESIDE: f64 = 0.35;

    fn drawn(&self, layout: Layout) -> Result<String, PlotError> {
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
        let (rows, bottom) = self.rows(layout);
        canvas::chart(layout, &heading, bottom + 28.0, |sheet| self.draw(sheet, &rows, bottom))
    }

    fn widest(texts: impl Iterator<Item = f64>) -> f64 {
        texts.fold(0.0, f64::max)
    }

    /// Width of the labels at the left in pixels; None if they are above.
    fn label_width(&self, layout: Layout) -> Option<f64> {
        let widest = Self::widest(self.bars.iter().map(|bar| text_width(&bar.label, SMALL)));
        (widest <= Self::BESIDE * layout.width()).then_some(widest)
    }

    /// Every row with its upper edge, and the lower edge of the last.
    fn rows(&self, layout: Layout) -> (Vec<(f64, Row<'_>)>, f64) {
        let at_left = self.label_width(layout).is_some();
        let mut y = 4.0;
        let mut rows = Vec::with_capacity(self.bars.len());
        for (i, bar) in self.bars.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|i| self.bars.get(i));
            let first = before.is_none_or(|before| before.label != bar.label);
            if first && before.is_some() {
                y += Self::GAP;
            }
            if first && !at_left {
                for line in wrapped(&bar.label, SMALL, layout.width()) {
                    rows.push((y, Row::Label(line)));
                    y += Self::LINE;
                }
            }
            rows.push((y, Row::Bar(bar, (first && at_left).then_some(bar.label.as_str()))));
            y += Self::ROW;
        }
        (rows, y.max(20.0))
    }

    fn draw(&self, sheet: &mut Sheet<'_>, rows: &[(f64, Row<'_>)], bottom: f64) -> Result<(), Failure> {
        let ends = |bar: &Bar| {
            let [low, high] = bar.interval.unwrap_or_default();
            [bar.value, low, high, 0.0]
        };
        let values = self.bars.iter().flat_map(ends).chain(self.includes);
        let left = 12.0 + self.label_width(sheet.layout).unwrap_or(0.0);
        let shown = Self::widest(self.bars.iter().map(|bar| text_width(&bar.shown, SMALL)));
        let right = sheet.layout.width() - 16.0 - shown;
        // A tick's label takes up to 56 pixels, such as −0.005.
        let ticks = ((right - left) / 56.0).clamp(2.0, sheet.layout.ticks() as f64) as usize;
        let axis = Axis::over(values, Scale::Linear, 0.02, ticks);
        let along = |value: f64| axis.map(value, (px(left), px(right)));
        for &tick in axis.ticks() {
            let below = (along(tick), px(bottom + 16.0));
            sheet.text(&axis.label(tick), SMALL, 0.8, HPos::Center, below)?;
        }
        for (y, row) in rows {
            let middle = px(y + Self::ROW / 2.0);
            let (bar, label) = match row {
                Row::Label(line) => {
                    sheet.text(line, SMALL, 0.9, HPos::Left, (0, px(y + Self::LINE / 2.0)))?;
                    continue;
                }
                Row::Bar(bar, label) => (bar, label),
            };
            // Lines at the ticks, but not through labels.
            for &tick in axis.ticks() {
                let ends = [(along(tick), px(*y)), (along(tick), px(y + Self::ROW))];
                sheet.path(&ends, Ink::text(0.13))?;
            }
            if let Some(label) = label {
                sheet.text(label, SMALL, 0.9, HPos::Right, (px(left - 8.0), middle))?;
            }
            if !bar.value.is_finite() {
                let at = (along(0.0) + px(6.0), middle);
                sheet.text(&bar.shown, SMALL, 0.75, HPos::Left, at)?;
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
            sheet.text(&bar.shown, SMALL, 0.9, HPos::Left, (end + px(6.0), middle))?;
        }
        Ok(())
    }
}
