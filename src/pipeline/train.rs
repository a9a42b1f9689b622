//! The weighted stage of a run that has its directory: module, scorer and loop put together.

use super::{
    PipelineError, UploadSummary, ValueReport,
    request::{Prepared, Request},
    scoring::{reward, scorer},
    start::companions,
    steps::{LabelledSteps, TrainSteps, ValidSteps},
    upload,
    value_stage::{ValueStage, value_stage},
};
use crate::{
    run::{CheckpointStore, Mirror, RunDir, TrainerState},
    scorer::{CriticConfig, Normaliser, Scorer, ValueUse},
    train::{
        Assets, CurrentHead, JointValue, LoraAssets, Plan, Samples, SessionSetup, Stage, StepLoader, StepSource,
        TokenWeighting, TrainError, WeightedMtp, assign_stable_ids, step_names, train,
    },
};
use burn::module::Module;
use std::{path::PathBuf, sync::Arc};
use wmtp_model::{CausalLm, MtpLlama, ValueHead};

/// A run that has its directory.
pub(super) struct Training<'a> {
    pub request: &'a Request,
    pub prepared: &'a Prepared,
    pub model: MtpLlama,
    pub model_hash: String,
    /// The finished value head that the recipe names.
    pub given_head: Option<ValueHead>,
    pub run: &'a RunDir,
    pub start: TrainerState,
    /// The checkpoint that it is resumed from.
    pub from: Option<PathBuf>,
}

/// What training left.
pub(super) struct Trained {
    pub state: TrainerState,
    pub value: Option<ValueReport>,
    pub upload: Option<UploadSummary>,
}

impl Training<'_> {
    /// Trains with the recipe's scorer, or with `own` in its place.
    pub fn run(mut self, own: Option<Box<dyn Scorer>>) -> Result<Trained, PipelineError> {
        let (request, run) = (self.request, self.run);
        let store = CheckpointStore::open(run.checkpoints())?;
        let uploading = upload::start(request, run)?;
        let store = store.with_mirror(uploading.clone().map(|mirror| mirror as Arc<dyn Mirror>));
        let ragged = self.model.attends_by_document();
        let (head, value_report) = self.value_head(ragged).inspect_err(|_| request.progress.close())?;
        let begun = self.start.step;
        let fitted = self.weighted_stage(own, head, ragged, store);
        request.progress.close();
        // The checkpoints of a run that failed are uploaded, too.
        let step = fitted.as_ref().map_or(begun, |state| state.step);
        let upload = upload::finish(request, uploading.as_deref(), run, step)?;
        let state = fitted?;
        if let Some(problem) = state.failed.clone().filter(|_| state.finished) {
            let step = state.step;
            return Err(TrainError::Failed { step, problem }.into());
        }
        Ok(Trained {
            state,
            value: value_report,
            upload,
        })
    }

    /// The critic's value head: the one that the recipe names, or the value stage's.
    #[allow(clippy::type_complexity)]
    fn value_head(
        &mut self,
        ragged: bool,
    ) -> Result<(Option<(ValueHead, CriticConfig)>, Option<ValueReport>), PipelineError> {
        let Some(critic) = self.request.recipe.scorer.models_needed().value else {
            return Ok((None, None));
        };
        let (head, report) = match self.given_head.take() {
            Some(head) => (head, None),
            None => {
                let stage = ValueStage {
                    request: self.request,
                    prepared: self.prepared,
                    model: &self.model,
                    model_hash: &self.model_hash,
                    run: self.run,
                    recipe_id: &self.start.recipe,
                    ragged,
                };
                value_stage(stage, critic)?
            }
        };
        Ok((Some((head, critic.clone())), report))
    }

    fn weighted_stage(
        self,
        own: Option<Box<dyn Scorer>>,
        value: Option<(ValueHead, CriticConfig)>,
        ragged: bool,
        store: CheckpointStore,
    ) -> Result<TrainerState, PipelineError> {
        let (request, prepared) = (self.request, self.prepared);
        let recipe = &request.recipe;
        let scorer_name = own
            .as_ref()
            .map_or(request.pipeline.name(), |own| own.name())
            .to_string();
        let current = value.as_ref().map(|(head, _)| CurrentHead::new(head.clone()));
        let scorer = match own {
            Some(own) => own,
            None => scorer(request, prepared, &self.model.valid(), current.as_ref())?,
        };
        let joint = value.filter(|(_, critic)| critic.value == ValueUse::Joint);
        let labelled = match &joint {
            Some((_, critic)) => Some(LabelledSteps::new(critic, prepared, request)?),
            None => None,
        };
        let joint_value = match (&joint, current) {
            (Some((_, critic)), Some(current)) => {
                Some(JointValue::new(critic.clone(), current, reward(critic, request)?))
            }
            _ => None,
        };
        let weighting = TokenWeighting::new(
            scorer,
            Normaliser::new(recipe.weights.clone())?,
            recipe.weights.over,
            recipe.loss.clone(),
            joint_value,
        );
        let value_lr = joint.as_ref().map(|(_, critic)| critic.lr);
        let assets = Assets {
            companions: companions(request, &prepared.tokenizer)?,
            model_hash: self.model_hash,
            lora: recipe.train.lora.as_ref().map(|l| LoraAssets {
                base: request.model_dirs.base_name(&recipe.model.base),
                rank: l.rank,
                alpha: l.alpha,
            }),
        };
        let value: Option<ValueHead> = joint.map(|(head, _)| head.trainable(&self.model.device()));
        let module = WeightedMtp::new(self.model, value, weighting, assets).with_heads(recipe.train.heads);
        let names = step_names(&prepared.splits.train, labelled.as_ref().map(LabelledSteps::data))?;
        let steps: Arc<dyn StepSource> = Arc::new(TrainSteps {
            data: prepared.splits.train.clone(),
            labelled,
            seed: request.seed(),
            shape: prepared.shape,
            ragged,
        });
        let valid = ValidSteps::new(
            &prepared.splits.valid,
            recipe.train.validate_documents,
            prepared.shape.micro_batch,
            ragged,
        );
        let setup = SessionSetup {
            plan: Plan {
                stage: Stage::Weighted,
                optim: recipe.optim.clone(),
                train: recipe.train.clone(),
                fallback: recipe.fallback.clone(),
                value_lr,
                total_steps: prepared.total_steps,
                max_epochs: None,
                scorer: scorer_name,
                max_fallback_share: recipe.weights.max_fallback_share,
            },
            loader: StepLoader::new(steps),
            valid: StepLoader::new(Arc::new(valid)),
            run: self.run.clone(),
            store,
            start: self.start,
            resume: self.from,
            progress: request.progress.clone(),
            stop: request.stop.clone(),
            samples: Samples::choose(&recipe.train.record, &prepared.splits, &prepared.tokenizer, ragged)?,
            names,
        };
        Ok(train(assign_stable_ids(module), setup, prepared.epochs)?)
    }
}
