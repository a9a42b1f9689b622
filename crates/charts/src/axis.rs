//! Axes: ranges with a margin, few ticks at round numbers, short labels.

use super::Scale;
use std::ops::Range;

/// One axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis over all `values` that its scale can show, with at most `ticks` ticks. `margin` is the
    /// share of the range that is left free at both ends. Without values the axis is from 0 to 1 (1 to 10
    /// if it is logarithmic).
    pub fn over(values: impl Iterator<Item = f64>, scale: Scale, margin: f64, ticks: usize) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|&v| scale.shows(v)) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return match scale {
                Scale::Linear => Self::between(0.0, 1.0, scale, ticks),
                Scale::Log => Self::between(1.0, 10.0, scale, ticks),
            };
        }
        let (mut from, mut to) = (scale.place(low), scale.place(high));
        let span = to - from;
        // A constant needs a range around it, else it would be drawn on the frame.
        if scale == Scale::Linear && low == 0.0 && high == 0.0 {
            return Self::between(0.0, 1.0, scale, ticks);
        }
        let room = if span > f64::EPSILON * to.abs().max(from.abs()) {
            span * margin
        } else {
            (to.abs() * 0.05).max(if scale == Scale::Log { 0.2 } else { 1e-9 })
        };
        (from, to) = (from - room, to + room);
        // No margin below zero if no value is negative.
        if scale == Scale::Linear && low >= 0.0 {
            from = from.max(0.0);
        }
        Self::between(scale.value(from), scale.value(to), scale, ticks)
    }

    /// An axis from `low` to `high`.
    pub fn between(low: f64, high: f64, scale: Scale, ticks: usize) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let ticks = match scale {
            Scale::Linear => round_numbers(low, high, ticks),
            Scale::Log => round_powers(low, high, ticks),
        };
        Self {
            scale,
            low,
            high,
            ticks,
        }
    }

    /// Positions of its ticks.
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// A tick's label.
    pub fn label(&self, value: f64) -> String {
        let others = self.ticks.iter().map(|tick| (tick - value).abs());
        let nearest = others.filter(|&distance| distance > 0.0).fold(f64::INFINITY, f64::min);
        let step = if nearest.is_finite() { nearest } else { value.abs() };
        // One notation for all: 0.0001 next to 8e-5 is misread.
        let tiny = |tick: &f64| tick.abs() > step.abs() * 1e-6 && !PLAIN.contains(&tick.abs());
        if self.ticks.iter().any(tiny) && value.abs() > step.abs() * 1e-6 {
            return scientific(value, step);
        }
        short(value, step)
    }

    /// Its ends.
    pub fn range(&self) -> Range<f64> {
        self.low..self.high
    }

    /// Coordinate of a value, given the coordinates `from` and `to` of the axis' ends. Values outside the
    /// axis, or that can't be shown, are clamped to an end.
    pub fn map(&self, value: f64, (from, to): (i32, i32)) -> i32 {
        let (low, high) = (self.scale.place(self.low), self.scale.place(self.high));
        let share = ((self.scale.place(value) - low) / (high - low)).clamp(0.0, 1.0);
        let share = if share.is_finite() { share } else { 0.0 };
        from + (f64::from(to - from) * share).round() as i32
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` of them.
fn round_numbers(low: f64, high: f64, most: usize) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) || most == 0 {
        return Vec::new();
    }
    let mut power = 10f64.powf((span / most as f64).log10().floor());
    loop {
        for factor in [1.0, 2.0, 5.0] {
            let step = factor * power;
            // Tolerance for the rounding of the ends.
            let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
            if last - first < most as f64 {
                let count = (last - first + 1.0).max(0.0) as usize;
                return (0..count).map(|i| (first + i as f64) * step).collect();
            }
        }
        power *= 10.0;
    }
}

/// Powers of ten, every n-th if there are many, 1-2-5 multiples if there are few.
fn round_powers(low: f64, high: f64, most: usize) -> Vec<f64> {
    let (first, last) = ((low.log10() - 1e-9).ceil() as i32, (high.log10() + 1e-9).floor() as i32);
    let powers = (last - first + 1).max(0) as usize;
    let finer: Vec<f64> = (first - 1..=last + 1)
        .flat_map(|e| [1.0, 2.0, 5.0].map(|f| f * 10f64.powi(e)))
        .filter(|&v| v >= low * (1.0 - 1e-9) && v <= high * (1.0 + 1e-9))
        .collect();
    if powers >= 2 && finer.len() > most {
        let every = powers.div_ceil(most.max(1)).max(1);
        return (first..=last).step_by(every).map(|e| 10f64.powi(e)).collect();
    }
    let finer: Vec<f64> = finer.into_iter().take(most).collect();
    // Below a factor of two the range is nearly linear.
    if finer.len() >= 2 {
        finer
    } else {
        round_numbers(low, high, most)
    }
}

/// Magnitudes that are written without an exponent.
const PLAIN: Range<f64> = 1e-4..1e15;

/// A number with the digits that distinguish it from its neighbour at distance `step`.
fn short(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step.abs() * 1e-6 {
        return "0".into();
    }
    if !PLAIN.contains(&size) {
        return scientific(value, step);
    }
    let (divisor, unit) = match size {
        s if s >= 1e12 => (1e12, "T"),
        s if s >= 1e9 => (1e9, "G"),
        s if s >= 1e6 => (1e6, "M"),
        s if s >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let digits = (-(step.abs() / divisor).log10() + 1e-9).ceil().clamp(0.0, 6.0) as usize;
    let text = format!("{:.digits$}", value / divisor);
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{}{unit}", text.replace('-', "\u{2212}"))
}

fn scientific(value: f64, step: f64) -> String {
    let digits = (value.abs().log10().floor() - step.abs().log10() - 1e-9)
        .ceil()
        .clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$e}");
    let (number, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number}e{exponent}").replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, scale: Scale) -> Vec<String> {
        let axis = Axis::between(low, high, scale, 6);
        axis.ticks().iter().map(|&t| axis.label(t)).collect()
    }

    #[test]
    fn ticks_are_few_and_at_round_numbers() {
        assert_eq!(labels(0.0, 84.0, Scale::Linear), ["0", "20", "40", "60", "80"]);
        assert_eq!(labels(6.55, 7.08, Scale::Linear), ["6.6", "6.7", "6.8", "6.9", "7"]);
        assert_eq!(
            labels(-0.3, 0.25, Scale::Linear),
            ["\u{2212}0.3", "\u{2212}0.2", "\u{2212}0.1", "0", "0.1", "0.2"]
        );
        assert_eq!(labels(0.0, 21_000.0, Scale::Linear), ["0", "5000", "10k", "15k", "20k"]);
        assert_eq!(labels(0.0, 1e-3, Scale::Linear).len(), 6);
        let lr = [
            "0",
            "2e\u{2212}5",
            "4e\u{2212}5",
            "6e\u{2212}5",
            "8e\u{2212}5",
            "1e\u{2212}4",
        ];
        assert_eq!(labels(0.0, 1e-4, Scale::Linear), lr, "one notation");
        assert_eq!(labels(2.10e-5, 2.14e-5, Scale::Linear)[1], "2.11e\u{2212}5");
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten_or_their_simple_multiples() {
        assert_eq!(
            labels(3e-8, 2e-4, Scale::Log),
            ["1e\u{2212}7", "1e\u{2212}6", "1e\u{2212}5", "1e\u{2212}4"]
        );
        let weights = Axis::between(0.04, 4.0, Scale::Log, 7);
        assert_eq!(weights.ticks(), [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(labels(1.5, 25.0, Scale::Log), ["2", "5", "10", "20"]);
        assert_eq!(labels(1e-12, 1e12, Scale::Log).len(), 5);
        assert_eq!(labels(7.0, 8.0, Scale::Log), ["7", "7.2", "7.4", "7.6", "7.8", "8"]);
    }

    #[test]
    fn values_that_a_scale_cannot_show_do_not_move_the_axis() {
        let values = [f64::NAN, 0.0, -1.0, 0.1, 10.0, f64::INFINITY];
        let axis = Axis::over(values.into_iter(), Scale::Log, 0.0, 6);
        assert!((axis.range().start - 0.1).abs() < 1e-9 && (axis.range().end - 10.0).abs() < 1e-9);
        assert_eq!(axis.map(1.0, (0, 100)), 50);
        assert_eq!(axis.map(f64::NAN, (0, 100)), 0);
        assert_eq!(axis.map(1e9, (0, 100)), 100);
    }

    #[test]
    fn no_value_and_one_value_give_an_axis_too() {
        assert_eq!(Axis::over(std::iter::empty(), Scale::Linear, 0.05, 6).range(), 0.0..1.0);
        let one = Axis::over(std::iter::once(3.0), Scale::Linear, 0.05, 6);
        assert!(one.range().start < 3.0 && one.range().end > 3.0 && !one.ticks().is_empty());
        let zero = Axis::over(std::iter::once(0.0), Scale::Linear, 0.05, 6);
        assert!(zero.range().start < zero.range().end && !zero.ticks().is_empty());
    }
}
