//! From a run's metrics to charts and figures.

use super::{
    plot::{Chart, HeatMap, LineChart, Mark, PlotError, Scale, Series},
    run::Run,
};
use crate::run::{HistogramLine, StepLine, ValidLine};

/// Moving average of `values` over windows of about a twentieth of the run; values that are not finite are
/// left out.
pub fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / 40;
    let (mut sums, mut counts) = (vec![0.0], vec![0usize]);
    for (i, (_, y)) in points.iter().enumerate() {
        let (sum, count) = (sums.get(i).copied().unwrap_or(0.0), counts.get(i).copied().unwrap_or(0));
        let finite = y.is_finite();
        sums.push(sum + if finite { *y } else { 0.0 });
        counts.push(count + usize::from(finite));
    }
    let mean = |i: usize| {
        let (from, to) = (i.saturating_sub(half), (i + half + 1).min(points.len()));
        let count = counts.get(to)?.checked_sub(*counts.get(from)?)?;
        (count > 0).then_some((sums.get(to)? - sums.get(from)?) / count as f64)
    };
    let at = |(i, (x, _)): (usize, &(f64, f64))| (*x, mean(i).unwrap_or(f64::NAN));
    points.iter().enumerate().map(at).collect()
}

/// The mean of the first and of the last tenth of the finite values; None for fewer than two values.
pub fn ends(values: &[f64]) -> Option<(f64, f64)> {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let tenth = finite.len().div_ceil(10);
    if finite.len() < 2 {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Some((mean(finite.get(..tenth)?), mean(finite.get(finite.len() - tenth..)?)))
}

/// The median of the finite values.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut finite: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let n = finite.len();
    Some((finite.get(n.checked_sub(1)? / 2)? + finite.get(n / 2)?) / 2.0)
}

/// A figure of every step.
pub fn of_steps(run: &Run, value: impl Fn(&StepLine) -> Option<f64>) -> Vec<(f64, f64)> {
    let point = |line: &StepLine| (line.step as f64, value(line).unwrap_or(f64::NAN));
    run.steps.iter().map(point).collect()
}

/// A figure of every validation.
pub fn of_validations(run: &Run, value: impl Fn(&ValidLine) -> Option<f64>) -> Vec<(f64, f64)> {
    let point = |line: &ValidLine| (line.step as f64, value(line).unwrap_or(f64::NAN));
    run.validations.iter().map(point).collect()
}

/// One figure of one or several runs; one line per run.
struct Figure {
    title: &'static str,
    unit: &'static str,
    scale: Scale,
    /// Whether single values are drawn behind their moving average.
    noisy: bool,
    value: fn(&StepLine) -> Option<f64>,
}

const FIGURES: [Figure; 5] = [
    Figure {
        title: "Learning rate",
        unit: "",
        scale: Scale::Linear,
        noisy: false,
        value: |line| Some(line.lr),
    },
    Figure {
        title: "Gradient norm before clipping",
        unit: "",
        scale: Scale::Log,
        noisy: true,
        value: |line| line.grad_norm,
    },
    Figure {
        title: "Speed",
        unit: "tokens a second",
        scale: Scale::Linear,
        noisy: true,
        value: |line| Some(line.tok_s),
    },
    Figure {
        title: "Peak memory",
        unit: "MiB",
        scale: Scale::Linear,
        noisy: false,
        value: |line| line.mem.map(|bytes| bytes as f64 / f64::from(1 << 20)),
    },
    Figure {
        title: "Entropy of the weights",
        unit: "1: all weigh the same",
        scale: Scale::Linear,
        noisy: true,
        value: |line| line.weight_entropy,
    },
];

/// The moving average of a noisy figure over its single values, in one colour.
fn with_mean(name: &str, points: Vec<(f64, f64)>, color: usize, noisy: bool) -> Vec<Series> {
    if !noisy || points.len() < 40 {
        return vec![Series::new(name, points).colored(color)];
    }
    let mean = smoothed(&points);
    vec![
        Series::new("", points).marked(Mark::Faint).colored(color),
        Series::new(name, mean).colored(color),
    ]
}

fn chart(title: &str, unit: &str, series: Vec<Series>) -> LineChart {
    LineChart {
        title: title.into(),
        unit: unit.into(),
        x_label: "step".into(),
        series,
        ..LineChart::default()
    }
}

