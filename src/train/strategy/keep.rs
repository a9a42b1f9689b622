//! Checkpoints of a session: written, kept, read back.

use super::{TrainError, Trainable, session::Session};
use crate::train::{CheckpointError, Kept};
use std::path::Path;

impl<M: Trainable> Session<'_, M> {
    pub(super) fn restore(&mut self, from: &Path) -> Result<(), TrainError> {
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

    pub(super) fn save(&mut self) -> Result<(), TrainError> {
        self.note_records();
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
    pub(super) fn keep_best(&self) -> Result<(), TrainError> {
        if self.strategy.plan.train.checkpoint.best {
            self.keep("best")?;
        }
        Ok(())
    }

    /// Keeps `last` under another name, with what the recipe wants of it.
    pub(super) fn keep(&self, name: &str) -> Result<(), TrainError> {
        let content = Kept::from(&self.strategy.plan.train.checkpoint);
        self.strategy.store.keep(name, content)?;
        Ok(())
    }
}
