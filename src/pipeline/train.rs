//! One training run from settings to checkpoints.

use super::{
    PipelineError,
    critic::value_stage,
    ending::{note_failure, summary, write_report},
    followed,
    mirror::{self, Copy, CopySummary},
    resume::{Resumed, recipe_id, resume},
    scoring::{reward, scorer},
    sources::{Sources, check_same_model, load_trained},
    steps::{LabelledSteps, TrainSteps, ValidSteps},
};
use crate::{
    data::{DataConfig, SpecialInText, Splits, StepShape, TokenReport, Tokenizer},
    scorer::{Normaliser, Reward, Rho1, Scorer, ScorerConfig, ValueUse},
    settings::{Config, Pipeline, Recipe, has_random_weights},
    stop::Stop,
    track::{self, RunDir, Tracker, TrackingSummary},
    train::{
        Assets, CheckpointStore, CurrentHead, Dashboard, GradientScale, JointValue, Lines, LoraAssets, Mirror, Plan,
        PrecisionConfig, Progress, Quiet, Samples, StatePrecision, StepLoader, StepNames, StepSource, StepStrategy,
        TrainError, Trainable, TrainerState, Weigher, WeightedMtp, adamw, assign_stable_ids, hex,
    },
};
use burn::{
    module::Module,
    optim::lr_scheduler::constant::ConstantLr,
    tensor::Device,
    train::{Learner, SupervisedTraining, TrainingStrategy, logger::InMemoryMetricLogger},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use wmtp_model::{Companions, LlamaConfig, MtpLlama, ValueHead};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// The dashboard; standard output must be a terminal.
    Dashboard,
    /// Lines on standard error.
    Lines,
}

/// A training run, ready to start.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// Which pipeline.
    pub algorithm: Pipeline,
    /// Where and how it runs, validated; of it, only what follows the run is read here.
    pub config: Config,
    /// What is trained, validated.
    pub recipe: Recipe,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Where it runs, without autodiff.
    pub device: Device,
    /// The device's name, for the record.
    pub device_name: String,
    /// The recipe's models as local directories.
    pub sources: Sources,
    /// Where scores made once are kept.
    pub cache: PathBuf,
    /// Parent of the run directory.
    pub output: PathBuf,
    /// Name of the run.
    pub run_name: String,
    /// Continue this run (its directory) instead of starting a new one.
    pub resume: Option<PathBuf>,
    /// Copy the run while it trains.
    pub copy: Option<Copy>,
    /// The resolved settings as text: `config.yaml` and `recipe.yaml`.
    pub config_yaml: String,
    /// See `config_yaml`.
    pub recipe_yaml: String,
    /// How progress is shown.
    pub show: Show,
    /// When asked, the run saves a checkpoint and ends.
    pub stop: Stop,
}

/// How a training run ended.
#[derive(Clone, Debug, Serialize)]
pub struct TrainSummary {
    /// The run's directory.
    pub run_dir: PathBuf,
    /// The checkpoint to use: `best` where there is one, else `last`.
    pub checkpoint: PathBuf,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Of those, not applied.
    pub skipped: usize,
    /// Tokens read.
    pub tokens: u64,
    /// Newest validation loss (unweighted, mean over heads, nats).
    pub valid_loss: Option<f64>,
    /// Best validation loss.
    pub best_loss: Option<f64>,
    /// False if it was interrupted.
    pub finished: bool,
    /// Wall-clock seconds of this process.
    pub seconds: f64,
    /// Peak resident memory in bytes.
    pub peak_memory: Option<u64>,
    /// What the value stage learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<super::ValueReport>,
    /// First and last losses, and what the value head knows.
    pub learned: super::Learned,
    /// The run's page.
    pub report: PathBuf,
    /// How far the run's trackers are; None if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<TrackingSummary>,
    /// The run's copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopySummary>,
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
}

