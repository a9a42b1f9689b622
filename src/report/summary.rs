//! The main figures of a run.

use super::{
    figures::{ends, median, of_steps, of_validations, sparkline},
    run::Run,
};
use crate::text::duration;
use serde::Serialize;

/// Unit of a figure, which decides its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nats per token.
    Nats,
    /// A plain number.
    Number,
    /// A count.
    Count,
    /// Seconds.
    Seconds,
    /// Tokens per second.
    Rate,
    /// Bytes.
    Bytes,
}

/// One figure of a run.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its key in JSON.
    pub key: String,
    /// Its label.
    pub label: String,
    /// The figure; None if the run has none.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: Unit,
}

/// The final figures of a run in display order. "Last" means the mean over the last tenth of the steps.
pub fn final_figures(run: &Run) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut add = |key: &str, label: &str, unit, value: Option<f64>| {
        all.push(Figure {
            key: key.into(),
            label: label.into(),
            value: value.filter(|v| v.is_finite()),
            unit,
        });
    };
    let last = |value: &dyn Fn(&crate::run::StepLine) -> Option<f64>| {
        let values: Vec<f64> = run.steps.iter().filter_map(value).collect();
        ends(&values).map(|(_, last)| last).or(values.last().copied())
    };
    let valid = || run.validations.iter().filter_map(|line| line.valid_loss);
    let best = run
        .validations
        .iter()
        .filter(|line| line.valid_loss.is_some_and(f64::is_finite))
        .min_by(|a, b| {
            a.valid_loss
                .unwrap_or(f64::NAN)
                .total_cmp(&b.valid_loss.unwrap_or(f64::NAN))
        });
    add(
        "valid_loss_best",
        "Validation loss, best",
        Unit::Nats,
        best.and_then(|line| line.valid_loss),
    );
    add(
        "valid_loss_last",
        "Validation loss, last",
        Unit::Nats,
        valid().next_back(),
    );
    for k in 1..=run.heads() {
        let ce = best.and_then(|line| line.valid_ce_heads.get(k - 1).copied().flatten());
        add(
            &format!("valid_ce_head_{k}"),
            &format!("Validation CE of head {k}, at the best"),
            Unit::Nats,
            ce,
        );
    }
    add("loss_last", "Training loss, last", Unit::Nats, last(&|line| line.loss));
    for k in 1..=run.heads() {
        add(
            &format!("ce_head_{k}_last"),
            &format!("Training CE of head {k}, last"),
            Unit::Nats,
            last(&|line| line.ce(k)),
        );
    }
    add(
        "weight_entropy_last",
        "Entropy of the weights, last",
        Unit::Number,
        last(&|line| line.weight_entropy),
    );
    let step = run.steps.last();
    add("steps", "Steps", Unit::Count, step.map(|line| line.step as f64));
    let skipped = run.steps.iter().filter(|line| !line.applied).count();
    add(
        "skipped",
        "Steps not applied",
        Unit::Count,
        step.map(|_| skipped as f64),
    );
    add(
        "tokens",
        "Tokens read",
        Unit::Count,
        step.map(|line| line.tokens as f64),
    );
    add(
        "step_seconds",
        "Time in steps",
        Unit::Seconds,
        step.map(|_| run.step_seconds()),
    );
    let speed = median(run.steps.iter().map(|line| line.tok_s));
    add("tok_s_median", "Speed, median", Unit::Rate, speed);
    let memory = run.steps.iter().filter_map(|line| line.mem).max();
    add(
        "peak_memory",
        "Peak memory",
        Unit::Bytes,
        memory.map(|bytes| bytes as f64),
    );
    all
}

impl Figure {
    /// The figure as text.
    pub fn shown(&self) -> String {
        self.value.map_or("–".into(), |value| shown(value, self.unit))
    }

    /// Difference from another run's figure: absolute for losses, else relative.
    pub fn difference(&self, from: &Self) -> Option<String> {
        let (value, base) = (self.value?, from.value?);
        let difference = value - base;
        let sign = |text: String| if difference > 0.0 { format!("+{text}") } else { text };
        let text = match self.unit {
            Unit::Nats | Unit::Number => sign(format!("{difference:.4}")),
            _ if difference == 0.0 => "±0".into(),
            _ if base == 0.0 => sign(format!("{difference:.0}")),
            _ => sign(format!("{:.1}%", 100.0 * difference / base)),
        };
        Some(text.replace('-', "\u{2212}"))
    }
}

