//! `scorer.reward: tests`: labels of the training data's candidates, found by running them before training.

use super::{PipelineError, sources};
use crate::{
    data::{DataConfig, Record},
    eval::{
        EvalError,
        label::{FoundVerdicts, LabelProgress, Labeller},
        sandbox::{Sandbox, SandboxError},
    },
    run::file,
    scorer::Reward,
    settings::Recipe,
    stop::Stop,
    train::Progress,
};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two messages of how far labelling is.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// Finds rewards by running, with the verdict cache and the limits of `wmtp label` and `wmtp eval`.
pub(super) struct Rewards {
    labeller: Labeller,
    stop: Stop,
    progress: Arc<dyn Progress>,
}

impl Rewards {
    /// What the recipe's scorer needs; None if its rewards come from elsewhere. Verdicts are kept below `cache`;
    /// the run that is `resumed` has its labels with it.
    ///
    /// # Errors
    /// Data whose labels cannot be found by running; a host without a layer of the sandbox.
    pub fn of(
        recipe: &Recipe,
        data: &DataConfig,
        cache: &Path,
        resumed: Option<&Path>,
        stop: &Stop,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<Self>, PipelineError> {
        let critic = recipe.scorer.models_needed().value;
        if critic.is_none_or(|critic| critic.reward != Reward::Tests) {
            return Ok(None);
        }
        if sources::is_mbpp(data) {
            return Err(PipelineError::Setting(format!(
                "`scorer.reward` is `tests`, but the labels of `{}` were found by its tests already: set scorer.reward to `verified`",
                data.source
            )));
        }
        let sandbox = Sandbox::new().map_err(|error| match error {
            SandboxError::Layer { .. } => PipelineError::Setting(format!(
                "{error}. Find labels by `wmtp label FILE --unsafe-exec`, and train on its output with scorer.reward `verified`"
            )),
            other => PipelineError::Eval(EvalError::Sandbox(other)),
        })?;
        let e = &recipe.eval;
        let labeller = Labeller::new(sandbox, e.limits(), e.verdicts(cache).as_deref());
        let found = resumed.map(|run| fs::read(run.join(file::LABELS)));
        if let Some(found) = found.and_then(Result::ok) {
            // What cannot be read is found again.
            labeller.know(serde_json::from_slice(&found).unwrap_or_default());
        }
        Ok(Some(Self {
            labeller,
            stop: stop.clone(),
            progress: progress.clone(),
        }))
    }

    /// The verdicts found, for the run's directory.
    pub fn found(&self) -> FoundVerdicts {
        self.labeller.found()
    }

    /// Gives every sample a reward.
    ///
    /// # Errors
    /// As [`Labeller::label`].
    pub fn label(&self, records: &mut [Record]) -> Result<(), PipelineError> {
        let said = Mutex::new(Instant::now());
        let last = Mutex::new(LabelProgress::default());
        let counts = self.labeller.label(records, &self.stop, &|far| {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = *far;
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.elapsed() >= SAID_EVERY {
                *said = Instant::now();
                let LabelProgress { done, total, passed } = far;
                self.progress.message(&format!(
                    "labels by running: {done} of {total} candidates, {passed} right"
                ));
            }
        })?;
        // Asked for the same records again, nothing was run.
        if last.into_inner().unwrap_or_else(PoisonError::into_inner).done > 0 {
            self.progress.message(&format!("labels by running: {counts}"));
        }
        Ok(())
    }
}
