//! Line charts over steps, tokens or seconds.

use super::{
    Chart, LineChart, Mark, PlotError, Series,
    axis::Axis,
    canvas::{self, Entry, Failure, Frame, HPos, Heading, Ink, Layout, SMALL, Sheet, px},
};

/// Maximum number of points per line; beyond it only minimum and maximum of each interval are kept.
fn most_points(layout: Layout) -> usize {
    match layout {
        Layout::Wide => 720,
        Layout::Narrow => 400,
    }
}

impl Chart for LineChart {
    fn svg(&self) -> Result<String, PlotError> {
        self.drawn(Layout::Wide)
    }

    fn html(&self) -> Result<String, PlotError> {
        canvas::responsive(|layout| self.drawn(layout))
    }
}

impl LineChart {
    fn drawn(&self, layout: Layout) -> Result<String, PlotError> {
        let named = self.series.iter().enumerate();
        let legend = named
            .filter(|(_, series)| series.mark != Mark::Faint && !series.name.is_empty())
            .map(|(i, series)| Entry {
                name: series.name.clone(),
                ink: line_ink(series, i),
                block: false,
            })
            .collect();
        let heading = Heading {
            title: &self.title,
            unit: &self.y_scale.named(&self.unit),
            legend,
        };
        canvas::chart(layout, &heading, layout.height(), |sheet| self.draw(sheet))
    }

    fn draw(&self, sheet: &mut Sheet<'_>) -> Result<(), Failure> {
        let shown = |(x, y): &(f64, f64)| self.x_scale.shows(*x) && self.y_scale.shows(*y);
        let points = || self.series.iter().flat_map(|s| &s.points).copied().filter(shown);
        if points().next().is_none() {
            let middle = (px(sheet.layout.width() / 2.0), px(110.0));
            return sheet.text("no values", SMALL, 0.75, HPos::Center, middle);
        }
        // Without a margin dots at the ends would be on the frame.
        let dots = self.series.iter().any(|series| series.mark == Mark::Dots);
        let x = points().map(|(x, _)| x).chain(self.x_includes.iter().copied());
        let x_label = self.x_scale.named(&self.x_label);
        let frame = Frame::new(
            sheet.layout,
            Axis::over(x, self.x_scale, if dots { 0.03 } else { 0.0 }, sheet.layout.ticks()),
            Axis::over(points().map(|(_, y)| y), self.y_scale, 0.06, 6),
            (&x_label, ""),
            18.0,
        );
        frame.draw(sheet, true)?;
        let most = most_points(sheet.layout);
        for (i, series) in self.series.iter().enumerate() {
            let ink = match series.mark {
                Mark::Faint => line_ink(series, i).pale(0.35).wide(1.0),
                _ => line_ink(series, i).wide(1.75),
            };
            // A value that is missing or can't be shown makes a gap.
            for part in series
                .points
                .split(|point| !shown(point))
                .filter(|part| !part.is_empty())
            {
                let places: Vec<_> = thinned(part, most).into_iter().map(|point| frame.at(point)).collect();
                if series.mark == Mark::Dots || places.len() == 1 {
                    let dot = Ink::series(series.color.unwrap_or(i));
                    places.iter().try_for_each(|&at| sheet.dot(at, 2.5, dot))?;
                }
                if places.len() > 1 {
                    sheet.path(&places, ink)?;
                }
            }
        }
        Ok(())
    }
}

fn line_ink(series: &Series, i: usize) -> Ink {
    let n = series.color.unwrap_or(i);
    // The palette's second round is dashed.
    if series.mark == Mark::Dashed || n >= super::PALETTE.len() {
        Ink::dashed(n)
    } else {
        Ink::series(n)
    }
}

/// About `most` points at most: the minimum and maximum of every interval, so that no spike is lost.
fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((most / 2).max(1));
    let mut kept = Vec::with_capacity(most);
    for part in points.chunks(stretch) {
        let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(&low), Some(&high)) = (part.iter().min_by(by_y), part.iter().max_by(by_y)) {
            let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
            kept.push(first);
            if first != second {
                kept.push(second);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_every_spike() {
        let mut points: Vec<_> = (0..10_000)
            .map(|i| (f64::from(i), (f64::from(i) / 50.0).sin()))
            .collect();
        points[1234].1 = 40.0;
        points[7777].1 = -40.0;
        let kept = thinned(&points, 720);
        assert!(kept.len() <= 722, "{}", kept.len());
        assert!(kept.contains(&(1234.0, 40.0)) && kept.contains(&(7777.0, -40.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
    }
}
