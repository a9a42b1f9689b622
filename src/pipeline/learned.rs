//! What a run learned, from its metrics and the value stage's report: the last lines of `wmtp train`.

use super::StageScore;
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
    /// What the value head knows of held-out solutions.
    pub critic: Option<CriticFigures>,
    /// Pass@1 before training and after each stage, where it was measured.
    pub pass_at_1: Vec<StageScore>,
}

/// How well a value head's mean V, and minus the model's own cross-entropy, tell right from wrong; 0.5 is chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CriticFigures {
    /// AUROC of mean V over all held-out solutions.
    pub across: Option<f64>,
    /// Share of the pairs of one problem that mean V orders.
    pub within: Option<f64>,
    /// AUROC of the likelihood.
    pub likelihood_across: Option<f64>,
    /// Share of the pairs that the likelihood orders.
    pub likelihood_within: Option<f64>,
    /// As in the value stage's report.
    pub beats_likelihood: Option<bool>,
}

impl CriticFigures {
    /// From a value stage's report; None without figures on held-out solutions.
    pub fn of(report: &Value) -> Option<Self> {
        let held_out = report.get("held_out").filter(|figures| !figures.is_null())?;
        let number = |key: &str| held_out[key].as_f64();
        Some(Self {
            across: number("auroc_mean"),
            within: number("within_mean"),
            likelihood_across: number("auroc_ce"),
            likelihood_within: number("within_ce"),
            beats_likelihood: report["beats_likelihood"].as_bool(),
        })
    }

    /// One or two sentences.
    pub fn lines(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let figures = |across, within| format!("{} across problems, {} within", number(across), number(within));
        let mut lines = vec![format!(
            "value head's AUROC on held-out solutions {}; the model's own likelihood {} (0.5 is chance)",
            figures(self.across, self.within),
            figures(self.likelihood_across, self.likelihood_within)
        )];
        if self.beats_likelihood == Some(false) {
            lines.push("the value head does not tell right from wrong better than the model's own likelihood".into());
        }
        lines
    }
}

impl Learned {
    /// Reads a run's directory. A figure that was not recorded is None: the run itself is not failed by it.
    pub fn of(run: &RunDir) -> Self {
        let metrics = fs::read_to_string(run.file(file::METRICS)).unwrap_or_default();
        let report = fs::read_to_string(run.file(file::VALUE_STAGE_REPORT)).unwrap_or_default();
        let report: Value = serde_json::from_str(&report).unwrap_or_default();
        Self {
            critic: CriticFigures::of(&report),
            pass_at_1: StageScore::of(run),
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
            critic: None,
            pass_at_1: Vec::new(),
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
        lines.extend(self.critic.iter().flat_map(CriticFigures::lines));
        let passed = self.pass_at_1.iter().map(StageScore::text);
        if let Some(score) = self.pass_at_1.first() {
            let passed: Vec<String> = passed.collect();
            lines.push(format!(
                "pass@1 on {}, {} problems: {}",
                score.benchmark,
                score.tasks,
                passed.join(", ")
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
    fn a_critic_that_does_not_beat_the_likelihood_is_said_to_be_so() {
        let report = |within: f64, beats: bool| {
            serde_json::json!({
                "held_out": {"auroc_mean": 0.55, "within_mean": within, "auroc_ce": 0.52, "within_ce": 0.562},
                "beats_likelihood": beats
            })
        };
        let lines = CriticFigures::of(&report(0.531, false)).unwrap().lines();
        assert_eq!(
            lines,
            [
                "value head's AUROC on held-out solutions 0.550 across problems, 0.531 within; the model's own likelihood 0.520 across problems, 0.562 within (0.5 is chance)",
                "the value head does not tell right from wrong better than the model's own likelihood"
            ]
        );
        assert_eq!(CriticFigures::of(&report(0.6, true)).unwrap().lines().len(), 1);
        assert_eq!(CriticFigures::of(&serde_json::json!({"held_out": null})), None);
    }

    #[test]
    fn a_run_without_steps_has_nothing_to_say() {
        assert_eq!(Learned::from_metrics(""), Learned::default());
        assert!(Learned::default().lines().is_empty());
    }
}
