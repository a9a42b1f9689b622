//! `wmtp train`: fine-tune a model with one of the three pipelines.

use super::{
    Failure, Lines, Output, SettingsArgs,
    base::{self, find_dir},
    common::{data_source, open_device, stop_on_signals},
    dashboard::Dashboard,
    resume,
    runs::{checkpoint_of, said},
};
use crate::{
    data::{PromptStyle, Sources, Tokenizer},
    paths::expand_home,
    pipeline::{self, Experiment, ModelDirs, PipelineError, PlanReport, TrainSummary, default_name},
    run::file,
    settings::{Pipeline, Settings},
    storage::{RemoteRuns, StorageConfig},
    text::gib,
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

/// `wmtp train <critic|rho1|baseline>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which pipeline; --recipe files change its built-in recipe.
    pipeline: Pipeline,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The model to train: builtin:world, builtin:micro, a directory, hf://OWNER/NAME or s3://BUCKET/KEY
    /// (model.base). Without it and --data a small model learns the small world from scratch.
    #[arg(long, value_name = "URI")]
    model: Option<String>,
    /// The data: builtin:mbpp, builtin:world, a file, a directory, hf://OWNER/NAME, s3://BUCKET/KEY, or none for data.text alone
    /// (data.source).
    #[arg(long, value_name = "URI")]
    data: Option<String>,
    /// Name of the run (run.name).
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
    /// Tags of the run, separated by commas (run.tags).
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Resume a run: its name, `auto` for the newest unfinished one, or s3://BUCKET/PREFIX/NAME. Other
    /// settings than the run's are refused, but for its length, checkpoints and a few more
    /// (docs/training.md).
    #[arg(long, value_name = "auto|RUN|URL")]
    resume: Option<String>,
    /// Optimizer steps (train.steps); of a new run also the most of its unweighted stage (train.pretrain.steps).
    #[arg(long, value_name = "N")]
    max_steps: Option<usize>,
    /// Where run directories are made (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
    /// Resolve all settings, print the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Print progress lines instead of the dashboard, even on a terminal.
    #[arg(long)]
    plain: bool,
}

/// Trains, or prints the plan.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let (dry_run, pipeline) = (args.dry_run, args.pipeline);
    let (experiment, benchmark) = prepare(args, output)?;
    if dry_run {
        let plan = experiment.plan()?;
        return output.result(&serde_json::to_value(&plan)?, &plan_text(&plan));
    }
    let stop = stop_on_signals()?;
    let resume = |run: &Path| format!("wmtp train {} --resume {}", pipeline.name(), run.display());
    let summary = match experiment.stop(stop.clone()).run() {
        Err(PipelineError::Stopped { run }) => {
            let resume = resume(&run);
            return Err(Failure::failed(format!("{}: {resume}", PipelineError::Stopped { run })));
        }
        trained => trained?,
    };
    let resume = resume(&summary.run_dir);
    output.result(
        &serde_json::to_value(&summary)?,
        &summary_text(&summary, benchmark, &resume),
    )?;
    if stop.is_asked() && !summary.finished {
        let saved = if stop.saves() {
            "a checkpoint is saved"
        } else {
            "no checkpoint was saved, so the newest one before counts"
        };
        return Err(Failure::Found(format!(
            "asked to stop after step {}: {saved}; continue with --resume {}",
            summary.steps,
            summary.run_dir.file_name().unwrap_or_default().display()
        )));
    }
    Ok(())
}

