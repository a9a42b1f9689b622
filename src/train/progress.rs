//! Progress as plain lines on standard error.

use super::StepOutput;

/// Prints about fifty lines a run, however long it is.
#[derive(Clone, Debug)]
pub struct Lines {
    every: usize,
}

impl Lines {
    /// For a run of so many steps.
    pub fn new(total_steps: usize) -> Self {
        Self {
            every: (total_steps / 50).max(1),
        }
    }

    /// A step was done.
    pub fn step(&self, step: usize, total: usize, item: &StepOutput, norm: f64, lr: f64, tok_s: f64) {
        if !step.is_multiple_of(self.every) && step != total && step != 1 {
            return;
        }
        let weights = item
            .weights
            .map_or(String::new(), |w| format!("  weights {:.2}..{:.2}", w.min, w.max));
        eprintln!(
            "step {step:>5}/{total}  loss {:.4}  ce {}  |g| {norm:.3}  lr {lr:.2e}{weights}  {tok_s:.0} tok/s",
            item.loss,
            heads(&item.ce_heads)
        );
    }

    /// A validation was done.
    pub fn validation(&self, step: usize, loss: f64, ce: &[f64]) {
        eprintln!("step {step:>5}  validation loss {loss:.4}  ce {}", heads(ce));
    }
}

fn heads(ce: &[f64]) -> String {
    ce.iter().map(|c| format!("{c:.3}")).collect::<Vec<_>>().join(" ")
}
