use super::optimizer::PatternError;
use std::{path::PathBuf, sync::Arc};
use wmtp_device::ReadError;
use wmtp_run::{CheckpointError, RunError};
use wmtp_scorer::ScorerError;

/// Why training ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run directory could not be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A step could not be computed: the scorer could not score, say.
    #[error("step {step}: {source}")]
    Step {
        /// Optimizer step.
        step: usize,
        /// What went wrong.
        source: Arc<ScorerError>,
    },
    /// A device failed to hand over what was computed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The optimizer could not be set up.
    #[error(transparent)]
    Optimizer(#[from] PatternError),
    /// Section 7's last resort.
    #[error("training stopped at step {step}: the loss or gradient norm was not finite {patience} times in a row, after {rollbacks} returns to a checkpoint; lower `{lr_key}` (now {lr:e}) or look at the dumped batches in `{}`", dir.display())]
    Diverged {
        /// Optimizer step.
        step: usize,
        /// `fallback.patience`.
        patience: usize,
        /// `fallback.max_rollbacks`.
        rollbacks: usize,
        /// The learning rate's setting.
        lr_key: &'static str,
        /// The learning rate in force.
        lr: f64,
        /// The run directory.
        dir: PathBuf,
    },
    /// Too many groups fell back to weight 1.
    #[error(
        "step {step}: {fallbacks} of {groups} weight groups had non-finite scores (scorer `{scorer}`, first in {first}), more than `weights.max_fallback_share` {max_share} allows"
    )]
    Fallbacks {
        /// Optimizer step.
        step: usize,
        /// Groups that fell back to weight 1 so far.
        fallbacks: u64,
        /// Groups so far.
        groups: u64,
        /// The setting.
        max_share: f64,
        /// The scorer's name.
        scorer: String,
        /// Document and token of the first one.
        first: String,
    },
    /// All steps are done, and the run is good for nothing.
    #[error("training failed: {problem}")]
    Failed {
        /// Optimizer steps.
        step: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// burn-train reported an error of its own.
    #[error("the training loop failed: {0}")]
    Loop(#[source] Box<dyn std::error::Error + Send + Sync>),
}
