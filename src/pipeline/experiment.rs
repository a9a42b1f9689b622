//! An experiment from settings to checkpoints, as a builder.

use super::{
    ModelDir, ModelDirs, PipelineError, PlanReport, RunUpload, TrainSummary, builtin_model,
    finish::{note_failure, summary, write_report},
    inputs::{Inputs, Labelled},
    model_dirs::load_trained,
    plan,
    pretrain::pretrain,
    request::{Prepared, Request, prepare},
    resume::{Resumed, recipe_id, resume},
    stage_scores::{MeasuredStage, measure},
    start::{announce, create_run, open_progress},
    tracking,
    train::{Trained, Training},
    value_stage::given_value_head,
};
use crate::{
    device,
    paths::expand_home,
    run::{RunLock, TrainerState},
    scorer::Scorer,
    settings::{Pipeline, Settings},
    stop::Stop,
    storage::Location,
    track::{self, Tracker},
    train::{Progress, Silent},
};
use burn::tensor::Device;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// A training run that is being put together.
///
/// ```no_run
/// # use wmtp::{pipeline::Experiment, settings::{Pipeline, Sources}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Sources::new(Some(Pipeline::Baseline)).set("train.steps=20").load()?;
/// let summary = Experiment::from(settings).run_name("first").run()?;
/// println!("{}", summary.checkpoint.display());
/// # Ok(())
/// # }
/// ```
pub struct Experiment {
    settings: Settings,
    device: Option<(String, Device)>,
    model_dirs: Option<ModelDirs>,
    run_name: Option<String>,
    numbered: bool,
    resume: Option<PathBuf>,
    lock: Option<RunLock>,
    upload: Option<RunUpload>,
    progress: Arc<dyn Progress>,
    stop: Stop,
    scorer: Option<Box<dyn Scorer>>,
    trackers: Vec<Box<dyn Tracker>>,
}

impl From<Settings> for Experiment {
    /// A new run of the pipeline whose scorer the recipe has.
    fn from(settings: Settings) -> Self {
        Self {
            settings,
            device: None,
            model_dirs: None,
            run_name: None,
            numbered: false,
            resume: None,
            lock: None,
            upload: None,
            progress: Arc::new(Silent),
            stop: Stop::default(),
            scorer: None,
            trackers: Vec::new(),
        }
    }
}

impl Experiment {
    /// Runs on this device, which is without autodiff; `name` is for the record. Otherwise on
    /// `devices.backend`'s.
    pub fn device(mut self, name: impl Into<String>, device: Device) -> Self {
        self.device = Some((name.into(), device));
        self
    }

    /// The recipe's models and data as local directories. Otherwise they must be directories of this
    /// machine or built in.
    pub fn model_dirs(mut self, dirs: ModelDirs) -> Self {
        self.model_dirs = Some(dirs);
        self
    }

    /// The run's name. Otherwise `run.name`, or one made of pipeline and time.
    pub fn run_name(mut self, name: impl Into<String>) -> Self {
        self.run_name = Some(name.into());
        self
    }

    /// A name that nobody chose: where a run has it already, the new one is called `NAME-2`, `NAME-3`, ….
    pub fn made_up_name(self, name: impl Into<String>) -> Self {
        Self {
            numbered: true,
            ..self.run_name(name)
        }
    }

    /// The lock of the run that is resumed, where the caller has it already. Otherwise it is taken, or the run
    /// refused while another process holds it.
    pub fn lock(mut self, lock: Option<RunLock>) -> Self {
        self.lock = lock;
        self
    }

    /// Continues the run in this directory instead of starting a new one.
    pub fn resume(mut self, run: Option<PathBuf>) -> Self {
        self.resume = run;
        self
    }

    /// Uploads the run while it trains.
    pub fn upload(mut self, upload: Option<RunUpload>) -> Self {
        self.upload = upload;
        self
    }

