//! Horizontal bars with intervals: one row a figure, so that long names never meet.

use super::{
    PlotError, Scale,
    axis::Axis,
    canvas::{self, Entry, Failure, Heading, INK, Sheet, color, px, shortened, text, text_width},
};
use plotters::{coord::ranged1d::Ranged, prelude::*, style::text_anchor::HPos};

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
                color: color(i).mix(0.85),
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

    fn draw<'a>(&self, sheet: &Sheet<'a>, bottom: f64) -> Result<(), Failure<'a>> {
        let ends = |bar: &Bar| {
            [
                bar.value,
                bar.interval.map_or(0.0, |i| i[1]),
                bar.interval.map_or(0.0, |i| i[0]),
                0.0,
            ]
        };
        let axis = Axis::over(self.bars.iter().flat_map(ends), Scale::Linear, 0.02, 6);
        let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let left = 12.0
            + widest(
                &mut self
                    .bars
                    .iter()
                    .map(|b| text_width(&shortened(&b.label, Self::LONGEST), 12.0)),
            );
        let right = canvas::WIDTH - 16.0 - widest(&mut self.bars.iter().map(|b| text_width(&b.shown, 11.0)));
        let along = |value: f64| axis.map(&value, (px(left), px(right)));
        for &tick in axis.ticks() {
            let line = vec![(along(tick), 0), (along(tick), px(bottom + 4.0))];
            sheet.draw(&PathElement::new(line, INK.mix(0.13).stroke_width(px(0.5) as u32)))?;
            let below = (along(tick), px(bottom + 14.0));
            sheet.draw_text(&axis.label(tick), &text(11.0, 0.8, HPos::Center), below)?;
        }
        for (i, (bar, y)) in self.bars.iter().zip(self.places()).enumerate() {
            let middle = px(y + Self::ROW / 2.0);
            let before = i.checked_sub(1).and_then(|i| self.bars.get(i));
            if before.is_none_or(|before| before.label != bar.label) {
                let label = shortened(&bar.label, Self::LONGEST);
                sheet.draw_text(&label, &text(12.0, 0.9, HPos::Right), (px(left - 8.0), middle))?;
            }
            if !bar.value.is_finite() {
                let at = (along(0.0) + px(6.0), middle);
                sheet.draw_text(&bar.shown, &text(11.0, 0.65, HPos::Left), at)?;
                continue;
            }
            let (from, to) = (along(bar.value.min(0.0)), along(bar.value.max(0.0)));
            let corners = [(from, px(y + 3.0)), (to, px(y + Self::ROW - 3.0))];
            sheet.draw(&Rectangle::new(corners, color(bar.series).mix(0.85).filled()))?;
            let mut end = to;
            if let Some([low, high]) = bar.interval.filter(|i| i.iter().all(|v| v.is_finite())) {
                let (low, high) = (along(low), along(high));
                end = end.max(high);
                let cap = px(3.5);
                for line in [
                    [(low, middle), (high, middle)],
                    [(low, middle - cap), (low, middle + cap)],
                    [(high, middle - cap), (high, middle + cap)],
                ] {
                    let style = INK.mix(0.9).stroke_width(px(1.0) as u32);
                    sheet.draw(&PathElement::new(line.to_vec(), style))?;
                }
            }
            sheet.draw_text(&bar.shown, &text(11.0, 0.9, HPos::Left), (end + px(6.0), middle))?;
        }
        Ok(())
    }
}
