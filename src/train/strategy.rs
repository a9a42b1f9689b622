//! The training loop by steps: burn-train's events, metrics, dashboard and interruption around
//! steps, accumulation, clipping, schedule, fallback and checkpoints of our own.
//!
//! The strategy owns model, optimizer and schedule (burn-train's learner clones the model at every
//! optimizer step and offers no optimizer record). It knows no scorer: the module does.

use super::{
    CheckpointError, CheckpointStore, FallbackConfig, OptimConfig, StepBatch, StepLoader, StepOutput, TrainConfig,
    TrainerState, grads,
    optimizer::{adamw, rates},
    progress::Lines,
    schedule::learning_rate,
};
use crate::track::{Event, RunDir, RunError};
use burn::{
    data::dataloader::Progress,
    module::Module,
    optim::{GradientsParams, ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLearningRate},
    train::{
        EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
        SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainStep, TrainingComponents, TrainingItem,
        ValidLoader,
    },
};
use serde::Serialize;
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
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
        "step {step}: {share:.1}% of the weight groups had non-finite scores (scorer `{scorer}`, first in {first}), more than `weights.max_fallback_share` allows"
    )]
    Fallbacks {
        /// Optimizer step.
        step: usize,
        /// Share in percent.
        share: f64,
        /// The scorer's name.
        scorer: String,
        /// Document and token of the first one.
        first: String,
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
    /// The value head's learning rate, where it is trained along.
    pub value_lr: Option<f64>,
    /// Optimizer steps in all.
    pub total_steps: usize,
    /// The scorer's name, for errors.
    pub scorer: String,
    /// Share of groups that may fall back to weight 1.
    pub max_fallback_share: f64,
}

/// The strategy; hand it to burn-train as `TrainingStrategy::Custom`.
pub struct StepStrategy {
    plan: Plan,
    loader: StepLoader,
    run: RunDir,
    store: CheckpointStore,
    start: TrainerState,
    resume: Option<PathBuf>,
    lines: Option<Lines>,
    outcome: Mutex<Option<Result<TrainerState, TrainError>>>,
}

impl StepStrategy {
    /// `loader` is the one also given to burn-train (clones share their position); `resume` is the
    /// checkpoint to continue from, with `start` its state; `lines` prints progress off a terminal.
    pub fn new(
        plan: Plan,
        loader: StepLoader,
        run: RunDir,
        store: CheckpointStore,
        start: TrainerState,
        resume: Option<PathBuf>,
        lines: Option<Lines>,
    ) -> Self {
        Self {
            plan,
            loader,
            run,
            store,
            start,
            resume,
            lines,
            outcome: Mutex::new(None),
        }
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

/// One call of `fit`.
struct Session<'a, M: Trainable> {
    strategy: &'a StepStrategy,
    model: Option<M>,
    optimizer: Option<ModuleOptimizer>,
    state: TrainerState,
    events: SupervisedTrainingEventProcessor<M>,
    interrupter: Interrupter,
    valid: ValidLoader<M>,
}

/// One line of `metrics.jsonl`.
#[derive(Serialize)]
struct MetricsLine {
    step: usize,
    tokens: u64,
    loss: Option<f64>,
    #[serde(flatten)]
    ce: serde_json::Map<String, serde_json::Value>,
    weight_mean: Option<f64>,
    weight_min: Option<f64>,
    weight_max: Option<f64>,
    weight_entropy: Option<f64>,
    weight_fallbacks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_loss: Option<f64>,
    grad_norm: Option<f64>,
    lr: f64,
    applied: bool,
    tok_s: f64,
    mem: Option<u64>,
}

impl<M: Trainable> Session<'_, M> {
    fn run(&mut self, train: &TrainLoader<M>) -> Result<(), TrainError> {
        let plan = &self.strategy.plan;
        self.optimizer = Some(self.fresh_optimizer()?);
        if let Some(from) = &self.strategy.resume {
            self.restore(from)?;
            // What came after the checkpoint will be written again.
            self.strategy.run.truncate("metrics.jsonl", self.state.metrics_bytes)?;
        } else {
            self.save()?;
        }
        while self.state.step < plan.total_steps && !self.state.finished {
            let epoch = self.state.epoch;
            self.strategy.loader.seek(epoch, self.state.step_in_epoch);
            let items = self.strategy.loader.steps(epoch);
            self.event(LearnerEvent::StartSplit {
                epoch_number: epoch + 1,
                total_items: items,
            });
            for batch in train.iter() {
                let batch = batch.map_err(|e| TrainError::Loop(e.to_string()))?;
                if self.state.step >= plan.total_steps || self.interrupter.should_stop() {
                    break;
                }
                self.step(batch, items)?;
                if self.state.finished {
                    break;
                }
            }
            self.event(LearnerEvent::EndSplit(epoch + 1));
            if self.interrupter.should_stop() {
                let reason = self.interrupter.get_message().unwrap_or_else(|| "asked to".into());
                self.log("interrupted", reason)?;
                return self.save();
            }
            if self.state.step_in_epoch >= items {
                self.state.epoch += 1;
                self.state.step_in_epoch = 0;
            }
            let stopped_early = self.state.finished;
            let ended = self.state.step >= plan.total_steps || stopped_early;
            let improved = (plan.train.validate_every == 0 || ended) && !stopped_early && self.validate()?;
            self.event(LearnerEvent::EndEpoch(epoch + 1));
            self.state.finished = ended;
            self.save()?;
            if improved {
                self.keep_best()?;
            }
        }
        Ok(())
    }

