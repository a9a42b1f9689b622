//! What a run or a sweep has to say to people. Libraries never print: they call a [`Progress`], and the
//! command line decides how it looks.

use super::StepOutput;
use std::io;
use wmtp_base::stop::Stop;

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

/// Receives what is reported. Calls come from the threads that work; none may block them for long.
pub trait Progress: Send + Sync {
    /// A sentence for people.
    fn message(&self, text: &str);

    /// A sentence about something that went wrong and does not end the work.
    fn warning(&self, text: &str) {
        self.message(&format!("warning: {text}"));
    }

    /// Training of `run` begins: a display may take the terminal over until [`Self::close`]. `what` is the
    /// pipeline, the model and the device; its keys may ask `stop`.
    ///
    /// # Errors
    /// The display can't be shown.
    fn open(&self, _run: &str, _what: &str, _stop: &Stop) -> io::Result<()> {
        Ok(())
    }

    /// A step of the value stage was done.
    fn value_step(&self, _step: &ValueStep) {}

    /// An optimizer step was done.
    fn step(&self, _step: &TrainStepDone<'_>) {}

    /// A part of a validation was done.
    fn validating(&self, _done: usize, _total: usize) {}

    /// A validation was done: unweighted loss and each head's cross-entropy in nats.
    fn validation(&self, _step: usize, _loss: f64, _ce: &[f64]) {}

    /// An event was recorded in `events.jsonl`.
    fn event(&self, _event: &str, _reason: &str) {}

    /// Training has ended: the terminal is free again.
    fn close(&self) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn message(&self, _text: &str) {}
}
