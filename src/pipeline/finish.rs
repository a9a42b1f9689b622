//! What is left to do when training has ended, however it did: an event, the report, the summary.

use super::{Learned, PipelineError, UploadSummary, ValueReport, request::Request};
use crate::{
    report::ReportError,
    run::{Event, RunDir, StepLine, TrainerState, file, peak_memory},
    track::TrackingSummary,
    train::TrainError,
};
use serde::Serialize;
use std::{fs, path::PathBuf, time::Instant};

/// How a training run ended.
#[derive(Clone, Debug, Serialize)]
pub struct TrainSummary {
    /// The run's directory.
    pub run_dir: PathBuf,
    /// The checkpoint to use: `best` where there is one, else `last`.
    pub checkpoint: PathBuf,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Of those, not applied.
    pub skipped: usize,
    /// Tokens read.
    pub tokens: u64,
    /// Newest validation loss (unweighted, mean over heads, nats).
    pub valid_loss: Option<f64>,
    /// Best validation loss.
    pub best_loss: Option<f64>,
    /// False if it was interrupted.
    pub finished: bool,
    /// Wall-clock seconds of this process.
    pub seconds: f64,
    /// Peak resident memory in bytes.
    pub peak_memory: Option<u64>,
    /// What the value stage learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueReport>,
    /// First and last losses, and what the value head knows.
    pub learned: Learned,
    /// The run's page.
    pub report: PathBuf,
    /// How far the run's trackers are; None if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<TrackingSummary>,
    /// What became of the upload.
    #[serde(rename = "copy", skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadSummary>,
}

/// The error that ends a run, among its events. The caller gets the error itself.
pub(super) fn note_failure(request: &Request, run: &RunDir, error: &PipelineError) {
    let step = match error {
        PipelineError::Train(
            TrainError::Step { step, .. }
            | TrainError::Diverged { step, .. }
            | TrainError::Fallbacks { step, .. }
            | TrainError::Failed { step, .. },
        ) => *step,
        // A checkpoint that could not be written, for one.
        _ => last_step(&fs::read_to_string(run.file(file::METRICS)).unwrap_or_default()),
    };
    let event = Event {
        step,
        event: "failed",
        reason: error.to_string(),
    };
    if let Err(error) = run.event(&event) {
        request.progress.warning(&error.to_string());
    }
}

/// The step of the last line of `metrics.jsonl` that can be read; 0 without one.
fn last_step(metrics: &str) -> usize {
    let mut lines = metrics.lines().rev();
    let last = lines.find_map(|line| serde_json::from_str::<StepLine>(line).ok());
    last.map_or(0, |line| line.step)
}

/// The run's report, finished or not. A run that trained is not failed by a page that can't be written.
pub(super) fn write_report(request: &Request, run: &RunDir) {
    if let Err(error) = crate::report::write(run.path(), None) {
        let problem = match &error {
            // Of a directory whose `run.json` is damaged there is no report, whoever asks.
            ReportError::NoRun { .. } => format!("{error}; put `run.json` back, and `wmtp report` makes the report"),
            _ => format!("{error}; `wmtp report` makes it again"),
        };
        request.progress.warning(&problem);
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

#[cfg(test)]
mod tests {
    use super::last_step;

    #[test]
    fn the_last_step_is_that_of_the_last_whole_line() {
        assert_eq!(last_step(""), 0);
        let metrics = "{\"step\": 0, \"valid_loss\": 7.0}\n{\"step\": 25, \"loss\": 5.3}\n{\"step\": 26, \"lo";
        assert_eq!(last_step(metrics), 25);
    }
}
