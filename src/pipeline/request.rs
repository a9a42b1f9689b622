//! What a run is asked to do, with its data and sizes loaded and checked.

use super::{DataStore, ModelDirs, PipelineError, rewards::Rewards, sources};
use crate::{
    data::{DataConfig, DataError, Splits, StepShape, Tokenizer, Wanted},
    device::Capabilities,
    paths::expand_home,
    scorer::Rho1,
    settings::{Config, Pipeline, Recipe},
    stop::Stop,
    storage::RemoteRun,
    train::Progress,
};
use burn::tensor::Device;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use wmtp_model::LlamaConfig;

/// Where a run is uploaded to while it trains.
#[derive(Clone, Debug)]
pub struct RunUpload {
    /// The place.
    pub to: RemoteRun,
    /// The longest wait at the end of training.
    pub wait: Duration,
}

/// A training run with everything that it needs found.
#[derive(Clone)]
pub(super) struct Request {
    pub pipeline: Pipeline,
    pub config: Config,
    pub recipe: Recipe,
    /// Where it runs, without autodiff.
    pub device: Device,
    /// The device's name, for the record.
    pub device_name: String,
    pub model_dirs: ModelDirs,
    pub run_name: String,
    /// The name was made up: where it is in use, a number is put behind it.
    pub numbered: bool,
    /// The directory of the run that is resumed.
    pub resume: Option<PathBuf>,
    pub upload: Option<RunUpload>,
    pub progress: Arc<dyn Progress>,
    pub stop: Stop,
}

impl Request {
    /// Takes the name that the run's directory got, also for its copy on S3.
    pub fn call(&mut self, name: &str) {
        if self.run_name == name {
            return;
        }
        self.run_name = name.to_owned();
        if let Some(upload) = &mut self.upload {
            upload.to = upload.to.sibling(name);
        }
    }

    /// Seed of everything that is drawn.
    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    /// Where scores made once are kept.
    pub fn cache(&self) -> PathBuf {
        expand_home(&self.config.paths.cache)
    }

    /// Where tokenised data are kept.
    pub fn data_store(&self) -> DataStore {
        DataStore::new(self.cache(), self.progress.clone(), self.stop.clone())
    }

    /// Parent of the run directory.
    pub fn runs(&self) -> PathBuf {
        expand_home(&self.config.paths.runs)
    }
}

/// Data, sizes and model of a run, loaded and checked; nothing has been written yet.
pub(super) struct Prepared {
    pub tokenizer: Tokenizer,
    pub data: DataConfig,
    pub splits: Splits,
    pub config: LlamaConfig,
    /// Heads that the checkpoint does not have and that are made for it.
    pub new_heads: usize,
    pub shape: StepShape,
    pub total_steps: usize,
    pub epochs: usize,
    /// Finds the labels, where the recipe says so.
    pub rewards: Option<Rewards>,
    /// Labelled solutions, once they were asked for.
    solutions: OnceLock<Splits>,
}

impl Prepared {
    /// Labelled solutions, right and wrong: what the critic's value head learns from.
    ///
    /// # Errors
    /// Data that can't be read or labelled, or without labels.
    pub fn solutions(&self, request: &Request) -> Result<Splits, PipelineError> {
        if let Some(solutions) = self.solutions.get() {
            return Ok(solutions.clone());
        }
        let solutions = match &self.rewards {
            Some(rewards) => sources::rewarded(&self.data, &self.tokenizer, Wanted::Labelled, |records| {
                rewards.label(records)
            })?,
            None => sources::solutions(&self.data, &self.tokenizer, &request.data_store())?,
        };
        Ok(self.solutions.get_or_init(|| solutions).clone())
    }
}

pub(super) fn prepare(request: &Request) -> Result<Prepared, PipelineError> {
    let recipe = &request.recipe;
    let mut config = request.model_dirs.model.config()?;
    let tokenizer = recipe
        .data
        .dated(Tokenizer::load(request.model_dirs.model.tokenizer())?)
        .with_choice(recipe.data.choice())?
        .for_model(config.vocab_size)?;
    let new_heads = recipe.model.mtp.n_heads.saturating_sub(config.n_heads);
    config.n_heads = recipe.model.mtp.n_heads;
    check_positions("model", request.model_dirs.model.whole(), &config, recipe.data.seq_len)?;
    let tokenizer = check_companions(request, tokenizer)?;
    recipe
        .check_device(&request.device_name, Capabilities::of(&request.device))
        .map_err(|e| PipelineError::Setting(e.problem))?;
    let data = DataConfig {
        source: request.model_dirs.data.clone(),
        ..recipe.data.clone()
    };
    let rewards = Rewards::of(
        recipe,
        &data,
        &request.cache(),
        request.resume.as_deref(),
        &request.stop,
        &request.progress,
    )?;
    let splits = match &rewards {
        Some(rewards) => sources::rewarded(&data, &tokenizer, Wanted::Right, |records| rewards.label(records))?,
        None => sources::problems(&data, &tokenizer, &request.data_store())?,
    };
    let shape = recipe.batching.shape(recipe.data.seq_len).map_err(DataError::from)?;
    let in_epochs = || splits.train.num_steps(request.seed(), recipe.train.epochs, shape);
    let total_steps = recipe.train.steps.unwrap_or_else(in_epochs);
    let per_epoch = splits.train.epoch(request.seed(), 0, shape).len().max(1);
    let epochs = if recipe.train.steps.is_some() {
        total_steps.div_ceil(per_epoch)
    } else {
        recipe.train.epochs
    };
    Ok(Prepared {
        tokenizer,
        data,
        splits,
        config,
        new_heads,
        shape,
        total_steps,
        epochs,
        rewards,
        solutions: OnceLock::new(),
    })
}

/// Checks the models that read the trained model's token ids: rho1's reference and the critic's reward
/// model need the same tokenizer, an embedding for each id and room for a row. Loud and early: another
/// tokenizer would compare different tokens. Returns the tokenizer, limited to ids that all models have.
fn check_companions(request: &Request, mut tokenizer: Tokenizer) -> Result<Tokenizer, PipelineError> {
    let seq_len = request.recipe.data.seq_len;
    let needs = request.recipe.scorer.models_needed();
    if let (Some(_), Some(reference)) = (needs.reference, &request.model_dirs.reference) {
        let (place, config) = (reference.tokenizer(), reference.config()?);
        Rho1::check_tokenizers(&tokenizer, &Tokenizer::load(place)?)?;
        tokenizer = tokenizer.also_for_model(config.vocab_size)?;
        check_positions("reference model", place, &config, seq_len)?;
    }
    if let Some(reward) = request.model_dirs.reward.as_ref().filter(|_| needs.reward) {
        tokenizer.check_same(&Tokenizer::load(reward)?)?;
        let config = LlamaConfig::read(reward)?;
        tokenizer = tokenizer.also_for_model(config.vocab_size)?;
        check_positions("reward model", reward, &config, seq_len)?;
    }
    Ok(tokenizer)
}

/// A model must have a position for every token of a row.
fn check_positions(what: &str, dir: &Path, config: &LlamaConfig, seq_len: usize) -> Result<(), PipelineError> {
    if seq_len <= config.max_position_embeddings {
        return Ok(());
    }
    Err(PipelineError::Setting(format!(
        "`data.seq_len` is {seq_len}, but the {what} in `{}` was made for at most {} positions; lower it",
        dir.display(),
        config.max_position_embeddings
    )))
}
