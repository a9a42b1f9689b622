//! Progress as plain lines on standard error.

use crate::train::{Progress, TrainStepDone, ValueStep};

/// Prints about fifty lines a run, however long it is.
#[derive(Clone, Debug, Default)]
pub struct Lines;

impl Progress for Lines {
    fn message(&self, text: &str) {
        say!("{text}");
    }

    fn value_step(&self, at: &ValueStep) {
        if is_shown(at.step, at.total, 20) {
            say!("value step {:>4}/{}  loss {:.4}", at.step, at.total, at.loss);
        }
    }

    fn step(&self, at: &TrainStepDone<'_>) {
        if !is_shown(at.step, at.total, 50) {
            return;
        }
        let weights = at
            .item
            .weights
            .map_or(String::new(), |w| format!("  weights {:.2}..{:.2}", w.min, w.max));
        say!(
            "step {:>5}/{}  loss {:.4}  ce {}  |g| {:.3}  lr {:.2e}{weights}  {:.0} tok/s",
            at.step,
            at.total,
            at.item.loss,
            heads(&at.item.ce_heads),
            at.norm,
            at.lr,
            at.tok_s
        );
    }

    fn validation(&self, step: usize, loss: f64, ce: &[f64]) {
        say!("step {step:>5}  validation loss {loss:.4}  ce {}", heads(ce));
    }
}

/// Whether a step is among the about `lines` of `total` that are printed: the first and the last are.
fn is_shown(step: usize, total: usize, lines: usize) -> bool {
    step == 1 || step == total || step.is_multiple_of((total / lines).max(1))
}

fn heads(ce: &[f64]) -> String {
    ce.iter().map(|c| format!("{c:.3}")).collect::<Vec<_>>().join(" ")
}
