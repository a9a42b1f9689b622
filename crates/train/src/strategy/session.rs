//! One run of the loop: steps, updates, skips, returns to a checkpoint, and what is due after a step.

use crate::{
    Kept, Plan, Samples, Stage, StepBatch, StepLoader, StepOutput, TrainError, Trainable, grads,
    optimizer::{GradientScale, clip_factor, optimizer, rates},
    progress,
    step::{names_of, sample_numbers},
};
use burn::{
    data::dataloader::Progress,
    optim::{GradientsParams, ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLearningRate},
    train::{
        EventProcessorTraining, Interrupter, LearnerEvent, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput,
        TrainStep, TrainingItem, ValidLoader,
    },
};
use std::{path::PathBuf, sync::Arc, time::Instant};
use wmtp_base::stop::Stop;
use wmtp_run::{CheckpointStore, RunDir, StepDocuments, StepNames, TrainerState, file};
use wmtp_scorer::FallbackTally;

/// What a session trains with, apart from the module.
pub struct SessionSetup {
    /// Steps, schedule, checkpoints and the rest of the settings.
    pub plan: Plan,
    /// The steps. Clones share their position.
    pub loader: StepLoader,
    /// Held-out documents, a micro-batch a step.
    pub valid: StepLoader,
    /// Where metrics, events and records are written.
    pub run: RunDir,
    /// Where checkpoints are.
    pub store: CheckpointStore,
    /// The state to start with.
    pub start: TrainerState,
    /// The checkpoint that holds this state; None for a session that begins.
    pub resume: Option<PathBuf>,
    /// Shows every step.
    pub progress: Arc<dyn progress::Progress>,
    /// Asks the session to end, and says whether it saves a checkpoint then.
    pub stop: Stop,
    /// Documents that are recorded token by token now and then.
    pub samples: Samples,
    /// The names of the documents for `steps.jsonl`.
    pub names: StepNames,
}

/// The learning rates of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// The model's.
    pub lr: f64,
    /// The value head's, where it is trained along.
    pub value_lr: Option<f64>,
}

impl SessionSetup {
    /// Keeps `last`, which has this state, under the names that the state says, with what the recipe wants of it.
    pub(super) fn keep(&self, state: &TrainerState) -> Result<(), TrainError> {
        let config = &self.plan.train.checkpoint;
        let content = Kept::from(config);
        for name in &state.kept_as {
            if name != file::BEST || config.best {
                self.store.keep(name, |last, kept| content.fill(last, kept))?;
            }
            if name != file::BEST {
                self.store.prune(config.keep)?;
            }
        }
        Ok(())
    }
}

/// One call of `fit`.
pub(super) struct Session<'a, M: Trainable> {
    pub(super) setup: &'a SessionSetup,
    pub(super) model: Option<M>,
    pub(super) optimizer: Option<ModuleOptimizer>,
    /// What clipping multiplies the gradients of the step by, read by the optimizer.
    pub(super) clip: GradientScale,
    pub(super) state: TrainerState,
    pub(super) events: SupervisedTrainingEventProcessor<M>,
    pub(super) interrupter: Interrupter,
    pub(super) valid: ValidLoader<M>,
}

