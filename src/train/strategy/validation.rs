//! Validation in the middle of training, with early stopping.

use super::{TrainError, Trainable, session::Session};
use crate::train::StepOutput;
use burn::{
    data::dataloader::Progress,
    train::{EventProcessorTraining, InferenceStep, LearnerEvent, TrainingItem},
};

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

    /// The unweighted loss on the held-out documents, written down and printed; None without any.
    /// With `shown`, burn-train's dashboard gets it, too: it takes validations within an epoch only.
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
            self.strategy.progress.validating(done + 1, total);
            if shown {
                let progress = Progress::new(done + 1, total, Some("steps".into()));
                let item = TrainingItem::new(out, progress, Some(self.state.step), None);
                self.report_valid(LearnerEvent::ProcessedItem(item));
            }
        }
        if shown {
            self.report_valid(LearnerEvent::EndSplit(epoch));
        }
        let loss = sum / tokens.max(1) as f64;
        ce.iter_mut().for_each(|sum| *sum /= tokens.max(1) as f64);
        self.strategy.run.metrics(
            self.state.step,
            &serde_json::json!({"step": self.state.step, "valid_loss": loss, "valid_ce_heads": ce}),
        )?;
        self.strategy.progress.validation(self.state.step, loss, &ce);
        Ok(Some(loss))
    }

    pub(super) fn report_valid(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.events.process_valid(event));
    }
}