pub(super) fn prepare(request: &TrainRequest) -> Result<Prepared, PipelineError> {
    let recipe = &request.recipe;
    let mut config = request.sources.config()?;
    let tokenizer = recipe
        .data
        .dated(Tokenizer::load(request.sources.tokenizer())?)
        .with_choice(recipe.data.choice())?
        .for_model(config.vocab_size)?;
    let new_heads = recipe.model.mtp.n_heads.saturating_sub(config.n_heads);
    config.n_heads = recipe.model.mtp.n_heads;
    check_positions("model", &request.sources.base, &config, recipe.data.seq_len)?;
    let tokenizer = check_companions(request, tokenizer)?;
    let rounds = recipe.train.precision != PrecisionConfig::F32 || recipe.optim.state != StatePrecision::F32;
    if recipe.train.precision == PrecisionConfig::PureBf16 && recipe.train.lora.is_some() {
        return Err(PipelineError::Setting(
            "`train.precision: pure-bf16` is for full fine-tuning and `train.lora` is set; take `bf16` with adapters"
                .into(),
        ));
    }
    if rounds && request.device_name != "flex" {
        return Err(PipelineError::Setting(format!(
            "`train.precision` and `optim.state` other than f32 work on flex only so far, and this run is on {}; leave them out, or take --device flex",
            request.device_name
        )));
    }
    if recipe.loss.filter > 0.0 && request.device_name != "flex" {
        return Err(PipelineError::Setting(format!(
            "`loss.filter` works on flex only so far, and this run is on {}; set it to 0, or take --device flex",
            request.device_name
        )));
    }
    let data = DataConfig {
        source: request.sources.data.clone(),
        ..recipe.data.clone()
    };
    let splits = Splits::problems(&data, &tokenizer)?;
    let b = &recipe.batching;
    let shape = StepShape::new(b.micro_batch, b.accumulate, b.tokens_per_step, recipe.data.seq_len)?;
    let in_epochs = splits.train.num_steps(request.seed, recipe.train.epochs, shape);
    let total_steps = recipe.train.steps.unwrap_or(in_epochs);
    let per_epoch = splits.train.epoch(request.seed, 0, shape).len().max(1);
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
    })
}