impl<M: Trainable> Session<'_, M> {
    pub(super) fn run(&mut self, train: &TrainLoader<M>) -> Result<(), TrainError> {
        let plan = &self.setup.plan;
        self.optimizer = Some(self.fresh_optimizer()?);
        if let Some(from) = &self.setup.resume {
            self.restore(from)?;
            // What came after the checkpoint will be written again.
            self.cut_back()?;
            if from.ends_with(file::LAST) {
                self.setup.keep(&self.state)?;
            }
        } else {
            self.begin_records()?;
            if plan.stage == Stage::Weighted {
                self.validate_first()?;
            }
            self.save(Vec::new())?;
        }
        // Also when all steps are done: a run killed before its last validation still owes it.
        while !self.state.finished {
            let epoch = self.state.epoch;
            self.setup.loader.seek(epoch, self.state.step_in_epoch);
            let items = self.setup.loader.steps(epoch);
            self.event(LearnerEvent::StartSplit {
                epoch_number: epoch + 1,
                total_items: items,
            });
            for batch in train.iter() {
                let batch = batch.map_err(|e| TrainError::Loop(e.into()))?;
                if self.state.step >= plan.total_steps || self.interrupter.should_stop() {
                    break;
                }
                self.step(batch, items)?;
                if self.state.finished {
                    break;
                }
            }
            self.event(LearnerEvent::EndSplit(epoch + 1));
            if self.interrupter.should_stop() && self.state.step < plan.total_steps {
                let reason = self.interrupter.get_message().unwrap_or_else(|| "asked to".into());
                self.log("interrupted", reason)?;
                if self.setup.stop.saves() {
                    self.save(Vec::new())?;
                }
                return Ok(());
            }
            if self.state.step_in_epoch >= items {
                self.state.epoch += 1;
                self.state.step_in_epoch = 0;
            }
            // Where a validation between the steps stopped the run, it was the last one.
            let stopped_early = self.state.finished;
            let all_steps = self.state.step >= plan.total_steps;
            let all_epochs = plan.max_epochs.is_some_and(|most| self.state.epoch >= most);
            let ended = all_steps || all_epochs || stopped_early;
            // Where epochs end a session before all steps were done, its last validation counts.
            let owed = plan.train.validate_every == 0 || all_steps || (all_epochs && self.state.valid_loss.is_none());
            let improved = owed && !stopped_early && self.validate()?;
            self.event(LearnerEvent::EndEpoch(epoch + 1));
            // This validation may have stopped the run, too: what it set stays.
            self.state.finished |= ended;
            if self.state.finished {
                self.state.failed = self.failure()?;
                self.record_last_tokens()?;
            }
            self.save(improved.then(|| file::BEST.to_owned()).into_iter().collect())?;
        }
        Ok(())
    }

    /// One optimizer step: gradients, checks, update, metrics, and what is due after it.
    fn step(&mut self, mut batch: StepBatch, items: usize) -> Result<(), TrainError> {
        let plan = &self.setup.plan;
        let started = Instant::now();
        batch.step = self.state.step;
        batch.heads_only = self.state.step < plan.train.head_warmup.steps;
        let dump = batch.clone();
        let documents = StepDocuments {
            documents: sample_numbers(&dump.micro_batches),
            labelled: sample_numbers(&dump.labelled),
            names: names_of(&dump, &self.setup.names),
            ..StepDocuments::default()
        };
        let TrainOutput { grads, item } = TrainStep::step(self.model(), batch);
        if let Some(source) = item.failure {
            return Err(TrainError::Step {
                step: self.state.step,
                source,
            });
        }
        if item.nothing_to_compare {
            self.state.step_in_epoch += 1;
            return Ok(());
        }
        let lr = self.state.lr_scale * plan.learning_rate(self.state.step);
        let value_lr = plan.value_rate(self.state.step).map(|rate| self.state.lr_scale * rate);
        let norm = grads::global_norm(self.model(), &grads)?;
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
        if applied {
            // Where the loss is not finite either, that is the cause, and skipping and returning its cure.
            self.check_fallbacks(&item)?;
        }
        match problem {
            None => {
                self.clip.set(clip_factor(norm, plan.optim.clip_norm));
                self.update(rates(lr, value_lr)?, grads);
                (self.state.skipped_in_a_row, self.state.unapplied) = (0, 0);
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
        self.record(&item, norm, Rates { lr, value_lr }, applied, seconds)?;
        self.record_documents(documents)?;
        self.record_weights(&item)?;
        let progress = Progress::new(self.state.step_in_epoch, items, Some("steps".into()));
        let iteration = Some(self.state.step);
        self.event(LearnerEvent::ProcessedItem(TrainingItem::new(
            item,
            progress,
            iteration,
            Some(lr.into()),
        )));
        let returns = self.state.skipped_in_a_row >= plan.fallback.patience.max(1);
        if returns {
            self.roll_back()?;
        }
        self.housekeeping(returns)
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
            self.state.unapplied += 1;
            let name = self.setup.plan.stage.dump_file(step);
            let tokens: Vec<_> = batch
                .micro_batches
                .iter()
                .map(|b| serde_json::json!({"rows": b.rows, "seq_len": b.seq_len, "tokens": b.tokens, "documents": b.documents.iter().map(|d| &d.name).collect::<Vec<_>>()}))
                .collect();
            self.setup.run.write_json(&name, &tokens)?;
            return self.log(
                "skip",
                format!("step {step} was not applied: {problem}; its batch is in {name}"),
            );
        }
        self.log("skip", format!("step {step} was not applied: {problem}"))
    }

    /// Halves the learning rate and returns to the last good checkpoint's weights and optimizer
    /// state; the data continue at the next step.
    fn roll_back(&mut self) -> Result<(), TrainError> {
        let plan = &self.setup.plan;
        self.state.skipped_in_a_row = 0;
        if self.state.rollbacks >= plan.fallback.max_rollbacks {
            return Err(TrainError::Diverged {
                step: self.state.step,
                patience: plan.fallback.patience,
                rollbacks: self.state.rollbacks,
                lr_key: plan.stage.lr_key(),
                lr: self.state.lr_scale * plan.optim.lr,
                dir: self.setup.run.path().into(),
            });
        }
        let (path, good) = self.setup.store.newest(&mut |problem| tracing::warn!("{problem}"))?;
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

    /// What is due after a step. `returned`: the weights are those of `last` again.
    fn housekeeping(&mut self, returned: bool) -> Result<(), TrainError> {
        let train = &self.setup.plan.train;
        let due = |every: usize, step: usize| every > 0 && step.is_multiple_of(every);
        let step = self.state.step;
        let mut improved = false;
        if due(train.validate_every, step) && step < self.setup.plan.total_steps {
            improved = self.validate()?;
        }
        // Steps that failed leave weights that are good, but the state is only worth keeping
        // between failures; and what was returned to is saved already, so `previous` is not pushed out by it.
        if self.state.skipped_in_a_row > 0 || returned && !improved {
            return Ok(());
        }
        let wanted = improved || due(train.checkpoint.last_every, step) || due(train.checkpoint.every, step);
        if wanted {
            let best = improved.then(|| file::BEST.to_owned());
            let step = due(train.checkpoint.every, step).then(|| format!("{}{step:06}", file::STEP_PREFIX));
            self.save(best.into_iter().chain(step).collect())?;
        }
        Ok(())
    }

    /// Why a run that has ended failed, although it did not stop on the way.
    ///
    /// # Errors
    /// The device failed.
    fn failure(&self) -> Result<Option<String>, TrainError> {
        let (step, skipped, unapplied) = (self.state.step, self.state.skipped, self.state.unapplied);
        let (valid_loss, lr_key) = (self.state.valid_loss, self.setup.plan.stage.lr_key());
        if step > 0 && skipped >= step {
            return Ok(Some(format!(
                "none of the {step} steps was applied (see `events.jsonl`); check the model's weights and the data"
            )));
        }
        // Fewer are what a run survives on its way, too.
        if unapplied >= self.setup.plan.fallback.patience.max(1) {
            return Ok(Some(format!(
                "the last {unapplied} of {step} steps were not applied (see `events.jsonl`); lower `{lr_key}` or look at \
                 their batches"
            )));
        }
        if let Some(loss) = valid_loss.filter(|loss| !loss.is_finite()) {
            return Ok(Some(format!(
                "the validation loss is {loss} after {step} steps; lower `{lr_key}` or check the model's weights"
            )));
        }
        let finite = grads::is_finite(self.model())?;
        Ok((!finite)
            .then(|| format!("the weights are not finite after {step} steps, and were not saved; lower `{lr_key}`")))
    }

    fn check_fallbacks(&mut self, item: &StepOutput) -> Result<(), TrainError> {
        let mut tally = FallbackTally {
            groups: self.state.groups,
            fallbacks: self.state.fallbacks,
        };
        let within = tally.add(item.groups, item.fallbacks, self.setup.plan.max_fallback_share);
        (self.state.groups, self.state.fallbacks) = (tally.groups, tally.fallbacks);
        let Some(first) = &item.first_fallback else {
            return Ok(());
        };
        if !within {
            return Err(TrainError::Fallbacks {
                step: self.state.step,
                fallbacks: tally.fallbacks,
                groups: tally.groups,
                max_share: self.setup.plan.max_fallback_share,
                scorer: self.setup.plan.scorer.clone(),
                first: first.clone(),
            });
        }
        self.log(
            "weight-fallback",
            format!("{} groups had non-finite scores, first {first}", item.fallbacks),
        )
    }

    pub(super) fn fresh_optimizer(&self) -> Result<ModuleOptimizer, TrainError> {
        Ok(optimizer(&self.setup.plan.optim, &self.clip)?)
    }

    pub(super) fn model(&self) -> &M {
        match &self.model {
            Some(model) => model,
            None => unreachable!("an update always puts the model back"),
        }
    }

    pub(super) fn event(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.events.process_train(event));
    }
}
