//! What a session writes down: a line of metrics a step, and events with their reasons.

use super::session::{Rates, Session};
use crate::{Stage, StepOutput, TrainError, TrainStepDone, Trainable, ValueStep};
use serde::Serialize;
use serde_json::json;
use wmtp_run::{Event, StepLine, peak_memory};

impl<M: Trainable> Session<'_, M> {
    /// A step's line of metrics, and the same for people.
    pub(super) fn record(
        &self,
        item: &StepOutput,
        norm: f64,
        rates: Rates,
        applied: bool,
        seconds: f64,
    ) -> Result<(), TrainError> {
        match self.setup.plan.stage {
            Stage::Value => self.record_value(item, norm, rates.lr, applied),
            Stage::Pretrain | Stage::Weighted => self.record_weighted(item, norm, rates, applied, seconds),
        }
    }

    fn record_value(&self, item: &StepOutput, norm: f64, lr: f64, applied: bool) -> Result<(), TrainError> {
        let (step, loss) = (self.state.step, item.loss);
        // A number that is not finite becomes null.
        let mut line = json!({"step": step, "loss": loss, "grad_norm": norm, "lr": lr});
        if !applied {
            line["applied"] = false.into();
        }
        self.setup.run.append(Stage::Value.metrics_file(), &line)?;
        self.setup.progress.value_step(&ValueStep {
            step,
            total: self.setup.plan.total_steps,
            loss,
            norm,
            lr,
        });
        Ok(())
    }

    fn record_weighted(
        &self,
        item: &StepOutput,
        norm: f64,
        Rates { lr, value_lr }: Rates,
        applied: bool,
        seconds: f64,
    ) -> Result<(), TrainError> {
        let finite = |x: f64| x.is_finite().then_some(x);
        let line = StepLine {
            step: self.state.step,
            tokens: self.state.tokens,
            loss: finite(item.loss),
            other: StepLine::heads(&item.ce_heads),
            weight_mean: item.weights.map(|w| w.mean),
            weight_min: item.weights.map(|w| w.min),
            weight_max: item.weights.map(|w| w.max),
            weight_entropy: item.weights.map(|w| w.entropy),
            weight_fallbacks: item.fallbacks,
            value_loss: item.value_loss.and_then(finite),
            grad_norm: finite(norm),
            lr,
            value_lr,
            applied,
            tok_s: item.tokens as f64 / seconds,
            mem: peak_memory(),
        };
        self.setup.progress.step(&TrainStepDone {
            step: self.state.step,
            total: self.setup.plan.total_steps,
            item,
            norm,
            lr,
            tok_s: line.tok_s,
            memory: line.mem,
        });
        self.write_line(&line)
    }

    /// A line of the stage's metrics; observers of the run get the weighted stage's.
    pub(super) fn write_line(&self, line: &impl Serialize) -> Result<(), TrainError> {
        let run = &self.setup.run;
        match self.setup.plan.stage {
            Stage::Weighted => run.metrics(self.state.step, line)?,
            Stage::Pretrain | Stage::Value => run.append(self.setup.plan.stage.metrics_file(), line)?,
        }
        Ok(())
    }

    /// Writes an event down and shows it. Those of the other stages have one name each: reports
    /// count the weighted stage's by theirs.
    pub(super) fn log(&self, event: &'static str, reason: String) -> Result<(), TrainError> {
        let (event, reason) = match self.setup.plan.stage {
            Stage::Pretrain => ("pretrain", format!("{event}: {reason}")),
            Stage::Value => ("value-stage", format!("{event}: {reason}")),
            Stage::Weighted => (event, reason),
        };
        self.setup.progress.event(event, &reason);
        Ok(self.setup.run.event(&Event {
            step: self.state.step,
            event,
            reason,
        })?)
    }
}