/// Checks the models that read the trained model's token ids: rho1's reference and the critic's reward
/// model need the same tokenizer, an embedding for each id and room for a row. Loud and early: another
/// tokenizer would compare different tokens. Returns the tokenizer, limited to ids that all models have.
fn check_companions(request: &TrainRequest, mut tokenizer: Tokenizer) -> Result<Tokenizer, PipelineError> {
    let seq_len = request.recipe.data.seq_len;
    let scorer = innermost(&request.recipe.scorer);
    let sources = &request.sources;
    let reference = sources.reference_tokenizer().zip(sources.reference_config()?);
    if let (ScorerConfig::Rho1(_), Some((reference, config))) = (scorer, reference) {
        Rho1::check_tokenizers(&tokenizer, &Tokenizer::load(reference)?)?;
        tokenizer = tokenizer.also_for_model(config.vocab_size)?;
        check_positions("reference model", reference, &config, seq_len)?;
    }
    if let (ScorerConfig::Critic(critic), Some(reward)) = (scorer, &request.sources.reward)
        && critic.reward == Reward::RewardModel
    {
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

/// Runs a pipeline to its end.
pub fn train(request: &TrainRequest) -> Result<TrainSummary, PipelineError> {
    train_with(request, None)
}

/// Runs a pipeline with the recipe's scorer, or with `own` in its place (everything else, the value
/// stage of a critic recipe included, follows the recipe).
pub fn train_with(request: &TrainRequest, own: Option<Box<dyn Scorer>>) -> Result<TrainSummary, PipelineError> {
    train_tracked(request, own, Vec::new())
}

/// The same with trackers of one's own, beside those that the config names.
pub fn train_tracked(
    request: &TrainRequest,
    own: Option<Box<dyn Scorer>>,
    trackers: Vec<Box<dyn Tracker>>,
) -> Result<TrainSummary, PipelineError> {
    let started = Instant::now();
    let prepared = prepare(request)?;
    // An address that can't be used is better known now.
    let trackers: Vec<_> = track::trackers(&request.config.tracking)?
        .into_iter()
        .chain(trackers)
        .collect();
    let model = load_trained(request)?;
    let model_hash = request.sources.hash()?;
    let given_head = given_value_head(request, &model_hash)?;
    let recipe_id = recipe_id(request.algorithm.name(), &request.recipe_yaml);
    let fresh = TrainerState::new(recipe_id, prepared.splits.train.hash().into());

    let Resumed {
        run,
        state: start,
        from,
    } = match &request.resume {
        Some(dir) => {
            check_same_model(dir, &model_hash, &request.sources)?;
            resume(dir, request, &prepared, &fresh)?
        }
        None => Resumed {
            run: create_run(request, &prepared, &model_hash)?,
            state: fresh,
            from: None,
        },
    };
    let run = followed::begin(run, request, trackers, start.metrics_bytes)?;
    let trained = Training {
        request,
        prepared: &prepared,
        model,
        model_hash,
        given_head,
        run: &run,
        start,
        from,
    }
    .run(own);
    if let Err(error) = &trained {
        note_failure(&run, error);
    }
    let timed = run.add_time(started.elapsed().as_secs_f64());
    write_report(&run);
    let tracking = followed::end(&run, request, trained.as_ref().ok().map(|trained| &trained.state));
    let trained = trained?;
    timed?;
    Ok(TrainSummary {
        copy: trained.copy,
        ..summary(&run, &trained.state, started, trained.value, tracking)
    })
}

/// A run that has its directory.
struct Training<'a> {
    request: &'a TrainRequest,
    prepared: &'a Prepared,
    model: MtpLlama,
    model_hash: String,
    given_head: Option<ValueHead>,
    run: &'a RunDir,
    start: TrainerState,
    /// The checkpoint that it goes on from.
    from: Option<PathBuf>,
}

/// What training left.
struct Trained {
    state: TrainerState,
    value: Option<super::ValueReport>,
    copy: Option<CopySummary>,
}

impl Training<'_> {
    fn run(self, own: Option<Box<dyn Scorer>>) -> Result<Trained, PipelineError> {
        let Self {
            request,
            prepared,
            model,
            model_hash,
            given_head,
            run,
            start,
            from,
        } = self;
        let store = CheckpointStore::open(run.checkpoints())?;
        let copying = mirror::start(request, run)?;
        let store = store.with_mirror(copying.clone().map(|mirror| mirror as Arc<dyn Mirror>));
        announce(request, prepared, run);
        if request.recipe.train.head_warmup.steps == 0 && prepared.new_heads > 0 && request.resume.is_none() {
            eprintln!(
                "warning: {} of the heads are new to this model, and their losses will pull at what it knows: see train.head_warmup.steps, or train head 1 alone with model.mtp.n_heads=1",
                prepared.new_heads
            );
        }

        let progress = show(request)?;
        let mut value = None;
        let mut value_report = None;
        if let ScorerConfig::Critic(critic) = innermost(&request.recipe.scorer) {
            let (head, report) = match given_head {
                Some(head) => (head, None),
                None => value_stage(request, critic, prepared, &model.valid(), &model_hash, run, &*progress)?,
            };
            value = Some((head, critic.clone()));
            value_report = report;
        }
        let scorer_name = own
            .as_ref()
            .map_or(request.algorithm.name(), |own| own.name())
            .to_string();
        let current = value.as_ref().map(|(head, _)| CurrentHead::new(head.clone()));
        let scorer = match own {
            Some(own) => own,
            None => scorer(request, prepared, &model.valid(), current.as_ref())?,
        };
        let joint = value.filter(|(_, critic)| critic.value == ValueUse::Joint);
        let labelled = match &joint {
            Some((_, critic)) => Some(LabelledSteps::new(critic, prepared, request.seed)?),
            None => None,
        };
        let joint_value = match (&joint, current) {
            (Some((_, critic)), Some(current)) => {
                Some(JointValue::new(critic.clone(), current, reward(critic, request)?))
            }
            _ => None,
        };
        let weigher = Weigher::new(
            scorer,
            Normaliser::new(request.recipe.weights.clone())?,
            request.recipe.weights.over,
            request.recipe.loss.clone(),
            joint_value,
        );
        let value_lr = joint.as_ref().map(|(_, critic)| critic.lr);
        let assets = Assets {
            companions: companions(request, &prepared.tokenizer)?,
            model_hash,
            lora: request.recipe.train.lora.as_ref().map(|l| LoraAssets {
                base: request.sources.base_name(&request.recipe.model.base),
                rank: l.rank,
                alpha: l.alpha,
            }),
        };
        let value: Option<ValueHead> = joint.map(|(head, _)| head.trainable(&model.device()));
        let module = WeightedMtp::new(model, value, weigher, assets).with_heads(request.recipe.train.heads);
        let module = assign_stable_ids(module);
        let plan = Plan {
            optim: request.recipe.optim.clone(),
            train: request.recipe.train.clone(),
            fallback: request.recipe.fallback.clone(),
            value_lr,
            total_steps: prepared.total_steps,
            scorer: scorer_name,
            max_fallback_share: request.recipe.weights.max_fallback_share,
        };
        let begun = start.step;
        let fitted = fit(
            request,
            module,
            plan,
            prepared,
            labelled,
            run.clone(),
            store,
            start,
            from,
            progress.clone(),
        );
        progress.close();
        // What a run that failed has saved is worth as much.
        let step = fitted.as_ref().map_or(begun, |state| state.step);
        let copy = mirror::finish(request, copying.as_deref(), run, step)?;
        let state = fitted?;
        if let Some(problem) = state.failed.clone().filter(|_| state.finished) {
            let step = state.step;
            return Err(TrainError::Failed { step, problem }.into());
        }
        Ok(Trained {
            state,
            value: value_report,
            copy,
        })
    }
}

