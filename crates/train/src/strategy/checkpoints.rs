//! Checkpoints of a session: written, kept, read back.

use super::session::Session;
use crate::{Stage, TrainError, Trainable, grads};
use std::path::Path;
use wmtp_run::{CheckpointError, file::OPTIMIZER};

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
    /// stays the last good one, for a return to it. False: nothing was saved, and `last` is another state.
    /// A saved state is kept under the names `kept_as` too.
    pub(super) fn save(&mut self, kept_as: Vec<String>) -> Result<bool, TrainError> {
        self.state.kept_as = kept_as;
        self.note_records();
        if self.state.step > 0 && !grads::is_finite(self.model())? {
            self.log(
                "not-saved",
                format!("the weights after step {} are not finite", self.state.step),
            )?;
            return Ok(false);
        }
        let (Some(model), Some(optimizer)) = (&self.model, &self.optimizer) else {
            return Ok(false);
        };
        self.state.metrics_bytes = self.setup.run.size(self.setup.plan.stage.metrics_file());
        // Since a return to a checkpoint no step was applied: `last` has these weights already, and what is before it
        // may be the better one.
        let returned = self.state.unapplied >= self.setup.plan.fallback.patience.max(1);
        let write = |dir: &Path| {
            let content = |error: &dyn std::error::Error| CheckpointError::Content {
                path: dir.into(),
                problem: error.to_string(),
            };
            model.write(dir).map_err(|e| content(&e))?;
            optimizer.save(dir.join(OPTIMIZER)).map_err(|e| content(&e))
        };
        let path = match returned {
            true => self.setup.store.renew(&self.state, write)?,
            false => self.setup.store.save(&self.state, write)?,
        };
        self.setup.keep(&self.state)?;
        if self.setup.plan.stage != Stage::Weighted {
            // They are gone when the stage ends: nothing that a reader of the events would look for.
            return Ok(true);
        }
        self.log(
            "checkpoint",
            format!("step {} saved as {}", self.state.step, path.display()),
        )?;
        Ok(true)
    }
}
