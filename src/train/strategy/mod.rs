//! The training loop by steps: burn-train's events, metrics and interruption around
//! steps, accumulation, clipping, schedule, fallback and checkpoints of our own.
//!
//! The strategy owns model, optimizer and schedule (burn-train's learner clones the model at every
//! optimizer step and offers no optimizer record). It knows no scorer: the module does.

mod keep;
mod observe;
mod record;
mod session;
mod validation;

use super::{
    CheckpointError, CheckpointStore, FallbackConfig, Observed, OptimConfig, Samples, StepBatch, StepLoader, StepNames,
    StepOutput, TrainConfig, TrainerState,
    optimizer::GradientScale,
    progress::Progress,
    schedule::{learning_rate, rise},
};
use crate::{
    data::Batch,
    stop::Stop,
    track::{RunDir, RunError},
};
use burn::{
    module::Module,
    train::{
        InferenceStep, Learner, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
        TrainingComponents, ValidLoader,
    },
};
use session::Session;
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A module that this strategy can train and checkpoint.
pub trait Trainable:
    TrainStep<Input = StepBatch, Output = StepOutput>
    + InferenceStep<Input = StepBatch, Output = StepOutput>
    + Module
    + Display
    + 'static
{
    /// Writes the model's files into a checkpoint's directory; f32, bit for bit.
    fn write(&self, dir: &Path) -> Result<(), String>;

    /// The module with the weights that [`Trainable::write`] left in a directory.
    fn read(self, dir: &Path) -> Result<Self, String>;

    /// What it makes of some documents, token by token, for reports. It changes nothing that later
    /// steps depend on.
    fn observe(&self, _batches: &[Batch]) -> Vec<Observed> {
        Vec::new()
    }
}

/// Why training ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run directory could not be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The scorer could not score.
    #[error("step {step}: {problem}")]
    Step {
        /// Optimizer step.
        step: usize,
        /// What went wrong.
        problem: String,
    },
    /// Section 7's last resort.
    #[error("training stopped at step {step}: the loss or gradient norm was not finite {patience} times in a row, after {rollbacks} returns to a checkpoint; lower `optim.lr` (now {lr:e}) or look at the dumped batches in `{}`", dir.display())]
    Diverged {
        /// Optimizer step.
        step: usize,
        /// `fallback.patience`.
        patience: usize,
        /// `fallback.max_rollbacks`.
        rollbacks: usize,
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
    Loop(String),
}

/// What the strategy follows, beside the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Optimizer settings.
    pub optim: OptimConfig,
    /// Length, checkpoints, validation, early stopping.
    pub train: TrainConfig,
    /// What happens when a step fails.
    pub fallback: FallbackConfig,
    /// The value head's peak learning rate, where it is trained along.
    pub value_lr: Option<f64>,
    /// Optimizer steps in all.
    pub total_steps: usize,
    /// The scorer's name, for errors.
    pub scorer: String,
    /// Share of groups that may fall back to weight 1.
    pub max_fallback_share: f64,
}

impl Plan {
    /// The learning rate of an optimizer step (from 0): the head warm-up's, then the schedule of
    /// `optim` over the steps that are left. A warm-up that is the whole run falls as `optim` would.
    pub fn learning_rate(&self, step: usize) -> f64 {
        let warmup = &self.train.head_warmup;
        let heads = warmup.steps.min(self.total_steps);
        match step.checked_sub(heads) {
            None if heads == self.total_steps => {
                let optim = OptimConfig {
                    lr: warmup.lr,
                    ..self.optim.clone()
                };
                learning_rate(&optim, step, heads)
            }
            None => warmup.lr * rise(&self.optim, step, heads),
            Some(step) => learning_rate(&self.optim, step, self.total_steps - heads),
        }
    }

    /// The value head's learning rate at an optimizer step (from 0), where it is trained along: the
    /// schedule of `optim` from its own peak over all steps, a head warm-up or not.
    pub fn value_rate(&self, step: usize) -> Option<f64> {
        let optim = OptimConfig {
            lr: self.value_lr?,
            ..self.optim.clone()
        };
        Some(learning_rate(&optim, step, self.total_steps))
    }
}

/// The strategy; hand it to burn-train as `TrainingStrategy::Custom`.
pub struct StepStrategy {
    plan: Plan,
    loader: StepLoader,
    run: RunDir,
    store: CheckpointStore,
    start: TrainerState,
    resume: Option<PathBuf>,
    progress: Arc<dyn Progress>,
    stop: Stop,
    samples: Samples,
    names: StepNames,
    outcome: Mutex<Option<Result<TrainerState, TrainError>>>,
}

impl StepStrategy {
    /// `loader` is the one also given to burn-train (clones share their position); `resume` is the
    /// checkpoint to continue from, with `start` its state; `progress` shows every step.
    pub fn new(
        plan: Plan,
        loader: StepLoader,
        run: RunDir,
        store: CheckpointStore,
        start: TrainerState,
        resume: Option<PathBuf>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            plan,
            loader,
            run,
            store,
            start,
            resume,
            progress,
            stop: Stop::default(),
            samples: Samples::default(),
            names: StepNames::default(),
            outcome: Mutex::new(None),
        }
    }

    /// The same, with documents that are looked at token by token now and then.
    #[must_use]
    pub fn with_samples(mut self, samples: Samples) -> Self {
        self.samples = samples;
        self
    }

    /// The same, asking `stop` whether an interrupted run saves a checkpoint.
    #[must_use]
    pub fn with_stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The same, with the names of the documents for `steps.jsonl`.
    #[must_use]
    pub fn with_names(mut self, names: StepNames) -> Self {
        self.names = names;
        self
    }

    /// How training ended; None before it did.
    pub fn take_outcome(&self) -> Option<Result<TrainerState, TrainError>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<M: Trainable> SupervisedLearningStrategy<M> for StepStrategy {
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let model = learner.model();
        // The learner's clone of the weights would make every update copy them.
        drop(learner);
        let mut session = Session {
            strategy: self,
            model: Some(model),
            optimizer: None,
            clip: GradientScale::default(),
            state: self.start.clone(),
            events: components.event_processor,
            interrupter: components.interrupter,
            valid,
        };
        let result = session.run(&train);
        if let Err(error) = &result {
            session.interrupter.stop(Some(&error.to_string()));
        }
        let Session {
            model, events, state, ..
        } = session;
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.map(|()| state));
        // `model` is only absent inside an update, which can't be interrupted.
        let Some(model) = model else {
            unreachable!("an update always puts the model back")
        };
        (model, events)
    }
}
