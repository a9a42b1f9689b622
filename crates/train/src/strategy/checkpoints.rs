//! Checkpoints of a session: written, kept, read back.

use super::session::Session;
use crate::{Kept, Stage, TrainError, Trainable, grads};
use std::path::Path;
use wmtp_run::{
    CheckpointError,
    file::{BEST, OPTIMIZER},
};

impl<M: Trainable> Session<'_, M> {
    pub(super) fn restore(&mut self, from: &Path) -> Result<(), TrainError> {
        let content = |error: &dyn std::error::Error| CheckpointError::Content {
            path: from.into(),
            problem: error.to_string(),
        };
        self.optimizer = None;
        if let Some(model) = self.model.take() {
            self.model = Some(model.read(from).map_err(|e| content(&e))?);
        }
        let optimizer = self.fresh_optimizer()?;
        self.optimizer = Some(optimizer.load(from.join(OPTIMIZER)).map_err(|e| content(&e))?);
        Ok(())
    }

    /// Saves the state as `last`. Weights that a step made non-finite are not saved: the checkpoint that there is,
    /// stays the last good one, for a return to it.
    pub(super) fn save(&mut self) -> Result<(), TrainError> {
        self.note_records();
        if self.state.step > 0 && !grads::is_finite(self.model())? {
            return self.log(
                "not-saved",
                format!("the weights after step {} are not finite", self.state.step),
            );
        }
        let (Some(model), Some(optimizer)) = (&self.model, &self.optimizer) else {
            return Ok(());
        };
        self.state.metrics_bytes = self.setup.run.size(self.setup.plan.stage.metrics_file());
        let path = self.setup.store.save(&self.state, |dir| {
            let content = |error: &dyn std::error::Error| CheckpointError::Content {
                path: dir.into(),
                problem: error.to_string(),
            };
            model.write(dir).map_err(|e| content(&e))?;
            optimizer.save(dir.join(OPTIMIZER)).map_err(|e| content(&e))
        })?;
        if self.setup.plan.stage != Stage::Weighted {
            // They are gone when the stage ends: nothing that a reader of the events would look for.
            return Ok(());
        }
        self.log(
            "checkpoint",
            format!("step {} saved as {}", self.state.step, path.display()),
        )
    }

    /// Called right after `save`: `last` is the state whose loss was just found the best.
    pub(super) fn keep_best(&self) -> Result<(), TrainError> {
        if self.setup.plan.train.checkpoint.best {
            self.keep(BEST)?;
        }
        Ok(())
    }

    /// Keeps `last` under another name, with what the recipe wants of it.
    pub(super) fn keep(&self, name: &str) -> Result<(), TrainError> {
        let content = Kept::from(&self.setup.plan.train.checkpoint);
        self.setup.store.keep(name, |last, kept| content.fill(last, kept))?;
        Ok(())
    }
}