    /// One optimizer step: gradients, checks, update, metrics, and what is due after it.
    fn step(&mut self, batch: StepBatch, items: usize) -> Result<(), TrainError> {
        let plan = &self.strategy.plan;
        let started = Instant::now();
        let dump = batch.clone();
        let TrainOutput { mut grads, item } = TrainStep::step(self.model(), batch);
        if let Some(problem) = item.failure {
            return Err(TrainError::Step {
                step: self.state.step,
                problem,
            });
        }
        self.check_fallbacks(&item)?;
        let lr = self.state.lr_scale * learning_rate(&plan.optim, self.state.step, plan.total_steps);
        let norm = grads::global_norm(self.model(), &grads);
        let problem = if item.response_tokens == 0 {
            Some("no response token in the step".to_string())
        } else if !item.loss.is_finite() {
            Some(format!("the loss is {}", item.loss))
        } else if !norm.is_finite() {
            Some(format!("the gradient norm is {norm}"))
        } else {
            None
        };
        let applied = problem.is_none();
        match problem {
            None => {
                let clip = plan.optim.clip_norm;
                if clip > 0.0 && norm > clip {
                    grads::scale(self.model(), &mut grads, clip / norm);
                }
                let value = plan.value_lr.map(|v| v * lr / plan.optim.lr);
                self.update(rates(lr, value).map_err(TrainError::Loop)?, grads);
                self.state.skipped_in_a_row = 0;
            }
            Some(problem) => {
                drop(grads);
                self.skip(&problem, item.response_tokens > 0, &dump)?;
            }
        }
        self.state.step += 1;
        self.state.step_in_epoch += 1;
        self.state.tokens += item.tokens as u64;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        self.record(&item, norm, lr, applied, seconds)?;
        let progress = Progress::new(self.state.step_in_epoch, items, Some("steps".into()));
        let iteration = Some(self.state.step);
        self.event(LearnerEvent::ProcessedItem(TrainingItem::new(
            item,
            progress,
            iteration,
            Some(lr.into()),
        )));
        if self.state.skipped_in_a_row >= plan.fallback.patience.max(1) {
            self.roll_back()?;
        }
        self.housekeeping()
    }

    fn update(&mut self, lr: ModuleLearningRate, grads: GradientsParams) {
        if let (Some(model), Some(optimizer)) = (self.model.take(), self.optimizer.as_mut()) {
            self.model = Some(optimizer.step(lr, model, grads));
        }
    }

    fn skip(&mut self, problem: &str, counts: bool, batch: &StepBatch) -> Result<(), TrainError> {
        let step = self.state.step;
        self.state.skipped += 1;
        if counts {
            self.state.skipped_in_a_row += 1;
            let name = format!("skipped-step-{step:06}.json");
            let tokens: Vec<_> = batch
                .micro
                .iter()
                .map(|b| serde_json::json!({"rows": b.rows, "seq_len": b.seq_len, "tokens": b.tokens, "documents": b.documents.iter().map(|d| &d.name).collect::<Vec<_>>()}))
                .collect();
            self.strategy.run.write_json(&name, &tokens)?;
            return self.log(
                "skip",
                format!("step {step} was not applied: {problem}; its batch is in {name}"),
            );
        }
        self.log("skip", format!("step {step} was not applied: {problem}"))
    }