/// The experiment, and the benchmark that its data are of.
fn prepare(args: Args, output: &Output) -> Result<(Experiment, &'static str), Failure> {
    let sources = |settings: &SettingsArgs| {
        settings
            .sources(Some(args.pipeline))
            .flag_text("--model", "model.base", args.model.as_deref())
            .flag_text("--data", "data.source", args.data.as_deref())
            .flag_text("--run-name", "run.name", args.run_name.as_deref())
            .flag("--tags", "run.tags", args.tags.clone())
            .flag("--max-steps", "train.steps", args.max_steps)
            .flag("--output", "paths.runs", args.output.clone())
    };
    let mut found = None;
    if let Some(name) = &args.resume {
        // What is given now need not be whole without the run's own settings.
        let config = sources(&args.settings).load_config()?;
        let place = resume::Place {
            pipeline: args.pipeline,
            config: &config,
            runs: &expand_home(&config.paths.runs),
            locked: !args.dry_run,
        };
        found = resume::find(name, place, output)?;
    }
    let lock = found.as_mut().and_then(|found| found.lock.take());
    let load = |settings: &SettingsArgs| sources(settings).load();
    let mut settings = if let Some(found) = &found {
        // The run's own settings, under whatever was given now: what differs is refused later.
        let run = &found.dir;
        let own = args.settings.under(run.join(file::CONFIG), run.join(file::RECIPE));
        let given = load(&own)?.config.seed;
        let seed = found.seed;
        let kept = seed.map(|seed| format!("seed={seed}"));
        let uploaded_to = found.uploaded_to.as_ref().map(|url| format!("storage.runs={url}"));
        let settings = load(&own.over(kept.into_iter().chain(uploaded_to).collect()))?;
        // What `--set` says comes after, and is refused with the other settings that differ.
        if seed.is_some_and(|seed| seed != given && settings.config.seed == seed) {
            say!(
                "seed {given} is not used: {} keeps its own, {}",
                run.display(),
                settings.config.seed
            );
        }
        settings
    } else {
        load(&args.settings)?
    };
    let runs = expand_home(&settings.config.paths.runs);
    let resume = found.map(|found| found.dir);
    if let (None, Some(most)) = (&resume, args.max_steps) {
        let pretrain = &mut settings.recipe.train.pretrain;
        pretrain.steps = pretrain.steps.min(most);
    }
    name_checkpoints(&mut settings, &runs)?;
    args.pipeline
        .check_scorer(&settings.recipe.scorer)
        .map_err(Failure::usage)?;
    // The cheap questions before a download.
    let (device_name, device) = open_device(&settings)?;
    let model_dirs = model_dirs(&settings, resume.as_deref(), &device, output)?;
    if settings.recipe.data.prompt == PromptStyle::Chat {
        let tokenizer = Tokenizer::load(model_dirs.model.tokenizer())?;
        settings.recipe.data.record_chat_date(&tokenizer);
    }
    let resumed = resume.as_deref().and_then(Path::file_name);
    let given = resumed.map(|name| name.to_string_lossy().into_owned());
    let given = given.or(settings.recipe.run.name.clone());
    let is_given = given.is_some();
    let run_name = given.unwrap_or_else(|| default_name(args.pipeline));
    let upload = match &settings.config.storage.runs {
        Some(url) if !args.dry_run => Some(upload(url, &run_name, resume.is_none(), &settings)?),
        _ => None,
    };
    let dashboard = std::io::stdout().is_terminal() && !output.is_json() && !args.plain;
    let benchmark = benchmark_of(&settings.recipe.data.source);
    let experiment = Experiment::from(settings)
        .device(device_name, device)
        .model_dirs(model_dirs)
        .resume(resume)
        .lock(lock)
        .upload(upload);
    let experiment = match is_given {
        true => experiment.run_name(run_name),
        false => experiment.made_up_name(run_name),
    };
    let experiment = if dashboard {
        experiment.progress(Dashboard::default())
    } else {
        experiment.progress(Lines)
    };
    Ok((experiment, benchmark))
}

/// The benchmark that is nearest to the training data.
fn benchmark_of(source: &Sources) -> &'static str {
    match source.one() {
        Some("builtin:world") => "world",
        Some("builtin:contest") => "contest",
        _ => "mbpp",
    }
}