#[allow(clippy::too_many_arguments)]
fn fit<M: Trainable>(
    request: &TrainRequest,
    module: M,
    plan: Plan,
    prepared: &Prepared,
    labelled: Option<LabelledSteps>,
    run: RunDir,
    store: CheckpointStore,
    start: TrainerState,
    from: Option<PathBuf>,
    progress: Arc<dyn Progress>,
) -> Result<TrainerState, PipelineError> {
    if start.finished {
        return Ok(start);
    }
    let names = StepNames::of(&prepared.splits.train, labelled.as_ref().map(LabelledSteps::data));
    let source: Arc<dyn StepSource> = Arc::new(TrainSteps {
        data: Arc::new(prepared.splits.train.clone()),
        labelled,
        seed: request.seed,
        shape: prepared.shape,
    });
    let loader = StepLoader::new(source);
    let valid = ValidSteps(prepared.splits.valid.in_order(prepared.shape.micro_batch));
    let valid = StepLoader::new(Arc::new(valid));
    let optimizer = adamw(&plan.optim, &GradientScale::default()).map_err(PipelineError::Setting)?;
    let directory = run.path().to_path_buf();
    let samples = Samples::choose(&plan.train.record, &prepared.splits, &prepared.tokenizer)?;
    let strategy = StepStrategy::new(plan, loader.clone(), run, store, start, from, progress)
        .with_samples(samples)
        .with_names(names)
        .with_stop(request.stop.clone());
    let strategy = Arc::new(strategy);
    let training = SupervisedTraining::new(&directory, Arc::new(loader), Arc::new(valid))
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_metric_logger(InMemoryMetricLogger::default())
        .with_application_logger(None)
        .num_epochs(prepared.epochs)
        .renderer(Box::new(Quiet));
    let interrupter = training.interrupter();
    let _watch = request.stop.watch(move || interrupter.stop(Some("asked to stop")));
    // The schedule is the strategy's; the learner's own is never stepped.
    let result = training.launch(Learner::new(module, optimizer, ConstantLr::from(0.0)));
    let error = result.error.as_ref().map(ToString::to_string);
    drop(result);
    match (strategy.take_outcome(), error) {
        (Some(Err(error)), _) => Err(error.into()),
        (_, Some(error)) => Err(TrainError::Loop(error).into()),
        (Some(Ok(state)), None) => Ok(state),
        (None, None) => Err(TrainError::Loop("burn-train ended without running the strategy".into()).into()),
    }
}

/// The value head that the recipe names, if it names one.
fn given_value_head(request: &TrainRequest, model_hash: &str) -> Result<Option<ValueHead>, PipelineError> {
    let ScorerConfig::Critic(critic) = innermost(&request.recipe.scorer) else {
        return Ok(None);
    };
    let Some(file) = &critic.value_head else {
        return Ok(None);
    };
    let file = PathBuf::from(file);
    let file = if file.is_dir() {
        file.join("value_head.safetensors")
    } else {
        file
    };
    Ok(Some(ValueHead::load(&file, model_hash, &request.device)?))
}

/// The scorer under any `shuffled`.
pub(super) fn innermost(config: &ScorerConfig) -> &ScorerConfig {
    match config {
        ScorerConfig::Shuffled(shuffled) => innermost(&shuffled.of),
        other => other,
    }
}

