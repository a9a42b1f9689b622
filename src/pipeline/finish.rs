//! What is left to do when training has ended, however it did: an event, the report, the summary.

use super::{Learned, PipelineError, TrainSummary, ValueReport};
use crate::{
    run::{Event, RunDir, TrainerState, file, peak_memory},
    track::TrackingSummary,
    train::TrainError,
};
use std::time::Instant;

/// The error that ends a run, among its events. The error itself is what the caller hears of.
pub(super) fn note_failure(run: &RunDir, error: &PipelineError) {
    let step = match error {
        PipelineError::Train(
            TrainError::Step { step, .. }
            | TrainError::Diverged { step, .. }
            | TrainError::Fallbacks { step, .. }
            | TrainError::Failed { step, .. },
        ) => *step,
        _ => 0,
    };
    let event = Event {
        step,
        event: "failed",
        reason: error.to_string(),
    };
    if let Err(error) = run.event(&event) {
        eprintln!("warning: {error}");
    }
}

/// The run's report, finished or not. A run that trained is not failed by a page that can't be written.
pub(super) fn write_report(run: &RunDir) {
    if let Err(error) = crate::report::write(run.path(), None) {
        eprintln!("warning: {error}; `wmtp report` makes it again");
    }
}

/// How training ended, for the caller.
pub(super) fn summary(
    run: &RunDir,
    state: &TrainerState,
    started: Instant,
    value: Option<ValueReport>,
    tracking: Option<TrackingSummary>,
) -> TrainSummary {
    TrainSummary {
        run_dir: run.path().into(),
        checkpoint: run.best_or_last(),
        steps: state.step,
        skipped: state.skipped,
        tokens: state.tokens,
        valid_loss: state.valid_loss,
        best_loss: state.best_loss,
        finished: state.finished,
        seconds: started.elapsed().as_secs_f64(),
        peak_memory: peak_memory(),
        value,
        learned: Learned::of(run),
        report: run.file(file::REPORT_HTML),
        tracking,
        upload: None,
    }
}