/// The mean over heads of the unweighted cross-entropy in training: comparable with validation.
fn unweighted(run: &Run) -> impl Fn(&StepLine) -> Option<f64> {
    let heads = run.heads();
    move |line| {
        let all: Option<Vec<f64>> = (1..=heads).map(|k| line.ce(k)).collect();
        all.filter(|all| !all.is_empty())
            .map(|all| all.iter().sum::<f64>() / all.len() as f64)
    }
}

/// First and last step of a run: charts with few points get the same x axis as those with many.
fn ends_of(runs: &[&Run]) -> Vec<f64> {
    let steps = runs.iter().flat_map(|run| [run.steps.first(), run.steps.last()]);
    steps.flatten().map(|line| line.step as f64).collect()
}

/// The curves of one run.
pub fn of_run(run: &Run) -> Result<Vec<String>, PlotError> {
    let mut loss = with_mean("training", of_steps(run, unweighted(run)), 0, true);
    let valid = of_validations(run, |line| line.valid_loss);
    if !valid.is_empty() {
        loss.push(Series::new("validation", valid).marked(Mark::Dots).colored(1));
    }
    let mut charts = vec![chart("Loss, unweighted", "nats per token, mean over heads", loss).html()?];
    // On a chart of its own: weights change its level, so it can't be compared with validation.
    let weighted = with_mean("", of_steps(run, |line| line.loss), 0, true);
    charts.push(
        chart(
            "Training loss, weighted",
            "nats per token, the training objective",
            weighted,
        )
        .html()?,
    );
    let mut heads = Vec::new();
    for k in 1..=run.heads() {
        let points = of_steps(run, |line| line.ce(k));
        heads.extend(with_mean(&format!("head {k}"), points, k - 1, true));
    }
    charts.push(
        chart(
            "Cross-entropy of every head in training",
            "nats per token, unweighted",
            heads,
        )
        .html()?,
    );
    // A single validation is no curve; it is among the figures.
    if run.validations.len() > 1 {
        let head = |k: usize| {
            let points = of_validations(run, |line| line.valid_ce_heads.get(k - 1).copied().flatten());
            Series::new(format!("head {k}"), points)
                .marked(Mark::Dots)
                .colored(k - 1)
        };
        let heads = (1..=run.heads()).map(head).collect();
        let mut chart = chart(
            "Cross-entropy of every head in validation",
            "nats per token, unweighted",
            heads,
        );
        chart.x_includes = ends_of(&[run]);
        charts.push(chart.html()?);
    }
    if run.steps.iter().any(|line| line.value_loss.is_some()) {
        let series = with_mean("", of_steps(run, |line| line.value_loss), 0, true);
        charts.push(chart("Loss of the value head", "", series).html()?);
    }
    for figure in &FIGURES {
        let points = of_steps(run, figure.value);
        let mut chart = chart(figure.title, figure.unit, with_mean("", points, 0, figure.noisy));
        chart.y_scale = figure.scale;
        charts.push(chart.html()?);
    }
    Ok(charts)
}

/// The largest weight that the recipe allows, as the heat map marks it. Mode `select` has no cap.
fn cap(run: &Run) -> Vec<(f64, String)> {
    let selects = run.recipe.get("scorer.mode").is_some_and(|mode| mode == "select");
    let cap = run.recipe.get("weights.w_max").and_then(|cap| cap.as_f64());
    let cap = cap.filter(|_| !selects);
    cap.map(|cap| (cap, format!("cap {cap} (weights.w_max)")))
        .into_iter()
        .collect()
}

/// The histograms of the weights, from the lowest to the highest non-empty bin.
pub fn weights(run: &Run) -> Result<Option<String>, PlotError> {
    let used = |bin: &usize| {
        let mut lines = run.histograms.iter();
        lines.any(|line| line.counts.get(*bin).is_some_and(|&count| count > 0))
    };
    let bins = run.edges.len().saturating_sub(1);
    let (Some(first), Some(last)) = ((0..bins).find(used), (0..bins).rev().find(used)) else {
        return Ok(None);
    };
    // One empty bin at both ends and a minimum number of bins: a single bin would fill the chart.
    let (from, to) = (first.saturating_sub(3), (last + 4).min(bins));
    let column = |line: &HistogramLine| {
        let counts = line.counts.get(from..to).unwrap_or_default().iter();
        (line.step as f64, counts.map(|&count| count as f64).collect())
    };
    let map = HeatMap {
        title: "Weights of the response tokens".into(),
        unit: "shade: share of a step's tokens".into(),
        x_label: "step".into(),
        y_label: "weight".into(),
        marks: cap(run),
        edges: run.edges.get(from..=to).unwrap_or_default().to_vec(),
        y_scale: Scale::Log,
        columns: run.histograms.iter().map(column).collect(),
    };
    map.html().map(Some)
}