fn create_run(request: &TrainRequest, prepared: &Prepared, model_hash: &str) -> Result<RunDir, PipelineError> {
    let run = RunDir::create(&request.output, &request.run_name)?;
    run.write_text("config.yaml", &request.config_yaml)?;
    run.write_text("recipe.yaml", &request.recipe_yaml)?;
    let report = prepared.splits.train.report();
    run.write_json(
        "run.json",
        &serde_json::json!({
            "format": 1,
            "uid": uid(),
            "name": request.run_name,
            "algorithm": request.algorithm,
            "started": jiff::Timestamp::now().to_string(),
            "wmtp": env!("CARGO_PKG_VERSION"),
            "commit": option_env!("WMTP_COMMIT"),
            "device": request.device_name,
            "environment": crate::machine::Machine::here(),
            "seed": request.seed,
            "model": request.recipe.model.base,
            "model_sha256": model_hash,
            "places": request.sources.places(),
            "data": request.recipe.data.source,
            "data_sha256": prepared.splits.train.hash(),
            "chat_date": request.recipe.data.chat_date,
            "recipe_sha256": sha256(&request.recipe_yaml),
            "recipe_id": recipe_id(request.algorithm.name(), &request.recipe_yaml),
            "documents": report.documents,
            "documents_too_long": report.dropped.iter().map(|(name, tokens)| serde_json::json!({"name": name, "tokens": tokens})).collect::<Vec<_>>(),
            "response_tokens": report.response_tokens,
            "tokens": prepared.splits.tokens,
            "steps": prepared.total_steps,
            "random_weights": has_random_weights(&request.recipe.model.base),
        }),
    )?;
    Ok(run)
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Distinguishes the run from all others, wherever it is continued.
fn uid() -> String {
    use std::hash::{BuildHasher, RandomState};
    // The keys of a RandomState are the operating system's.
    let random = || RandomState::new().hash_one(jiff::Timestamp::now().as_nanosecond());
    format!("{:016x}{:016x}", random(), random())
}

/// What shows the run's progress.
fn show(request: &TrainRequest) -> Result<Arc<dyn Progress>, PipelineError> {
    if request.show == Show::Lines {
        return Ok(Arc::new(Lines));
    }
    let what = format!(
        "{} of {} on {}",
        request.algorithm.name(),
        request.recipe.model.base,
        request.device_name
    );
    let dashboard = Dashboard::open(&request.run_name, &what, &request.stop)
        .map_err(|e| PipelineError::Setting(format!("cannot draw on this terminal: {e}; pass --plain for lines")))?;
    Ok(Arc::new(dashboard))
}

fn announce(request: &TrainRequest, prepared: &Prepared, run: &RunDir) {
    let report = prepared.splits.train.report();
    eprintln!(
        "{} of {} ({} parameters, {} heads) on {}: {} documents, {} response tokens, {} steps; run directory {}",
        request.algorithm.name(),
        request.recipe.model.base,
        prepared.config.num_params(),
        prepared.config.n_heads,
        request.device_name,
        report.documents,
        report.response_tokens,
        prepared.total_steps,
        run.path().display()
    );
    if has_random_weights(&request.recipe.model.base) {
        eprintln!(
            "the model starts from random weights: learning rate {:e} unless another is set (configs/recipe.random-weights.yaml)",
            request.recipe.optim.lr
        );
    }
    if !report.dropped.is_empty() {
        eprintln!(
            "{} than data.seq_len = {} and left out (run.json names them)",
            match report.dropped.len() {
                1 => "1 document is longer".into(),
                n => format!("{n} documents are longer"),
            },
            request.recipe.data.seq_len
        );
    }
    for line in token_lines(&prepared.splits.tokens, &prepared.tokenizer) {
        eprintln!("{line}");
    }
}

/// The base model's files for the checkpoints, with what training decided about special tokens.
fn companions(request: &TrainRequest, tokenizer: &Tokenizer) -> Result<Companions, PipelineError> {
    let files = Companions::read(request.sources.tokenizer())?.or(Companions::read(&request.sources.base)?);
    Ok(match tokenizer.config_file() {
        Some((name, text)) => files.with(name, text.into_bytes()),
        None => files,
    })
}

/// What a reader of the log should know of special tokens and of text files left out.
pub(super) fn token_lines(tokens: &TokenReport, tokenizer: &Tokenizer) -> Vec<String> {
    let mut lines: Vec<String> = tokenizer
        .notice()
        .map(|notice| format!("note: {notice}"))
        .into_iter()
        .collect();
    if !tokens.spelled_special_tokens.is_empty() {
        let counts: Vec<String> = tokens
            .spelled_special_tokens
            .iter()
            .map(|(token, count)| format!("`{token}` {count} times"))
            .collect();
        let treated = match tokens.choice.special_in_text {
            SpecialInText::Plain => "kept as plain text",
            SpecialInText::Auto | SpecialInText::Parse => {
                "read as special tokens (data.special_in_text: plain keeps them as text)"
            }
        };
        lines.push(format!(
            "the training texts spell special tokens: {}; {treated}",
            counts.join(", ")
        ));
    }
    if !tokens.text_files_too_short.is_empty() {
        const SHOWN: usize = 5;
        let files = &tokens.text_files_too_short;
        let mut names: Vec<String> = files
            .iter()
            .take(SHOWN)
            .map(|file| format!("{} ({} tokens)", file.name, file.tokens))
            .collect();
        if files.len() > SHOWN {
            names.push(format!("{} more", files.len() - SHOWN));
        }
        lines.push(format!(
            "{} text files are too short to train on and were left out: {}",
            files.len(),
            names.join(", ")
        ));
    }
    lines
}