/// Puts the checkpoint in the place of a run or `auto`, so that the recipe that is kept names it.
fn name_checkpoints(settings: &mut Settings, runs: &Path) -> Result<(), Failure> {
    let model = &mut settings.recipe.model;
    for uri in [Some(&mut model.base), model.reference.as_mut(), model.reward.as_mut()]
        .into_iter()
        .flatten()
    {
        if let Some(checkpoint) = checkpoint_of(uri, runs)? {
            say!("{}", said(uri, &checkpoint));
            *uri = checkpoint.display().to_string();
        }
    }
    Ok(())
}

/// The models and data that the recipe names, found; `run`: the run that is resumed.
fn model_dirs(
    settings: &Settings,
    run: Option<&Path>,
    device: &burn::tensor::Device,
    output: &Output,
) -> Result<ModelDirs, Failure> {
    let config = &settings.config;
    let sources = &settings.recipe.data.source;
    let builtin = sources
        .names()
        .into_iter()
        .filter_map(|name| name.strip_prefix("builtin:"));
    if let Some(name) = builtin.clone().find(|name| !pipeline::TRAINING_SETS.contains(name)) {
        return Err(Failure::usage(format!(
            "there is no built-in data set `{name}` to train on: there is builtin:{}",
            pipeline::TRAINING_SETS.join(", builtin:")
        )));
    }
    let names = &settings.recipe.model;
    let find = |uri: &str, key: &str| {
        let model = base::of_run(uri, run, key, config, output)?;
        find_dir(&model, config, device, output)
    };
    let needs = settings.recipe.scorer.models_needed();
    let wanted = |name: &Option<String>, wanted: bool| name.clone().filter(|_| wanted);
    let of = |name: Option<String>, key: &str| name.map(|uri| find(&uri, key)).transpose();
    // The model comes last: a built-in one is written to the cache, which a refusal must not leave behind.
    let data = sources.try_map(|name| data_source(name, config, output))?;
    let reference = of(wanted(&names.reference, needs.reference.is_some()), "reference")?;
    // A reward model's directory is taken as it is: adapters of such models are refused.
    let reward = of(wanted(&names.reward, needs.reward), "reward")?.map(|found| found.dir);
    Ok(ModelDirs {
        data,
        reference,
        reward,
        model: find(&names.base, "model")?,
    })
}

/// Seconds that S3 may take to say whether a run is there.
const QUESTION_SECONDS: u64 = 4;

/// Where the run is uploaded to while it trains.
fn upload(url: &str, name: &str, is_new: bool, settings: &Settings) -> Result<pipeline::RunUpload, Failure> {
    let storage = &settings.config.storage;
    let to = RemoteRuns::open(url, storage)?.run(name);
    // Training does not wait for a server that only receives copies.
    let impatient = StorageConfig {
        retries: 0,
        timeout_seconds: storage.timeout_seconds.min(QUESTION_SECONDS),
        ..storage.clone()
    };
    let runs = RemoteRuns::open(url, &impatient)?;
    let there = match is_new {
        true => runs.run(name).read(file::RECORD),
        false => Ok(None),
    };
    let found = match there {
        Ok(Some(_)) => {
            return Err(Failure::usage(format!(
                "{} is a run already: give another --run-name, or continue it with --resume {name}",
                to.url()
            )));
        }
        Ok(None) => runs.find_bucket(),
        Err(error) => Err(error),
    };
    if let Err(error) = found {
        say!("warning: {error}; checkpoints will be uploaded as soon as that works");
    }
    Ok(pipeline::RunUpload {
        to,
        wait: Duration::from_secs(storage.upload.wait_seconds),
    })
}

