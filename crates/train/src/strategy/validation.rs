//! Validation in the middle of training, with early stopping.

use super::session::Session;
use crate::{Stage, StepOutput, TrainError, Trainable, Validation};
use burn::{
    data::dataloader::Progress,
    train::{EventProcessorTraining, InferenceStep, LearnerEvent, TrainingItem},
};
use wmtp_scorer::critic::CriticReport;

impl<M: Trainable> Session<'_, M> {
    /// Validates before the first step: what the model is without this training. It is recorded and
    /// printed only: `best` is a checkpoint that was trained, and early stopping compares such ones.
    pub(super) fn validate_first(&mut self) -> Result<(), TrainError> {
        self.measure(false).map(|_| ())
    }

    /// Validates; true if the loss is the best so far. Sets `finished` when early stopping says so.
    pub(super) fn validate(&mut self) -> Result<bool, TrainError> {
        let Some(loss) = self.measure(true)? else {
            return Ok(false);
        };
        self.record_tokens()?;
        self.state.valid_loss = Some(loss);
        let stopping = &self.setup.plan.train.early_stopping;
        let improved = loss.is_finite() && self.state.best_loss.is_none_or(|best| loss < best - stopping.min_delta);
        if improved {
            self.state.best_loss = Some(loss);
            self.state.validations_without_improvement = 0;
        } else {
            self.state.validations_without_improvement += 1;
            let n = self.state.validations_without_improvement;
            if stopping.patience > 0 && n >= stopping.patience {
                self.state.finished = true;
                if self.setup.plan.stage == Stage::Value {
                    let step = self.state.step;
                    self.setup.progress.message(&format!(
                        "value stage: stopped at step {step}, {n} evaluations without improvement"
                    ));
                }
                self.log("early-stop", format!("{n} validations without improvement"))?;
            }
        }
        Ok(improved)
    }

    /// What is measured on the held-out documents, written down and printed; its figure for comparison,
    /// None without any. With `shown`, burn-train's event processor gets it, too: it takes validations
    /// within an epoch only.
    fn measure(&mut self, shown: bool) -> Result<Option<f64>, TrainError> {
        let Some(model) = &self.model else { return Ok(None) };
        let model = model.valid();
        let total = self.valid.num_items();
        if total == 0 {
            return Ok(None);
        }
        let epoch = self.state.epoch + 1;
        if shown {
            self.report_valid(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: total,
            });
        }
        let mut outputs = Vec::with_capacity(total);
        let valid = self.valid.clone();
        for (done, batch) in valid.iter().enumerate() {
            let mut batch = batch.map_err(|e| TrainError::Loop(e.into()))?;
            batch.step = self.state.step;
            let out = InferenceStep::step(&model, batch);
            if let Some(source) = out.failure {
                let step = self.state.step;
                return Err(TrainError::Step { step, source });
            }
            self.setup.progress.validating(done + 1, total);
            if shown {
                let progress = Progress::new(done + 1, total, Some("steps".into()));
                let item = TrainingItem::new(out.clone(), progress, Some(self.state.step), None);
                self.report_valid(LearnerEvent::ProcessedItem(item));
            }
            outputs.push(out);
        }
        if shown {
            self.report_valid(LearnerEvent::EndSplit(epoch));
        }
        let Some(found) = model.validation(&outputs) else {
            return Ok(None);
        };
        let (step, line) = (self.state.step, found.line(self.state.step));
        match &found {
            Validation::Loss { loss, ce_heads } => {
                self.write_line(&line)?;
                self.setup.progress.validation(step, *loss, ce_heads);
            }
            Validation::Values(report) => {
                self.write_line(&line)?;
                self.setup.progress.message(&sentence(step, report));
            }
        }
        Ok(Some(found.figure()))
    }

    pub(super) fn report_valid(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.events.process_valid(event));
    }
}

/// A value head's figures on held-out solutions, for people.
fn sentence(step: usize, report: &CriticReport) -> String {
    let or_dash = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
    let loss = match report.value_loss {
        // Pairwise training leaves V without a scale.
        None => format!("pairwise loss {}", or_dash(report.pairwise_loss)),
        Some(_) => format!(
            "squared error {}, explained variance {}",
            or_dash(report.value_loss),
            or_dash(report.explained_variance)
        ),
    };
    format!(
        "value step {step:>4}  on {} held-out solutions: {loss}; AUROC of mean V {}, of last V {}, of minus the model's own CE {}; pairs of one problem in order {}, {}, {}",
        report.documents,
        or_dash(report.auroc_mean),
        or_dash(report.auroc_last),
        or_dash(report.auroc_ce),
        or_dash(report.within_mean),
        or_dash(report.within_last),
        or_dash(report.within_ce),
    )
}
