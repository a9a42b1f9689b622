//! What a run learned, from its metrics and the value stage's report: the last lines of `wmtp train`.

use crate::run::{RunDir, file};
use serde::Serialize;
use serde_json::Value;
use std::fs;

/// First and last figures of a run; losses are in nats.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Learned {
    /// Mean training loss over the first tenth of the steps, weighted.
    pub first_loss: Option<f64>,
    /// The same over the last tenth.
    pub last_loss: Option<f64>,
    /// The first validation: step and unweighted loss. Step 0 is the model before training.
    pub first_valid: Option<(u64, f64)>,
    /// The last validation, if there was more than one.
    pub last_valid: Option<(u64, f64)>,
    /// The value head's AUROC by its last value on held-out solutions; 0.5 is chance.
    pub auroc: Option<f64>,
}

impl Learned {
    /// Reads a run's directory. A figure that was not recorded is None: the run itself is not failed by it.
    pub fn of(run: &RunDir) -> Self {
        let metrics = fs::read_to_string(run.file(file::METRICS)).unwrap_or_default();
        let report = fs::read_to_string(run.file(file::VALUE_STAGE_REPORT)).unwrap_or_default();
        let report: Value = serde_json::from_str(&report).unwrap_or_default();
        Self {
            auroc: report["held_out"]["auroc_last"].as_f64(),
            ..Self::from_metrics(&metrics)
        }
    }

    fn from_metrics(text: &str) -> Self {
        let lines = || text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let losses: Vec<f64> = lines().filter_map(|line| line["loss"].as_f64()).collect();
        let valid: Vec<(u64, f64)> = lines()
            .filter_map(|line| Some((line["step"].as_u64()?, line["valid_loss"].as_f64()?)))
            .collect();
        let tenth = losses.len().div_ceil(10);
        let mean = |losses: &[f64]| (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64);
        Self {
            first_loss: mean(&losses[..tenth]),
            last_loss: mean(&losses[losses.len() - tenth..]),
            first_valid: valid.first().copied(),
            last_valid: valid.last().copied().filter(|_| valid.len() > 1),
            auroc: None,
        }
    }

    /// One sentence a figure.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(first), Some(last)) = (self.first_loss, self.last_loss) {
            lines.push(format!(
                "training loss {first:.3} -> {last:.3} (weighted; means of the first and last tenth of the steps)"
            ));
        }
        let at = |step: u64| match step {
            0 => "before step 1".into(),
            step => format!("after step {step}"),
        };
        match (self.first_valid, self.last_valid) {
            (Some((from, first)), Some((to, last))) => lines.push(format!(
                "validation loss {first:.3} -> {last:.3} ({}, {})",
                at(from),
                at(to)
            )),
            (Some((step, loss)), None) => lines.push(format!("validation loss {loss:.3} ({})", at(step))),
            _ => {}
        }
        if let Some(auroc) = self.auroc {
            lines.push(format!(
                "value head's AUROC on held-out solutions {auroc:.3} (0.5 is chance)"
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_and_validations_are_read_from_the_metrics() {
        let mut text = String::from("{\"step\": 0, \"valid_loss\": 7.0, \"valid_ce_heads\": [7.0]}\n");
        for step in 1..=20 {
            text.push_str(&format!("{{\"step\": {step}, \"loss\": {}}}\n", 21 - step));
        }
        text.push_str("{\"step\": 21, \"loss\": null}\n{\"step\": 21, \"valid_loss\": 1.25}\n");
        let learned = Learned::from_metrics(&text);
        assert_eq!(learned.first_loss, Some(19.5));
        assert_eq!(learned.last_loss, Some(1.5));
        assert_eq!(learned.first_valid, Some((0, 7.0)));
        assert_eq!(learned.last_valid, Some((21, 1.25)));
        assert_eq!(
            learned.lines(),
            [
                "training loss 19.500 -> 1.500 (weighted; means of the first and last tenth of the steps)",
                "validation loss 7.000 -> 1.250 (before step 1, after step 21)"
            ]
        );
    }

    #[test]
    fn a_run_without_steps_has_nothing_to_say() {
        assert_eq!(Learned::from_metrics(""), Learned::default());
        assert!(Learned::default().lines().is_empty());
    }
}