/// A number with its unit.
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nats | Unit::Number => format!("{value:.4}"),
        Unit::Count => grouped(value),
        Unit::Seconds => duration(value),
        Unit::Rate => format!("{} tok/s", grouped(value.round())),
        Unit::Bytes if value >= f64::from(1 << 30) => format!("{:.2} GiB", value / f64::from(1 << 30)),
        Unit::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
    }
}

/// A whole number with thousands separators.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in percent, with the digits that it needs.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent == 0.0 || percent.abs() >= 9.95 {
        format!("{percent:.0}%")
    } else if percent.abs() >= 0.095 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.2}%")
    }
}

/// A curve as one row of a table.
#[derive(Clone, Debug, Serialize)]
pub struct CurveRow {
    /// Its name.
    pub name: String,
    /// Mean of the first tenth.
    pub first: String,
    /// Mean of the last tenth.
    pub last: String,
    /// Lowest and highest value.
    pub low: String,
    /// See `low`.
    pub high: String,
    /// The curve in block characters.
    pub spark: String,
}

/// The run's curves, one row each.
pub fn curves(run: &Run) -> Vec<CurveRow> {
    let mut rows = Vec::new();
    let mut add = |name: String, points: Vec<(f64, f64)>, unit: Unit| {
        let values: Vec<f64> = points.iter().map(|(_, y)| *y).filter(|y| y.is_finite()).collect();
        let Some(&only) = values.first() else { return };
        let (first, last) = ends(&values).unwrap_or((only, only));
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        rows.push(CurveRow {
            name,
            first: shown(first, unit),
            last: shown(last, unit),
            low: shown(low, unit),
            high: shown(high, unit),
            spark: sparkline(&points),
        });
    };
    add(
        "Validation loss".into(),
        of_validations(run, |line| line.valid_loss),
        Unit::Nats,
    );
    for k in 1..=run.heads() {
        let points = of_validations(run, |line| line.valid_ce_heads.get(k - 1).copied().flatten());
        add(format!("Validation CE of head {k}"), points, Unit::Nats);
    }
    add(
        "Training loss (weighted)".into(),
        of_steps(run, |line| line.loss),
        Unit::Nats,
    );
    for k in 1..=run.heads() {
        add(
            format!("Training CE of head {k}"),
            of_steps(run, |line| line.ce(k)),
            Unit::Nats,
        );
    }
    add(
        "Loss of the value head".into(),
        of_steps(run, |line| line.value_loss),
        Unit::Number,
    );
    add(
        "Gradient norm".into(),
        of_steps(run, |line| line.grad_norm),
        Unit::Number,
    );
    add(
        "Entropy of the weights".into(),
        of_steps(run, |line| line.weight_entropy),
        Unit::Number,
    );
    add(
        "Largest weight".into(),
        of_steps(run, |line| line.weight_max),
        Unit::Number,
    );
    add("Speed".into(), of_steps(run, |line| Some(line.tok_s)), Unit::Rate);
    let memory = of_steps(run, |line| line.mem.map(|bytes| bytes as f64));
    add("Peak memory".into(), memory, Unit::Bytes);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, unit: Unit) -> Figure {
        Figure {
            key: "x".into(),
            label: "X".into(),
            value: Some(value),
            unit,
        }
    }

    #[test]
    fn figures_are_written_with_their_units() {
        assert_eq!(figure(1_234_567.0, Unit::Count).shown(), "1,234,567");
        assert_eq!(figure(-1234.0, Unit::Count).shown(), "-1,234");
        assert_eq!(figure(90.0, Unit::Seconds).shown(), "90 s");
        assert_eq!(figure(7200.0, Unit::Seconds).shown(), "2 h 0 min");
        assert_eq!(figure(3e9, Unit::Bytes).shown(), "2.79 GiB");
        assert_eq!(
            Figure {
                value: None,
                ..figure(0.0, Unit::Nats)
            }
            .shown(),
            "–"
        );
    }

    #[test]
    fn differences_are_absolute_for_losses_and_shares_for_costs() {
        let of = |a, b, unit| figure(a, unit).difference(&figure(b, unit)).unwrap();
        assert_eq!(of(2.0, 2.5, Unit::Nats), "\u{2212}0.5000");
        assert_eq!(of(110.0, 100.0, Unit::Rate), "+10.0%");
        assert_eq!(of(100.0, 100.0, Unit::Count), "±0");
        assert_eq!(of(3.0, 0.0, Unit::Count), "+3");
    }
}
