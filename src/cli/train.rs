//! `wmtp train`: fine-tune a model with one of the three pipelines.

use super::{
    Failure, Output, SettingsArgs,
    base::{self, Place},
    common::{data_source, open_device},
    resume,
    runs::{checkpoint_of, said},
};
use crate::{
    data::{PromptStyle, Tokenizer},
    pipeline::{self, PlanReport, Show, Sources, TrainRequest, TrainSummary},
    scorer::ScorerConfig,
    settings::{Pipeline, Settings, expand_home},
    stop::Stop,
    storage::RemoteRuns,
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

/// `wmtp train <critic|rho1|baseline>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which pipeline; its built-in recipe is what --recipe files change.
    pipeline: Pipeline,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The model to train: builtin:micro, a directory, hf://OWNER/NAME or s3://BUCKET/KEY (model.base).
    #[arg(long, value_name = "URI")]
    model: Option<String>,
    /// The data: builtin:mbpp, a directory, hf://OWNER/NAME or s3://BUCKET/KEY (data.source).
    #[arg(long, value_name = "URI")]
    data: Option<String>,
    /// Name of the run (run.name).
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
    /// Tags of the run, separated by commas (run.tags).
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Go on with a run: its name, `auto` for the newest unfinished one, or s3://BUCKET/PREFIX/NAME.
    #[arg(long, value_name = "auto|RUN|URL")]
    resume: Option<String>,
    /// Optimizer steps (train.steps).
    #[arg(long, value_name = "N")]
    max_steps: Option<usize>,
    /// Where run directories are made (paths.runs).
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Resolve everything, print the plan, train nothing.
    #[arg(long)]
    dry_run: bool,
    /// Lines instead of the dashboard, also on a terminal.
    #[arg(long)]
    plain: bool,
}

/// Trains, or prints the plan.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let dry_run = args.dry_run;
    let request = prepare(args, output)?;
    if dry_run {
        let plan = pipeline::plan(&request)?;
        return output.result(&serde_json::to_value(&plan)?, &plan_text(&plan));
    }
    request
        .stop
        .on_signals()
        .map_err(|e| Failure::failed(format!("cannot listen to signals: {e}")))?;
    let summary = pipeline::train(&request)?;
    output.result(&serde_json::to_value(&summary)?, &summary_text(&summary))?;
    if request.stop.is_asked() && !summary.finished {
        return Err(Failure::Found(format!(
            "asked to stop after step {}: a checkpoint is saved, go on with --resume {}",
            summary.steps, request.run_name
        )));
    }
    Ok(())
}

fn prepare(args: Args, output: &Output) -> Result<TrainRequest, Failure> {
    let load = |settings: &SettingsArgs| {
        settings
            .sources(Some(args.pipeline))
            .flag_text("--model", "model.base", args.model.as_deref())
            .flag_text("--data", "data.source", args.data.as_deref())
            .flag_text("--run-name", "run.name", args.run_name.as_deref())
            .flag("--tags", "run.tags", args.tags.clone())
            .flag("--max-steps", "train.steps", args.max_steps)
            .flag("--output", "paths.runs", args.output.clone())
            .load()
    };
    let mut settings = load(&args.settings)?;
    let runs = expand_home(&settings.config.paths.runs);
    let found = resume::find(args.resume.as_deref(), args.pipeline, &settings.config, &runs, output)?;
    if let Some(found) = &found {
        // The run's own settings, under whatever was given now: what differs is refused later.
        let run = &found.dir;
        let own = args.settings.under(run.join("config.yaml"), run.join("recipe.yaml"));
        settings = load(&match &found.copied_to {
            Some(url) => own.over(vec![format!("storage.runs={url}")]),
            None => own,
        })?;
    }
    let resume = found.map(|found| found.dir);
    name_checkpoints(&mut settings, &runs)?;
    args.pipeline
        .check_scorer(&settings.recipe.scorer)
        .map_err(Failure::usage)?;
    // The cheap questions before a download.
    let (device_name, device) = open_device(&settings)?;
    let sources = sources(&settings, resume.as_deref(), &device, output)?;
    if settings.recipe.data.prompt == PromptStyle::Chat {
        let tokenizer = Tokenizer::load(sources.tokenizer())?;
        settings.recipe.data.record_chat_date(&tokenizer);
    }
    let run_name = match (&resume, &settings.recipe.run.name) {
        (Some(run), _) => run
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        (None, Some(name)) => name.clone(),
        (None, None) => format!(
            "{}-{}",
            args.pipeline.name(),
            jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")
        ),
    };
    let copy = match &settings.config.storage.runs {
        Some(url) if !args.dry_run => Some(copy(url, &run_name, resume.is_none(), &settings)?),
        _ => None,
    };
    let dashboard = std::io::stdout().is_terminal() && !output.is_json() && !args.plain;
    Ok(TrainRequest {
        algorithm: args.pipeline,
        seed: settings.config.seed,
        device,
        device_name,
        sources,
        cache: expand_home(&settings.config.paths.cache),
        output: runs,
        run_name,
        resume,
        copy,
        config_yaml: settings.config.to_yaml(),
        recipe_yaml: settings.recipe.to_yaml(),
        show: if dashboard { Show::Dashboard } else { Show::Lines },
        stop: Stop::default(),
        config: settings.config,
        recipe: settings.recipe,
    })
}

