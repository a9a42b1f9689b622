//! What a session records for reports in addition to the metrics: the documents of every step, histograms
//! of weights, and a few documents token by token. Nothing of it reaches the training.

use super::session::Session;
use crate::{Stage, StepOutput, TrainError, Trainable, histogram};
use std::time::Instant;
use wmtp_run::{
    EdgesLine, HistogramLine, Recorded, StepDocuments, TokensLine,
    file::{STEPS, TOKENS, WEIGHTS},
};

/// Ratio of trained tokens to tokens that recording the samples reads. A step costs three forward passes
/// or, where small matrices make a few documents expensive, somewhat more than one: recording takes less
/// than 1% of the training in either case.
const TRAINED_PER_SAMPLED: u64 = 100;

impl<M: Trainable> Session<'_, M> {
    /// A new run: nothing recorded, and what the model is before the first step.
    pub(super) fn begin_records(&mut self) -> Result<(), TrainError> {
        let run = &self.setup.run;
        // A process that was killed before the first checkpoint may have left some.
        run.truncate(self.setup.plan.stage.metrics_file(), 0)?;
        if self.setup.plan.stage != Stage::Weighted {
            return Ok(());
        }
        for file in [STEPS, WEIGHTS, TOKENS] {
            run.truncate(file, 0)?;
        }
        self.state.recorded = Some(Recorded::default());
        self.sample()
    }

    /// A resumed run: what came after the checkpoint will be written again.
    pub(super) fn cut_back(&self) -> Result<(), TrainError> {
        let metrics = self.setup.plan.stage.metrics_file();
        self.setup.run.truncate(metrics, self.state.metrics_bytes)?;
        if let Some(recorded) = &self.state.recorded {
            self.setup.run.truncate(WEIGHTS, recorded.weights_bytes)?;
            self.setup.run.truncate(TOKENS, recorded.tokens_bytes)?;
            self.setup.run.truncate(STEPS, recorded.steps_bytes)?;
        }
        Ok(())
    }

    /// Called before a checkpoint is written.
    pub(super) fn note_records(&mut self) {
        if self.setup.plan.stage != Stage::Weighted {
            return;
        }
        let run = &self.setup.run;
        let recorded = self.state.recorded.get_or_insert_default();
        recorded.weights_bytes = run.size(WEIGHTS);
        recorded.tokens_bytes = run.size(TOKENS);
        recorded.steps_bytes = run.size(STEPS);
    }

    /// What the step that was just done was trained on, after the names of all documents.
    pub(super) fn record_documents(&self, mut step: StepDocuments) -> Result<(), TrainError> {
        if self.setup.plan.stage != Stage::Weighted {
            return Ok(());
        }
        let run = &self.setup.run;
        if run.size(STEPS) == 0 {
            run.append(STEPS, &self.setup.names)?;
        }
        (step.step, step.epoch) = (self.state.step, self.state.epoch + 1);
        Ok(run.append(STEPS, &step)?)
    }

    /// The histogram of a step's weights, if it is one whose is written: the first, every n-th, the last.
    pub(super) fn record_weights(&self, item: &StepOutput) -> Result<(), TrainError> {
        let (step, every) = (self.state.step, self.setup.plan.train.record.weights_every);
        let due = step == 1 || step == self.setup.plan.total_steps || (every > 0 && step.is_multiple_of(every));
        if every == 0 || !due || item.weight_counts.is_empty() {
            return Ok(());
        }
        let run = &self.setup.run;
        if run.size(WEIGHTS) == 0 {
            run.append(
                WEIGHTS,
                &EdgesLine {
                    edges: histogram::edges(),
                },
            )?;
        }
        let counts = item.weight_counts.iter().map(|&count| count.into()).collect();
        Ok(run.append(WEIGHTS, &HistogramLine { step, counts })?)
    }

    /// The samples token by token, if enough was trained since they were last looked at.
    pub(super) fn record_tokens(&mut self) -> Result<(), TrainError> {
        let since = self.state.recorded.as_ref().map_or(0, |recorded| recorded.tokens);
        if self.state.tokens.saturating_sub(since) < TRAINED_PER_SAMPLED * self.setup.samples.tokens() {
            return Ok(());
        }
        self.sample()
    }

    /// The samples at the end, unless they have just been looked at.
    pub(super) fn record_last_tokens(&mut self) -> Result<(), TrainError> {
        if self
            .state
            .recorded
            .as_ref()
            .is_some_and(|recorded| recorded.step == self.state.step)
        {
            return Ok(());
        }
        self.sample()
    }

    fn sample(&mut self) -> Result<(), TrainError> {
        if self.setup.samples.is_empty() {
            return Ok(());
        }
        let (step, started) = (self.state.step, Instant::now());
        for split in &self.setup.samples.splits {
            let observed = self.model().observe(&split.batches, step)?;
            for (tokens, observed) in split.tokens.iter().zip(observed) {
                let line = TokensLine {
                    step,
                    split: split.name.into(),
                    tokens: tokens.clone(),
                    observed,
                };
                self.setup.run.append(TOKENS, &line)?;
            }
        }
        tracing::debug!(step, seconds = started.elapsed().as_secs_f64(), "recorded the samples");
        let tokens = self.state.tokens;
        let recorded = self.state.recorded.get_or_insert_default();
        (recorded.step, recorded.tokens) = (step, tokens);
        Ok(())
    }
}
