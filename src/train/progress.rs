//! Progress of a run for people: plain lines on standard error, or the dashboard on a terminal.

use super::StepOutput;

/// A step of the value stage.
#[derive(Clone, Copy, Debug)]
pub struct ValueStep {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the stage.
    pub total: usize,
    /// Its loss.
    pub loss: f64,
    /// Global gradient norm, before clipping.
    pub norm: f64,
    /// Learning rate.
    pub lr: f64,
}

/// An optimizer step of the weighted stage.
#[derive(Clone, Copy, Debug)]
pub struct TrainStepDone<'a> {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the run.
    pub total: usize,
    /// Loss, cross-entropies and weights.
    pub item: &'a StepOutput,
    /// Global gradient norm, before clipping.
    pub norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens read per second of wall-clock time.
    pub tok_s: f64,
    /// Peak resident memory of the process in bytes.
    pub memory: Option<u64>,
}

/// Shows progress. Calls come from the thread that trains; none may block it for long.
pub trait Progress: Send + Sync {
    /// A sentence for people.
    fn message(&self, text: &str);

    /// A step of the value stage was done.
    fn value_step(&self, step: &ValueStep);

    /// An optimizer step was done.
    fn step(&self, step: &TrainStepDone<'_>);

    /// A part of a validation was done.
    fn validating(&self, _done: usize, _total: usize) {}

    /// A validation was done: unweighted loss and each head's cross-entropy in nats.
    fn validation(&self, step: usize, loss: f64, ce: &[f64]);

    /// An event was recorded in `events.jsonl`.
    fn event(&self, _event: &str, _reason: &str) {}

    /// Nothing more is shown: what comes next is printed.
    fn close(&self) {}
}

/// Prints about fifty lines a run, however long it is.
#[derive(Clone, Debug, Default)]
pub struct Lines;

impl Progress for Lines {
    fn message(&self, text: &str) {
        eprintln!("{text}");
    }

    fn value_step(&self, at: &ValueStep) {
        if is_shown(at.step, at.total, 20) {
            eprintln!("value step {:>4}/{}  loss {:.4}", at.step, at.total, at.loss);
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
        eprintln!(
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
        eprintln!("step {step:>5}  validation loss {loss:.4}  ce {}", heads(ce));
    }
}

/// Whether a step is among the about `lines` of `total` that are printed: the first and the last are.
fn is_shown(step: usize, total: usize, lines: usize) -> bool {
    step == 1 || step == total || step.is_multiple_of((total / lines).max(1))
}

fn heads(ce: &[f64]) -> String {
    ce.iter().map(|c| format!("{c:.3}")).collect::<Vec<_>>().join(" ")
}