/// Puts the checkpoint in the place of a run or `auto`, so that the recipe that is kept names it.
fn name_checkpoints(settings: &mut Settings, runs: &Path) -> Result<(), Failure> {
    let model = &mut settings.recipe.model;
    for uri in [Some(&mut model.base), model.reference.as_mut(), model.reward.as_mut()]
        .into_iter()
        .flatten()
    {
        if let Some(checkpoint) = checkpoint_of(uri, runs)? {
            eprintln!("{}", said(uri, &checkpoint));
            *uri = checkpoint.display().to_string();
        }
    }
    Ok(())
}

/// The models and data that the recipe names, found; `run`: the run that is resumed.
fn sources(
    settings: &Settings,
    run: Option<&Path>,
    device: &burn::tensor::Device,
    output: &Output,
) -> Result<Sources, Failure> {
    let config = &settings.config;
    // The other built-in sets are for evaluation only.
    if let Some(name) = settings
        .recipe
        .data
        .source
        .strip_prefix("builtin:")
        .filter(|name| *name != "mbpp")
    {
        return Err(Failure::usage(format!(
            "there is no built-in data set `{name}` to train on: the one there is is builtin:mbpp"
        )));
    }
    let names = &settings.recipe.model;
    let place = |uri: &str, key: &str| {
        let model = base::of_run(uri, run, key, config, output)?;
        Place::of(&model, config, device, output)
    };
    let (wants_reference, wants_reward) = wants(&settings.recipe.scorer);
    let wanted = |name: &Option<String>, wanted: bool| name.clone().filter(|_| wanted);
    let of = |name: Option<String>, key: &str| name.map(|uri| place(&uri, key)).transpose();
    let reference = of(wanted(&names.reference, wants_reference), "reference")?.map(Place::split);
    let (reference, reference_adapter) = reference.map_or((None, None), |(base, adapter)| (Some(base), adapter));
    let (model, adapter) = place(&names.base, "model")?.split();
    Ok(Sources {
        data: data_source(&settings.recipe.data.source, config, output)?,
        base: model,
        adapter,
        reference,
        reference_adapter,
        // A reward model's directory is taken as it is: adapters of such models are refused.
        reward: of(wanted(&names.reward, wants_reward), "reward")?.map(|place| place.dir),
    })
}

/// Whether a scorer, or one inside it, asks a reference model and a reward model.
fn wants(scorer: &ScorerConfig) -> (bool, bool) {
    match scorer {
        ScorerConfig::Rho1(_) => (true, false),
        ScorerConfig::Critic(critic) => (false, critic.reward == crate::scorer::Reward::RewardModel),
        ScorerConfig::Shuffled(shuffled) => wants(&shuffled.of),
        ScorerConfig::Uniform(_) | ScorerConfig::Random(_) | ScorerConfig::Position(_) => (false, false),
    }
}

/// Where the run is copied to while it trains.
fn copy(url: &str, name: &str, is_new: bool, settings: &Settings) -> Result<pipeline::Copy, Failure> {
    let storage = &settings.config.storage;
    let to = RemoteRuns::open(url, storage)?.run(name);
    if is_new {
        match to.read("run.json") {
            Ok(None) => {}
            Ok(Some(_)) => {
                return Err(Failure::usage(format!(
                    "{} is a run already: give another --run-name, or continue it with --resume {name}",
                    to.url()
                )));
            }
            Err(error) => eprintln!("warning: {error}; checkpoints will be copied as soon as that works"),
        }
    }
    Ok(pipeline::Copy {
        to,
        wait: Duration::from_secs(storage.upload.wait_seconds),
    })
}

fn plan_text(plan: &PlanReport) -> String {
    let gib = plan.estimated_peak_memory as f64 / f64::from(1 << 30);
    let notes: String = plan
        .token_notes
        .iter()
        .map(|note| format!("\n            {note}"))
        .collect();
    format!(
        "train {} {} on {}\n\
         model       {} parameters, {} heads; {} trained\n\
         data        {} documents ({} too long, left out), {} tokens an epoch, {} of them trained; {} documents held out\n\
         tokens      special tokens {}: a document begins with {:?} and ends with {:?}{notes}\n\
         step        {} micro-batches of {} x {} tokens\n\
         steps       {}\n\
         memory      about {gib:.2} GiB at its peak (an estimate)\n\
         would write {}",
        plan.algorithm,
        plan.model,
        plan.device,
        plan.parameters,
        plan.heads,
        plan.trained_parameters,
        plan.documents,
        plan.documents_too_long,
        plan.tokens_per_epoch,
        plan.response_tokens_per_epoch,
        plan.validation_documents,
        plan.tokens.choice.special_tokens.name(),
        plan.tokens.begin_ids,
        plan.tokens.end_ids,
        plan.accumulate,
        plan.micro_batch[0],
        plan.micro_batch[1],
        plan.steps,
        plan.run_dir.display()
    )
}

fn summary_text(summary: &TrainSummary) -> String {
    let or_dash = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.4}"));
    let copied = summary.copy.as_ref().map_or_else(String::new, |copy| {
        let state = if copy.complete { "" } else { " (incomplete)" };
        format!("\ncopied to: {}{state}", copy.url)
    });
    format!(
        "{} after {} steps ({} not applied), {} tokens, {:.1} s; validation loss {} (best {})\ncheckpoint: {}{copied}",
        if summary.finished { "done" } else { "interrupted" },
        summary.steps,
        summary.skipped,
        summary.tokens,
        summary.seconds,
        or_dash(summary.valid_loss),
        or_dash(summary.best_loss),
        summary.checkpoint.display()
    )
}