/// The curves of several runs, overlaid.
pub fn of_runs(runs: &[Run], names: &[String]) -> Result<Vec<String>, PlotError> {
    let named = || runs.iter().zip(names).enumerate();
    let each = |title: &str, unit: &str, scale: Scale, noisy: bool, value: &dyn Fn(&StepLine) -> Option<f64>| {
        let series = named().flat_map(|(i, (run, name))| with_mean(name, of_steps(run, value), i, noisy));
        let mut chart = chart(title, unit, series.collect());
        chart.y_scale = scale;
        chart.html()
    };
    let validations = named()
        .map(|(i, (run, name))| {
            let points = of_validations(run, |line| line.valid_loss);
            Series::new(name, points).marked(Mark::Dots).colored(i)
        })
        .collect();
    let mut validation = chart(
        "Validation loss",
        "nats per token, unweighted, mean over heads",
        validations,
    );
    validation.x_includes = ends_of(&runs.iter().collect::<Vec<_>>());
    let trained = named()
        .flat_map(|(i, (run, name))| with_mean(name, of_steps(run, unweighted(run)), i, true))
        .collect();
    let trained = chart("Training loss, unweighted", "nats per token, mean over heads", trained);
    let mut charts = vec![
        validation.html()?,
        trained.html()?,
        each(
            "Training loss, weighted",
            "nats per token, the training objective",
            Scale::Linear,
            true,
            &|line| line.loss,
        )?,
    ];
    let heads = runs.iter().map(Run::heads).max().unwrap_or(0);
    for k in 1..=heads {
        let title = format!("Cross-entropy of head {k} in training");
        charts.push(each(
            &title,
            "nats per token, unweighted",
            Scale::Linear,
            true,
            &|line| line.ce(k),
        )?);
    }
    for figure in &FIGURES {
        charts.push(each(
            figure.title,
            figure.unit,
            figure.scale,
            figure.noisy,
            &figure.value,
        )?);
    }
    Ok(charts)
}

/// Eight heights of blocks: a curve within a line of text.
pub fn sparkline(points: &[(f64, f64)]) -> String {
    const WIDTH: usize = 32;
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite: Vec<f64> = points.iter().map(|(_, y)| *y).filter(|y| y.is_finite()).collect();
    let together = finite.len().div_ceil(WIDTH).max(1);
    let means: Vec<f64> = finite
        .chunks(together)
        .map(|part| part.iter().sum::<f64>() / part.len() as f64)
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let block = |value: &f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        BLOCKS.get((share * 7.0).round() as usize).copied().unwrap_or('▄')
    };
    means.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_averages_noise() {
        let points: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2) * 2.0)).collect();
        let mean = smoothed(&points);
        assert_eq!(mean.len(), 200);
        assert!(
            mean[20..180].iter().all(|(_, y)| (y - 1.0).abs() < 0.1),
            "{:?}",
            &mean[20..24]
        );
        let few = [(0.0, 3.0), (1.0, 5.0)];
        assert_eq!(smoothed(&few), few, "few points are left as they are");
        let gap = [(0.0, f64::NAN)];
        assert!(smoothed(&gap)[0].1.is_nan());
    }

    #[test]
    fn ends_are_means_of_a_tenth() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(ends(&values), Some((4.5, 94.5)));
        assert_eq!(ends(&[f64::NAN, 2.0, 1.0]), Some((2.0, 1.0)));
        assert_eq!(ends(&[1.0]), None);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, f64::NAN, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_sparkline_falls_as_its_values_do() {
        let falling: Vec<_> = (0..8).map(|i| (f64::from(i), f64::from(8 - i))).collect();
        assert_eq!(sparkline(&falling), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[]), "");
    }
}