fn plan_text(plan: &PlanReport) -> String {
    let mut lines = vec![format!("train {} {} on {}", plan.algorithm, plan.model, plan.device)];
    let mut say = |name: &str, text: String| lines.push(format!("{name:<12}{text}"));
    say(
        "model",
        format!(
            "{} parameters, {} heads; {} trained",
            plan.parameters, plan.heads, plan.trained_parameters
        ),
    );
    if plan.random_weights {
        say(
            "weights",
            "random, so other defaults than a trained model's; what is set overrides them (docs/training.md)".into(),
        );
    }
    say(
        "data",
        format!(
            "{} documents ({} too long, left out: {:.1}%), {} tokens an epoch, {} of them trained; {} documents held out{}{}",
            plan.documents,
            plan.documents_too_long,
            100.0 * plan.share_too_long,
            plan.tokens_per_epoch,
            plan.response_tokens_per_epoch,
            plan.validation_documents,
            match plan.validated_documents {
                some if some < plan.validation_documents => format!(", about {some} of them validated on"),
                _ => String::new(),
            },
            match plan.copies_left_out {
                0 => String::new(),
                n => format!("; {n} copies of evaluation problems left out"),
            }
        ),
    );
    let tokens = &plan.tokens;
    say(
        "tokens",
        format!(
            "special tokens {}: a document begins with {:?} and ends with {:?}",
            tokens.choice.special_tokens.name(),
            tokens.begin_ids,
            tokens.end_ids
        ),
    );
    for note in &plan.token_notes {
        say("", note.clone());
    }
    if plan.pretrain_steps > 0 {
        say("pretraining", format!("{} steps without weights", plan.pretrain_steps));
    }
    if let Some(stage) = &plan.value_stage {
        say(
            "value stage",
            format!(
                "{} steps on {} labelled solutions, the model frozen",
                stage.steps, stage.solutions
            ),
        );
    }
    say(
        "step",
        format!(
            "{} micro-batches of {} x {} tokens",
            plan.accumulate, plan.micro_batch[0], plan.micro_batch[1]
        ),
    );
    say(
        "steps",
        format!("{}, learning rate {:e} at most", plan.steps, plan.learning_rate),
    );
    let machine = plan.machine_memory.map_or_else(String::new, |bytes| {
        format!(", of {:.1} GiB on this machine", gib(bytes))
    });
    say(
        "memory",
        format!(
            "about {:.2} GiB at its peak (an estimate){machine}",
            gib(plan.estimated_peak_memory)
        ),
    );
    say("would write", plan.run_dir.display().to_string());
    for warning in &plan.warnings {
        say("warning", warning.clone());
    }
    lines.join("\n")
}

/// What was learned, where it is and what to do next.
fn summary_text(summary: &TrainSummary, benchmark: &str, resume: &str) -> String {
    let skipped = match summary.skipped {
        0 => String::new(),
        n => format!(" ({n} not applied)"),
    };
    let mut lines = vec![format!(
        "{} after {} steps{skipped}, {} tokens, {:.1} s",
        if summary.finished { "done" } else { "interrupted" },
        summary.steps,
        summary.tokens,
        summary.seconds,
    )];
    let mut say = |name: &str, texts: Vec<String>| {
        for (i, text) in texts.into_iter().enumerate() {
            lines.push(format!("{:<12}{text}", if i == 0 { name } else { "" }));
        }
    };
    let mut learned = summary.learned.lines();
    if let (Some(best), Some((_, last))) = (summary.best_loss, summary.learned.last_valid)
        && best < last
    {
        learned.push(format!("best validation loss {best:.3}"));
    }
    say("learned", learned);
    say("checkpoint", vec![summary.checkpoint.display().to_string()]);
    say("page", vec![summary.report.display().to_string()]);
    if let Some(upload) = &summary.upload {
        let state = if upload.complete { "" } else { " (incomplete)" };
        say("uploaded to", vec![format!("{}{state}", upload.url)]);
    }
    say("next", next(summary, benchmark, resume));
    lines.join("\n")
}

/// Commands that follow a run.
fn next(summary: &TrainSummary, benchmark: &str, resume: &str) -> Vec<String> {
    if summary.finished {
        vec![
            format!("wmtp eval {benchmark} --model {}", summary.checkpoint.display()),
            format!("wmtp report {}", summary.run_dir.display()),
        ]
    } else {
        vec![resume.to_owned()]
    }
}
