//! Histograms over time (heat map): one column each, darker for more values.

use super::{
    Chart, HeatMap, PlotError, Scale,
    axis::Axis,
    canvas::{self, Failure, Frame, HPos, Heading, Ink, Layout, SMALL, Sheet, px},
};

/// Maximum number of columns; beyond it neighbours are summed.
fn most_columns(layout: Layout) -> usize {
    match layout {
        Layout::Wide => 120,
        Layout::Narrow => 60,
    }
}

/// The largest share of a column is the darkest; the opacity is proportional to the square root of the
/// share, so that rare values are visible.
impl Chart for HeatMap {
    fn svg(&self) -> Result<String, PlotError> {
        self.drawn(Layout::Wide)
    }

    fn html(&self) -> Result<String, PlotError> {
        canvas::responsive(|layout| self.drawn(layout))
    }
}

impl HeatMap {
    fn drawn(&self, layout: Layout) -> Result<String, PlotError> {
        let heading = Heading {
            title: &self.title,
            unit: &self.unit,
            legend: Vec::new(),
        };
        canvas::chart(layout, &heading, layout.height(), |sheet| self.draw(sheet))
    }

    fn draw(&self, sheet: &mut Sheet<'_>) -> Result<(), Failure> {
        let (edges, columns) = (self.drawn_edges(), self.shares(most_columns(sheet.layout)));
        let most = columns
            .iter()
            .flat_map(|(_, shares)| shares)
            .copied()
            .fold(0.0, f64::max);
        let borders = borders(&columns.iter().map(|(x, _)| *x).collect::<Vec<_>>());
        let ([low, .., high], [first, .., last], true) = (edges.as_slice(), borders.as_slice(), most > 0.0) else {
            let middle = (px(sheet.layout.width() / 2.0), px(110.0));
            return sheet.text("no values", SMALL, 0.75, HPos::Center, middle);
        };
        let y_label = self.y_scale.named(&self.y_label);
        let frame = Frame::new(
            sheet.layout,
            Axis::between(*first, *last, Scale::Linear, sheet.layout.ticks()),
            Axis::between(*low, *high, self.y_scale, 7),
            (&self.x_label, &y_label),
            84.0,
        );
        frame.draw(sheet, false)?;
        for ((_, shares), ends) in columns.iter().zip(borders.windows(2)) {
            let [from, to] = ends else { continue };
            for (&share, bin) in shares.iter().zip(edges.windows(2)) {
                let ([bottom, top], true) = (bin, share > 0.0) else {
                    continue;
                };
                let ink = Ink::series(0).pale(opacity(share, most));
                sheet.block(frame.at((*from, *bottom)), frame.at((*to, *top)), ink)?;
            }
        }
        for (value, name) in self.marks.iter().filter(|(value, _)| frame.y.range().contains(value)) {
            let (left, y) = frame.at((*first, *value));
            let (right, _) = frame.at((*last, *value));
            sheet.path(&[(left, y), (right, y)], Ink::text(0.7))?;
            sheet.text(name, SMALL, 0.9, HPos::Left, (left + px(6.0), y - px(9.0)))?;
        }
        self.key(sheet, most)
    }

    /// The scale of shades, at the right.
    fn key(&self, sheet: &mut Sheet<'_>, most: f64) -> Result<(), Failure> {
        let (x, steps) = (sheet.layout.width() - 70.0, 5usize);
        sheet.text("share", SMALL, 0.75, HPos::Left, (px(x), px(34.0)))?;
        for i in 0..steps {
            let share = most * (steps - i) as f64 / steps as f64;
            let y = 46.0 + 20.0 * i as f64;
            let ink = Ink::series(0).pale(opacity(share, most));
            sheet.block((px(x), px(y)), (px(x + 14.0), px(y + 20.0)), ink)?;
            let label = format!("{:.*}%", usize::from(share < 0.095), 100.0 * share);
            sheet.text(&label, SMALL, 0.8, HPos::Left, (px(x + 20.0), px(y + 10.0)))?;
        }
        Ok(())
    }

    /// The edges, the first one positive on a logarithmic axis.
    fn drawn_edges(&self) -> Vec<f64> {
        let mut edges = self.edges.clone();
        if let (Scale::Log, [first, second, third, ..]) = (self.y_scale, edges.as_mut_slice())
            && *first <= 0.0
            && *second > 0.0
        {
            *first = *second * *second / *third;
        }
        edges
    }

    /// Every column normalised to its sum; neighbours are summed if there are too many.
    fn shares(&self, most: usize) -> Vec<(f64, Vec<f64>)> {
        let together = self.columns.len().div_ceil(most).max(1);
        let mut columns = Vec::new();
        for part in self.columns.chunks(together) {
            let bins = self.edges.len().saturating_sub(1);
            let mut sums = vec![0.0; bins];
            for (_, counts) in part {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            let all: f64 = sums.iter().sum();
            let x = part.iter().map(|(x, _)| x).sum::<f64>() / part.len() as f64;
            if all > 0.0 && x.is_finite() {
                columns.push((x, sums.into_iter().map(|sum| sum / all).collect()));
            }
        }
        columns
    }
}

fn opacity(share: f64, most: f64) -> f64 {
    // Two digits keep the page small: these numbers are most of it.
    (100.0 * (share / most).sqrt()).round().max(4.0) / 100.0
}

/// Borders between columns: the midpoints, and the same distance outside at both ends.
fn borders(x: &[f64]) -> Vec<f64> {
    let mut borders: Vec<f64> = x
        .windows(2)
        .filter_map(|pair| Some((pair.first()? + pair.last()?) / 2.0))
        .collect();
    match (x, borders.first().copied(), borders.last().copied()) {
        ([first, .., last], Some(after), Some(before)) => {
            borders.insert(0, 2.0 * first - after);
            borders.push(2.0 * last - before);
        }
        ([only], ..) => borders = vec![only - 0.5, only + 0.5],
        _ => {}
    }
    borders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_meet_half_way() {
        assert_eq!(borders(&[1.0, 3.0, 7.0]), [0.0, 2.0, 5.0, 9.0]);
        assert_eq!(borders(&[4.0]), [3.5, 4.5]);
        assert!(borders(&[]).is_empty());
    }

    #[test]
    fn many_columns_are_added_up_and_become_shares() {
        let map = HeatMap {
            edges: vec![0.0, 1.0, 2.0],
            columns: (0..240).map(|i| (f64::from(i), vec![f64::from(i % 2), 1.0])).collect(),
            ..HeatMap::default()
        };
        let shares = map.shares(120);
        assert_eq!(shares.len(), 120);
        assert_eq!(shares[0], (0.5, vec![1.0 / 3.0, 2.0 / 3.0]));
    }
}