    /// Receives the run's progress and warnings; without it they are only in the run's directory.
    pub fn progress(mut self, progress: impl Progress + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// When asked, the run saves a checkpoint and ends.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Trains with this scorer in place of the recipe's. Everything else, the value stage of a critic
    /// recipe included, follows the recipe.
    pub fn scorer(mut self, scorer: impl Scorer + 'static) -> Self {
        self.scorer = Some(Box::new(scorer));
        self
    }

    /// Adds a tracker to those that the config names.
    pub fn tracker(mut self, tracker: impl Tracker + 'static) -> Self {
        self.trackers.push(Box::new(tracker));
        self
    }

    /// Resolves and counts everything; trains and writes nothing.
    ///
    /// # Errors
    /// Settings, data or models that do not fit.
    pub fn plan(self) -> Result<PlanReport, PipelineError> {
        plan::plan(&self.request()?.request)
    }

    /// Trains to the end, or until asked to stop.
    ///
    /// # Errors
    /// Settings, data or models that do not fit; training that failed.
    pub fn run(self) -> Result<TrainSummary, PipelineError> {
        let started = Instant::now();
        run(self.request()?, started)
    }

    /// Finds what was not given.
    fn request(self) -> Result<Ready, PipelineError> {
        let Settings { config, recipe, .. } = self.settings;
        let pipeline = recipe.scorer.pipeline();
        let (device_name, device) = match self.device {
            Some(given) => given,
            None => device::resolve(&config.devices.backend)?,
        };
        let model_dirs = match self.model_dirs {
            Some(dirs) => dirs,
            None => ModelDirs::local(&recipe, &expand_home(&config.paths.cache), &device)?,
        };
        let name_of = |dir: &Path| dir.file_name().map(|name| name.to_string_lossy().into_owned());
        let given = self.run_name.or(recipe.run.name.clone());
        let numbered = self.numbered || given.is_none();
        let resumed = self.resume.as_deref().and_then(name_of);
        let run_name = resumed.or(given).unwrap_or_else(|| default_name(pipeline));
        let request = Request {
            pipeline,
            config,
            recipe,
            device,
            device_name,
            model_dirs,
            run_name,
            numbered,
            resume: self.resume,
            upload: self.upload,
            progress: self.progress,
            stop: self.stop,
        };
        Ok(Ready {
            request,
            scorer: self.scorer,
            trackers: self.trackers,
            lock: self.lock,
        })
    }
}

/// An experiment with everything found.
struct Ready {
    request: Request,
    scorer: Option<Box<dyn Scorer>>,
    trackers: Vec<Box<dyn Tracker>>,
    lock: Option<RunLock>,
}

/// The name of a run that has none: its pipeline and the time.
pub(crate) fn default_name(pipeline: Pipeline) -> String {
    format!(
        "{}-{}",
        pipeline.name(),
        crate::clock::local().strftime("%Y%m%d-%H%M%S")
    )
}

impl ModelDirs {
    /// The models and data that a recipe names, which must be on this machine or built in; a built-in
    /// model is written to `cache`.
    ///
    /// # Errors
    /// A name that is none, or of something elsewhere.
    pub fn local(recipe: &crate::settings::Recipe, cache: &Path, device: &Device) -> Result<Self, PipelineError> {
        let dir = |uri: &str| match Location::parse(uri)? {
            Location::Path(path) => Ok(path),
            Location::Builtin(name) => builtin_model(&name, cache, device),
            _ => Err(PipelineError::Setting(format!(
                "`{uri}` is not a directory of this machine; fetch it first, and give its directory"
            ))),
        };
        let model = |uri: &str| {
            Ok::<_, PipelineError>(ModelDir {
                dir: dir(uri)?,
                base: None,
            })
        };
        Ok(Self {
            data: recipe.data.source.clone(),
            model: model(&recipe.model.base)?,
            reference: recipe.model.reference.as_deref().map(model).transpose()?,
            reward: recipe.model.reward.as_deref().map(dir).transpose()?,
        })
    }
}

/// All stages, one after the other.
fn stages(mut training: Training<'_>, scorer: Option<Box<dyn Scorer>>) -> Result<Trained, PipelineError> {
    let (request, prepared, run) = (training.request, training.prepared, training.run);
    announce(request, prepared, run);
    open_progress(request)?;
    if training.start.step == 0 {
        measure(request, run, MeasuredStage::Start, 0, &request.model_dirs.model);
    }
    if request.recipe.train.pretrain.steps == 0 {
        return training.run(scorer);
    }
    let left = pretrain(
        request,
        prepared,
        training.model.clone(),
        &training.model_hash,
        run,
        &training.start.recipe,
    )
    .inspect_err(|_| request.progress.close())?;
    let needs_reference = request.recipe.scorer.models_needed().reference.is_some();
    if needs_reference && request.model_dirs.reference.is_none() {
        let mut request = request.clone();
        request.model_dirs.reference = Some(left);
        return Training {
            request: &request,
            ..training
        }
        .run(scorer);
    }
    measure(
        request,
        run,
        MeasuredStage::Pretraining,
        request.recipe.train.pretrain.steps,
        &left,
    );
    training.model_hash = left.hash()?;
    training.model = load_trained(&request.recipe, request.seed(), &left, &request.device)?;
    training.run(scorer)
}

/// Opens the run that is resumed, or makes the directory of a new one, and holds its lock.
fn open(
    request: &Request,
    prepared: &Prepared,
    lock: Option<RunLock>,
    model_hash: &str,
) -> Result<(Resumed, RunLock), PipelineError> {
    let recipe_id = recipe_id(request.pipeline, &request.recipe);
    let fresh = TrainerState::new(recipe_id, prepared.splits.train.hash().into());
    let Some(dir) = &request.resume else {
        let inputs = Inputs::of(request, prepared, model_hash, Labelled::Read)?;
        let (run, lock) = create_run(request, prepared, &inputs)?;
        let resumed = Resumed {
            run,
            state: fresh,
            from: None,
        };
        return Ok((resumed, lock));
    };
    let lock = match lock {
        Some(lock) => lock,
        None => RunLock::take(dir)?,
    };
    let labelled = Inputs::labelled_of(request, dir);
    let inputs = Inputs::of(request, prepared, model_hash, labelled)?;
    Ok((resume(dir, request, prepared, &fresh, &inputs)?, lock))
}

fn run(ready: Ready, started: Instant) -> Result<TrainSummary, PipelineError> {
    let Ready {
        mut request,
        scorer,
        trackers,
        lock,
    } = ready;
    let prepared = prepare(&request)?;
    plan::check_memory(&request, &prepared)?;
    // An address that can't be used is better known now.
    let trackers: Vec<_> = track::trackers(&request.config.tracking)?
        .into_iter()
        .chain(trackers)
        .collect();
    let model = load_trained(
        &request.recipe,
        request.seed(),
        &request.model_dirs.model,
        &request.device,
    )?;
    let model_hash = request.model_dirs.model.hash()?;
    let given_head = given_value_head(&request, &model_hash)?;
    // The lock is held to the end of all work on the run.
    let (resumed, lock) = open(&request, &prepared, lock, &model_hash)?;
    if let Some(note) = &lock.note {
        request.progress.warning(note);
    }
    let Resumed {
        run,
        state: start,
        from,
    } = resumed;
    request.call(&run.name());
    let request = &request;
    let (run, tracking) = tracking::begin(run, request, trackers, start.metrics_bytes)?;
    let trained = Training {
        request,
        prepared: &prepared,
        model,
        model_hash,
        given_head,
        run: &run,
        start,
        from,
    };
    let trained = stages(trained, scorer);
    match &trained {
        Err(error) => note_failure(request, &run, error),
        Ok(trained) if trained.state.finished => {
            let model = request.model_dirs.trained(&request.recipe, run.best_or_last());
            measure(request, &run, MeasuredStage::Weighted, trained.state.step, &model);
        }
        Ok(_) => {}
    }
    let timed = run.add_time(started.elapsed().as_secs_f64());
    write_report(request, &run);
    let tracking = tracking::end(
        &tracking,
        &run,
        request,
        trained.as_ref().ok().map(|trained| &trained.state),
    );
    let trained = trained?;
    timed?;
    Ok(TrainSummary {
        upload: trained.upload,
        ..summary(&run, &trained.state, started, trained.value, tracking)
    })
}