    /// Halves the learning rate and returns to the last good checkpoint's weights and optimizer
    /// state; the data go on where they are.
    fn roll_back(&mut self) -> Result<(), TrainError> {
        let plan = &self.strategy.plan;
        self.state.skipped_in_a_row = 0;
        if self.state.rollbacks >= plan.fallback.max_rollbacks {
            return Err(TrainError::Diverged {
                step: self.state.step,
                patience: plan.fallback.patience,
                rollbacks: self.state.rollbacks,
                lr: self.state.lr_scale * plan.optim.lr,
                dir: self.strategy.run.path().into(),
            });
        }
        let (path, good) = self.strategy.store.newest(&mut |problem| tracing::warn!("{problem}"))?;
        self.restore(&path)?;
        self.state.rollbacks += 1;
        self.state.lr_scale *= 0.5;
        self.log(
            "rollback",
            format!(
                "back to the weights of step {} after {} failed steps in a row; the learning rate is now {:e}",
                good.step,
                plan.fallback.patience,
                self.state.lr_scale * plan.optim.lr
            ),
        )
    }

    fn housekeeping(&mut self) -> Result<(), TrainError> {
        let train = &self.strategy.plan.train;
        let due = |every: usize, step: usize| every > 0 && step.is_multiple_of(every);
        let step = self.state.step;
        let mut improved = false;
        if due(train.validate_every, step) && step < self.strategy.plan.total_steps {
            improved = self.validate()?;
        }
        // Steps that failed leave weights that are good, but the state is only worth keeping
        // between failures.
        if self.state.skipped_in_a_row > 0 {
            return Ok(());
        }
        if improved || due(train.checkpoint.last_every, step) || due(train.checkpoint.every, step) {
            self.save()?;
        }
        if improved {
            self.keep_best()?;
        }
        if due(train.checkpoint.every, step) {
            self.strategy.store.keep_last_as(&format!("step-{step:06}"))?;
            self.strategy.store.prune(train.checkpoint.keep)?;
        }
        Ok(())
    }

