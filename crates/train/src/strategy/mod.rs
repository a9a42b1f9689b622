//! The training loop by steps: burn-train's events, metrics and interruption around
//! steps, accumulation, clipping, schedule, fallback and checkpoints of our own.
//!
//! The strategy owns model, optimizer and schedule (burn-train's learner clones the model at every
//! optimizer step and offers no optimizer record). It knows no scorer: the module does.

mod checkpoints;
mod documents;
mod metrics;
mod session;
mod validation;

use super::{
    Quiet, Stage, TrainError, Trainable,
    optimizer::{GradientScale, optimizer},
};
use burn::{
    optim::lr_scheduler::constant::ConstantLr,
    train::{
        Learner, SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
        TrainingComponents, TrainingStrategy, ValidLoader, logger::InMemoryMetricLogger,
    },
};
use session::Session;
use std::sync::{Arc, Mutex, PoisonError};
use wmtp_run::{TrainerState, file};

pub use session::SessionSetup;

/// Trains `module` to the end of its plan, or until it is asked to stop: the one loop of both stages.
/// `epochs` is what burn-train expects.
///
/// # Errors
/// A step or a file that cannot be computed or written; training that diverged.
pub fn train<M: Trainable>(module: M, setup: SessionSetup, epochs: usize) -> Result<TrainerState, TrainError> {
    if setup.start.finished {
        // What a run owes that died right after its last step.
        if setup.plan.stage == Stage::Weighted && setup.resume.as_ref().is_some_and(|from| from.ends_with(file::LAST)) {
            setup.keep(&setup.start)?;
        }
        return Ok(setup.start);
    }
    // burn-train wants an optimizer and a schedule; the session makes its own.
    let unused = optimizer(&setup.plan.optim, &GradientScale::default())?;
    let directory = setup.run.path().to_path_buf();
    let (loader, valid, stop) = (setup.loader.clone(), setup.valid.clone(), setup.stop.clone());
    let strategy = Arc::new(StepStrategy {
        setup,
        outcome: Mutex::new(None),
    });
    let training = SupervisedTraining::new(&directory, Arc::new(loader), Arc::new(valid))
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_metric_logger(InMemoryMetricLogger::default())
        .with_application_logger(None)
        .num_epochs(epochs)
        .renderer(Box::new(Quiet));
    let interrupter = training.interrupter();
    let _watch = stop.watch(move || interrupter.stop(Some("asked to stop")));
    let result = training.launch(Learner::new(module, unused, ConstantLr::from(0.0)));
    let error = result.error.clone();
    drop(result);
    let outcome = strategy.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, error) {
        (Some(Err(error)), _) => Err(error),
        (_, Some(error)) => Err(TrainError::Loop(error.into())),
        (Some(Ok(state)), None) => Ok(state),
        (None, None) => Err(TrainError::Loop("burn-train ended without running the strategy".into())),
    }
}

/// The strategy that burn-train calls. It can return a model only, so how training ended is left in
/// `outcome`.
struct StepStrategy {
    setup: SessionSetup,
    outcome: Mutex<Option<Result<TrainerState, TrainError>>>,
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
            setup: &self.setup,
            model: Some(model),
            optimizer: None,
            clip: GradientScale::default(),
            state: self.setup.start.clone(),
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