    /// Validates; true if the loss is the best so far. Sets `finished` when early stopping says so.
    fn validate(&mut self) -> Result<bool, TrainError> {
        let Some(model) = &self.model else { return Ok(false) };
        let model = model.valid();
        let total = self.valid.num_items();
        if total == 0 {
            return Ok(false);
        }
        let epoch = self.state.epoch + 1;
        self.report_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: total,
        });
        let (mut sum, mut tokens) = (0.0, 0usize);
        let mut ce: Vec<f64> = Vec::new();
        let valid = self.valid.clone();
        for (done, batch) in valid.iter().enumerate() {
            let batch = batch.map_err(|e| TrainError::Loop(e.to_string()))?;
            let out = InferenceStep::step(&model, batch);
            let n = out.response_tokens;
            sum += out.loss * n as f64;
            tokens += n;
            ce.resize(out.ce_heads.len(), 0.0);
            ce.iter_mut()
                .zip(&out.ce_heads)
                .for_each(|(sum, ce)| *sum += ce * n as f64);
            let progress = Progress::new(done + 1, total, Some("steps".into()));
            self.report_valid(LearnerEvent::ProcessedItem(TrainingItem::new(
                out,
                progress,
                Some(self.state.step),
                None,
            )));
        }
        self.report_valid(LearnerEvent::EndSplit(epoch));
        let loss = sum / tokens.max(1) as f64;
        ce.iter_mut().for_each(|sum| *sum /= tokens.max(1) as f64);
        self.strategy.run.append(
            "metrics.jsonl",
            &serde_json::json!({"step": self.state.step, "valid_loss": loss, "valid_ce_heads": ce}),
        )?;
        if let Some(lines) = &self.strategy.lines {
            lines.validation(self.state.step, loss, &ce);
        }
        self.state.valid_loss = Some(loss);
        let stopping = &self.strategy.plan.train.early_stopping;
        let improved = loss.is_finite() && self.state.best_loss.is_none_or(|best| loss < best - stopping.min_delta);
        if improved {
            self.state.best_loss = Some(loss);
            self.state.validations_without_improvement = 0;
        } else {
            self.state.validations_without_improvement += 1;
            let n = self.state.validations_without_improvement;
            if stopping.patience > 0 && n >= stopping.patience {
                self.state.finished = true;
                self.log("early-stop", format!("{n} validations without improvement"))?;
            }
        }
        Ok(improved)
    }

    fn check_fallbacks(&mut self, item: &StepOutput) -> Result<(), TrainError> {
        self.state.groups += item.groups as u64;
        self.state.fallbacks += item.fallbacks as u64;
        let Some(first) = &item.first_fallback else {
            return Ok(());
        };
        let share = self.state.fallbacks as f64 / self.state.groups.max(1) as f64;
        if share > self.strategy.plan.max_fallback_share {
            return Err(TrainError::Fallbacks {
                step: self.state.step,
                share: 100.0 * share,
                scorer: self.strategy.plan.scorer.clone(),
                first: first.clone(),
            });
        }
        self.log(
            "weight-fallback",
            format!("{} groups had non-finite scores, first {first}", item.fallbacks),
        )
    }

    fn record(&self, item: &StepOutput, norm: f64, lr: f64, applied: bool, seconds: f64) -> Result<(), TrainError> {
        let finite = |x: f64| x.is_finite().then_some(x);
        let ce = item
            .ce_heads
            .iter()
            .enumerate()
            .map(|(k, &ce)| (format!("ce_head_{}", k + 1), ce.into()))
            .collect();
        let line = MetricsLine {
            step: self.state.step,
            tokens: self.state.tokens,
            loss: finite(item.loss),
            ce,
            weight_mean: item.weights.map(|w| w.mean),
            weight_min: item.weights.map(|w| w.min),
            weight_max: item.weights.map(|w| w.max),
            weight_entropy: item.weights.map(|w| w.entropy),
            weight_fallbacks: item.fallbacks,
            value_loss: item.value_loss.and_then(finite),
            grad_norm: finite(norm),
            lr,
            applied,
            tok_s: item.tokens as f64 / seconds,
            mem: crate::track::peak_memory(),
        };
        if let Some(lines) = &self.strategy.lines {
            lines.step(
                self.state.step,
                self.strategy.plan.total_steps,
                item,
                norm,
                lr,
                line.tok_s,
            );
        }
        Ok(self.strategy.run.append("metrics.jsonl", &line)?)
    }

    fn fresh_optimizer(&self) -> Result<ModuleOptimizer, TrainError> {
        adamw(&self.strategy.plan.optim).map_err(TrainError::Loop)
    }

    fn restore(&mut self, from: &Path) -> Result<(), TrainError> {
        let content = |problem: String| CheckpointError::Content {
            path: from.into(),
            problem,
        };
        self.optimizer = None;
        if let Some(model) = self.model.take() {
            self.model = Some(model.read(from).map_err(content)?);
        }
        let optimizer = self.fresh_optimizer()?;
        self.optimizer = Some(
            optimizer
                .load(from.join("optimizer.bpk"))
                .map_err(|e| content(e.to_string()))?,
        );
        Ok(())
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let (Some(model), Some(optimizer)) = (&self.model, &self.optimizer) else {
            return Ok(());
        };
        self.state.metrics_bytes = self.strategy.run.size("metrics.jsonl");
        let path = self.strategy.store.save(&self.state, |dir| {
            let content = |problem: String| CheckpointError::Content {
                path: dir.into(),
                problem,
            };
            model.write(dir).map_err(content)?;
            optimizer
                .save(dir.join("optimizer.bpk"))
                .map_err(|e| content(e.to_string()))
        })?;
        self.log(
            "checkpoint",
            format!("step {} saved as {}", self.state.step, path.display()),
        )
    }

    /// Called right after `save`: `last` is the state whose loss was just found the best.
    fn keep_best(&self) -> Result<(), TrainError> {
        if self.strategy.plan.train.checkpoint.best {
            self.strategy.store.keep_last_as("best")?;
        }
        Ok(())
    }

    fn model(&self) -> &M {
        match &self.model {
            Some(model) => model,
            None => unreachable!("an update always puts the model back"),
        }
    }

    fn log(&self, event: &'static str, reason: String) -> Result<(), TrainError> {
        Ok(self.strategy.run.event(&Event {
            step: self.state.step,
            event,
            reason,
        })?)
    }

    fn event(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.events.process_train(event));
    }

    fn report_valid(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.events.process_valid(event));
    }
}
