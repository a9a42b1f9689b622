//! `wmtp eval`: a model, or completions made elsewhere, on a benchmark.

mod show;
mod source;
mod tracking;
mod training;

use super::{
    Failure, Output, SettingsArgs,
    common::data_source,
    generate::{speculation, speculation_text},
};
use crate::{
    data::{PromptStyle, Tokenizer, plus::PlusSet},
    eval::{
        self, Benchmark, Contest, EvalRequest, Finished, HumanEval, Mbpp, MbppVariant, Own, Plus, Profile, Source,
        parse_task_names,
        sandbox::{Limits, Options, Policy, Sandbox, SandboxError},
    },
    paths::expand_home,
    run::file,
    settings::{Settings, TaskChoice},
};
use show::Bar;
use source::{Answers, Asked};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// `wmtp eval <mbpp|humaneval|contest|mbpp+|humaneval+|jsonl>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    benchmark: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// MBPP: short Python functions, judged by their asserts.
    Mbpp(EvalArgs),
    /// HumanEval: functions to complete, judged by their unit tests.
    Humaneval(EvalArgs),
    /// CodeContests: programs that read standard input and write standard output.
    Contest(EvalArgs),
    /// MBPP+: MBPP with many more tests, from its published file (--data FILE).
    #[command(name = "mbpp+")]
    MbppPlus(EvalArgs),
    /// HumanEval+: HumanEval with many more tests, from its published file (--data FILE).
    #[command(name = "humaneval+")]
    HumanevalPlus(EvalArgs),
    /// Your own problems: JSONL with prompts and tests (--data FILE; docs/evaluation.md has the fields).
    Jsonl(EvalArgs),
}

#[derive(Debug, clap::Args)]
struct EvalArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME; the newest run's best checkpoint if absent.
    #[arg(long, value_name = "URI")]
    model: Option<String>,
    /// Judge the completions of this file: JSONL with task_id and completion or solution.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    predictions: Option<PathBuf>,
    /// A named protocol, under everything else that is given: quick or paper.
    #[arg(long, value_enum, value_name = "NAME")]
    profile: Option<Profile>,
    /// Problems: numbers, ranges and names (eval.tasks).
    #[arg(long, value_name = "11-110,7,NAME")]
    tasks: Option<String>,
    /// Which set: full or sanitized (mbpp), test or valid (contest), full or repaired (humaneval+)
    /// (eval.variant).
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// The problems: a directory or builtin:NAME; a file, plain or gzip, for mbpp+, humaneval+ and jsonl
    /// (eval.data).
    #[arg(long, value_name = "URI")]
    data: Option<String>,
    /// Completions for each problem and temperature (eval.samples).
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// The k of pass@k, separated by commas (eval.k).
    #[arg(long, value_name = "1,10", value_delimiter = ',')]
    k: Option<Vec<usize>>,
    /// Sampling temperatures, separated by commas; 0 is greedy (eval.temperature).
    #[arg(long, value_name = "0.2,0.8", value_delimiter = ',', allow_negative_numbers = true)]
    temperature: Option<Vec<f64>>,
    /// Nucleus (eval.top_p).
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Tokens after which a completion is cut (eval.max_new_tokens).
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Prompts longer than the model takes: refuse the evaluation, or fail these problems (eval.too_long).
    #[arg(long, value_name = "refuse|fail")]
    too_long: Option<String>,
    /// How a problem becomes a prompt: few-shot, zero-shot or chat (eval.prompt).
    #[arg(long, value_name = "STYLE")]
    prompt: Option<String>,
    /// Seconds on the clock for each program; for mbpp+ and humaneval+ the most for all inputs of a set
    /// together, 60 if left out (eval.timeout_seconds).
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Heads 2..H draft tokens, and head 1 decides: greedy answers are the same, in fewer passes.
    #[arg(long)]
    speculative: bool,
    /// Contest and jsonl: run all tests, not only up to the first that fails (eval.all_tests).
    #[arg(long)]
    all_tests: bool,
    /// Judge every program, also one whose verdict is known (eval.verdict_cache).
    #[arg(long)]
    no_verdict_cache: bool,
    /// Run programs even where this host lacks a layer of the sandbox: they may then read, write and
    /// reach what you may.
    #[arg(long)]
    unsafe_exec: bool,
    /// Every random draw follows from it (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Go on with an evaluation: its name, or `auto` for the newest unfinished one.
    #[arg(long, value_name = "auto|RUN")]
    resume: Option<String>,
    /// Print what the run would cost, and do no more.
    #[arg(long)]
    dry_run: bool,
    /// Tokens per second to estimate with, instead of a short measurement.
    #[arg(long, value_name = "TOKENS")]
    speed: Option<f64>,
    /// Write the samples here, too.
    #[arg(long, value_name = "FILE")]
    save_samples: Option<PathBuf>,
    /// Where run directories are made (paths.runs).
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Evaluates, or estimates.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let (name, args) = match args.benchmark {
        Which::Mbpp(args) => ("mbpp", args),
        Which::Humaneval(args) => ("humaneval", args),
        Which::Contest(args) => ("contest", args),
        Which::MbppPlus(args) => ("mbpp+", args),
        Which::HumanevalPlus(args) => ("humaneval+", args),
        Which::Jsonl(args) => ("jsonl", args),
    };
    args.check(name)?;
    let load = |under: &SettingsArgs| args.load(under, name);
    let mut settings = load(&args.settings)?;
    let runs = expand_home(&settings.config.paths.runs);
    let resumed = source::run_to_resume(args.resume.as_deref(), &runs, name)?;
    if let Some(run) = &resumed {
        // The run's own settings, under whatever was given now: what differs is refused later.
        settings = load(&args.settings.under(run.join(file::CONFIG), run.join(file::RECIPE)))?;
    }
    writable(args.save_samples.as_deref())?;
    let speculative = args.speculative || resumed.as_deref().is_some_and(source::was_speculative);
    let asked = Asked::new(args.model.as_deref(), args.predictions.as_deref(), resumed.as_deref());
    // Given completions were prompted elsewhere.
    let style = style(name, settings.recipe.eval.prompt.filter(|_| !asked.is_a_file()));
    // The cheap questions before a download, except that only the model knows its chat template.
    let mut located = None;
    let mut tokenizer = None;
    if style == PromptStyle::Chat {
        let found = asked.locate(&settings, &runs, output)?;
        tokenizer = found.tokenizer()?.map(|tokenizer| {
            settings.recipe.data.record_chat_date(&tokenizer);
            settings.recipe.data.dated(tokenizer)
        });
        located = Some(found);
    }
    let benchmark = benchmark(name, &settings, style, tokenizer.as_ref(), output)?;
    let mut request = request(name, &settings, benchmark.as_ref(), &runs, resumed)?;
    if let (PromptStyle::Chat, Some(date)) = (style, &settings.recipe.data.chat_date) {
        request.origin.insert("chat_date".into(), date.clone());
    }
    request.origin.extend(benchmark.origin());
    if !asked.is_a_file() {
        check(&request, benchmark.as_ref())?;
    }
    let located = match located {
        Some(found) => found,
        None => asked.locate(&settings, &runs, output)?,
    };
    let given = located.predictions(&mut settings, benchmark.as_ref(), &mut request, args.samples)?;
    check(&request, benchmark.as_ref())?;
    // Without Python nothing can be judged: better known before the model is loaded.
    let runner = args.sandbox()?;
    let model_dir = located.directory().map(Path::to_owned);
    let mut answers = match given {
        Some(predictions) => Answers::File(predictions),
        None => located.model(&settings, &mut request, style, speculative, output)?,
    };
    request.training = training::training_tasks(benchmark.as_ref(), &request.tasks, model_dir.as_deref());
    request.files = vec![
        (file::CONFIG.into(), settings.config.to_yaml()),
        (file::RECIPE.into(), settings.recipe.to_yaml()),
    ];
    if let Answers::Model(generator) = &mut answers {
        let wanted = args.dry_run || args.profile == Some(Profile::Paper);
        if wanted && !request.resume {
            let estimate = match args.speed {
                Some(speed) => eval::estimate::from_speed(&request, speed),
                None => eval::estimate::from_probe(
                    benchmark.as_ref(),
                    &request,
                    generator.as_mut(),
                    settings.recipe.eval.batch,
                )?,
            };
            if args.dry_run {
                return output.result(&serde_json::to_value(&estimate)?, &show::estimate(&estimate));
            }
            eprintln!("{}", show::estimate(&estimate));
        }
    }
    tracing::info!(from = %answers.name(), benchmark = name, "evaluating");
    let mut bar = Bar::new();
    let finished = eval::run(
        benchmark.as_ref(),
        &request,
        match &mut answers {
            Answers::Model(generator) => Source::Generator(generator.as_mut()),
            Answers::File(predictions) => Source::Given(predictions),
        },
        &runner,
        &mut |progress| bar.set(progress),
    );
    bar.finish();
    let finished = finished?;
    if let (Some(model), Ok(result)) = (&model_dir, finished.to_json()) {
        keep_with_run(model, &result);
    }
    if let Err(failure) = tracking::log(&finished, &settings) {
        eprintln!(
            "warning: the run's trackers were not told of this evaluation: {}",
            failure.message()
        );
    }
    report(&finished, &answers, &settings, args.save_samples.as_deref(), output)
}

/// Leaves the result with the run whose checkpoint was evaluated, and renews that run's report. What was
/// evaluated stands in the evaluation's own directory, so that failing here is worth a warning only.
fn keep_with_run(model: &Path, result: &serde_json::Value) {
    let kept = crate::report::outcomes::keep(model, result);
    let renewed = kept.and_then(|run| run.map(|run| crate::report::write(&run, None)).transpose());
    if let Err(error) = renewed {
        eprintln!("warning: {error}");
    }
}

fn report(
    finished: &Finished,
    answers: &Answers,
    settings: &Settings,
    save: Option<&Path>,
    output: &Output,
) -> Result<(), Failure> {
    if let Some(file) = save {
        let from = finished.run_dir.join(file::SAMPLES);
        std::fs::copy(&from, file).map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", file.display())))?;
    }
    let mut json = finished.to_json()?;
    if let (Some(object), Answers::Model(_)) = (json.as_object_mut(), answers) {
        let model = finished.report.origin.get("model").cloned().unwrap_or_default();
        object.insert("model".into(), model.into());
        object.insert("precision".into(), settings.recipe.eval.precision.name().into());
    }
    let mut text = show::report(finished, &answers.name());
    if let Answers::Model(generator) = answers
        && generator.decoding.speculative
    {
        let (effort, tokens) = &generator.spent;
        json["speculative"] = speculation(effort, *tokens);
        text += &format!("\n{}", speculation_text(effort, *tokens));
    }
    output.result(&json, &text)
}

impl EvalArgs {
    /// The sandbox, with every layer unless `--unsafe-exec` was given.
    fn sandbox(&self) -> Result<Sandbox, Failure> {
        let policy = if self.unsafe_exec {
            Policy::UnsafeExec
        } else {
            Policy::Refuse
        };
        let made = Sandbox::with(&Options {
            policy,
            ..Options::default()
        });
        made.map_err(|error| match error {
            SandboxError::Layer { .. } => Failure::failed(format!("{error}: --unsafe-exec")),
            _ => error.into(),
        })
    }

    /// Flags that make no sense here.
    fn check(&self, benchmark: &str) -> Result<(), Failure> {
        for (bad, rule) in [
            (
                self.all_tests && !["contest", "jsonl"].contains(&benchmark),
                "--all-tests is for contest and jsonl: the other benchmarks have no tests that run apart",
            ),
            (
                self.speculative && self.predictions.is_some(),
                "--speculative says how a model drafts: with --predictions none is asked",
            ),
            (
                self.dry_run && self.predictions.is_some(),
                "--dry-run estimates what drawing completions costs: with --predictions none are drawn",
            ),
            (
                self.speed.is_some_and(|speed| !(speed > 0.0 && speed.is_finite())),
                "--speed must be above 0",
            ),
            (
                self.profile.is_some() && self.predictions.is_some(),
                "--profile says how completions are drawn: with --predictions none are drawn",
            ),
        ] {
            if bad {
                return Err(Failure::usage(rule));
            }
        }
        Ok(())
    }

    fn load(&self, under: &SettingsArgs, benchmark: &str) -> Result<Settings, Failure> {
        let mut profile = self
            .profile
            .map(|profile| profile.settings(benchmark))
            .unwrap_or_default();
        if benchmark.ends_with('+') {
            // evalplus' limit for all calls of a set; each call has one of its own.
            profile.push("eval.timeout_seconds=60".into());
        }
        let mut sources = under
            .over(profile)
            .sources(None)
            .flag_text("--tasks", "eval.tasks", self.tasks.as_deref())
            .flag_text("--variant", "eval.variant", self.variant.as_deref())
            .flag_text("--data", "eval.data", self.data.as_deref())
            .flag("--samples", "eval.samples", self.samples)
            .flag("--k", "eval.k", self.k.clone())
            .flag("--top-p", "eval.top_p", self.top_p)
            .flag("--max-new-tokens", "eval.max_new_tokens", self.max_new_tokens)
            .flag_text("--prompt", "eval.prompt", self.prompt.as_deref())
            .flag_text("--too-long", "eval.too_long", self.too_long.as_deref())
            .flag("--timeout", "eval.timeout_seconds", self.timeout)
            .flag("--all-tests", "eval.all_tests", self.all_tests.then_some(true))
            .flag(
                "--no-verdict-cache",
                "eval.verdict_cache",
                self.no_verdict_cache.then_some(false),
            )
            .flag("--seed", "seed", self.seed)
            .flag("--output", "paths.runs", self.output.clone());
        if let Some(temperatures) = &self.temperature {
            sources = match temperatures.as_slice() {
                [one] => sources.flag("--temperature", "eval.temperature", Some(one)),
                several => sources.flag("--temperature", "eval.temperature", Some(several)),
            };
        }
        if self.predictions.is_some() && self.samples.is_none() {
            // How many there are is in the file, which is read later; so is whether k fits.
            sources = sources.flag("--predictions", "eval.samples", Some(source::UNKNOWN_SAMPLES));
        }
        if self.predictions.is_some() && self.temperature.is_none() {
            sources = sources.flag("--predictions", "eval.temperature", Some(1.0));
        }
        Ok(sources.load()?)
    }
}

/// Whether it can be carried out, every task included.
fn check(request: &EvalRequest, benchmark: &dyn Benchmark) -> Result<(), Failure> {
    request.check()?;
    for &task in &request.tasks {
        benchmark.prompt(task)?;
    }
    Ok(())
}

fn writable(file: Option<&Path>) -> Result<(), Failure> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match file.map(parent) {
        Some(parent) if !parent.is_dir() => Err(Failure::usage(format!(
            "--save-samples: there is no directory `{}`",
            parent.display()
        ))),
        _ => Ok(()),
    }
}

/// The prompt that a benchmark has if none is asked for.
fn style(name: &str, asked: Option<PromptStyle>) -> PromptStyle {
    asked.unwrap_or(match name {
        "mbpp" => PromptStyle::FewShot,
        _ => PromptStyle::ZeroShot,
    })
}

fn benchmark(
    name: &str,
    settings: &Settings,
    style: PromptStyle,
    tokenizer: Option<&Tokenizer>,
    output: &Output,
) -> Result<Box<dyn Benchmark>, Failure> {
    let e = &settings.recipe.eval;
    let builtin = format!("builtin:{name}");
    let given_by_file = name.ends_with('+') || name == "jsonl";
    if given_by_file && e.data.as_deref().is_none_or(|data| data.starts_with("builtin:")) {
        return Err(Failure::usage(match name {
            "humaneval+" => "humaneval+ is not built in: give its published file, --data HumanEvalPlus.jsonl.gz",
            "mbpp+" => "mbpp+ is not built in: give its published file, --data MbppPlus.jsonl.gz",
            _ => {
                "jsonl evaluates problems of your own: give their file, --data FILE (docs/evaluation.md has its fields)"
            }
        }));
    }
    let source = data_source(e.data.as_deref().unwrap_or(&builtin), &settings.config, output)?;
    let variant = |known: &[&'static str]| match (e.variant.as_deref(), known) {
        (None, [first, ..]) => Ok(*first),
        (Some(variant), _) => known.iter().copied().find(|name| *name == variant).ok_or_else(|| {
            Failure::usage(format!(
                "`eval.variant` is {variant}, which {name} does not have: there is {}",
                known.join(" or ")
            ))
        }),
        (None, []) => Ok(""),
    };
    Ok(match name {
        "mbpp" => {
            let variant = match variant(&["full", "sanitized"])? {
                "sanitized" => MbppVariant::Sanitized,
                _ => MbppVariant::Full,
            };
            Box::new(Mbpp::load(&source, variant, e.altered_data, style, tokenizer)?)
        }
        "humaneval" => {
            variant(&["full"])?;
            Box::new(HumanEval::load(&source, e.altered_data, style, tokenizer)?)
        }
        "humaneval+" => {
            let repaired = variant(&["full", "repaired"])? == "repaired";
            let file = Path::new(&source);
            Box::new(Plus::load(file, PlusSet::HumanEval, repaired, style, tokenizer)?)
        }
        "mbpp+" => {
            variant(&["full"])?;
            Box::new(Plus::load(Path::new(&source), PlusSet::Mbpp, false, style, tokenizer)?)
        }
        "jsonl" => {
            if let Some(variant) = &e.variant {
                return Err(Failure::usage(format!(
                    "`eval.variant` is {variant}, and jsonl has no variants: each file is a set"
                )));
            }
            Box::new(Own::load(Path::new(&source), style, tokenizer, e.all_tests)?)
        }
        _ => {
            // Any file of a directory, where altered sets are allowed.
            let split = match e.variant.as_deref() {
                Some(split) if e.altered_data && !source.starts_with("builtin:") && !split.contains(['/', '.']) => {
                    split
                }
                _ => variant(&["test", "valid"])?,
            };
            Box::new(Contest::load(
                &source,
                split,
                e.altered_data,
                style,
                tokenizer,
                e.all_tests,
            )?)
        }
    })
}

fn request(
    name: &str,
    settings: &Settings,
    benchmark: &dyn Benchmark,
    runs: &Path,
    resumed: Option<PathBuf>,
) -> Result<EvalRequest, Failure> {
    let e = &settings.recipe.eval;
    let tasks = match &e.tasks {
        None => benchmark.default_tasks(),
        Some(TaskChoice::Range((first, last))) => (*first..=*last).collect(),
        Some(TaskChoice::Text(text)) => parse_task_names(text, benchmark)
            .map_err(|error| Failure::usage(format!("`eval.tasks` (--tasks): {error}")))?,
    };
    let mut origin = std::collections::BTreeMap::new();
    if e.altered_data {
        origin.insert("altered_data".to_owned(), "true".to_owned());
    }
    if e.all_tests {
        origin.insert("all_tests".to_owned(), "true".to_owned());
    }
    Ok(EvalRequest {
        samples: e.samples,
        k: e.k.clone(),
        temperatures: e.temperature.all(),
        top_p: e.top_p,
        seed: settings.config.seed,
        max_new_tokens: e.max_new_tokens,
        too_long: e.too_long,
        limits: Limits {
            wall: Duration::from_secs(e.timeout_seconds),
            // Half of it, as by default, for who gives more time means the processor's as well.
            cpu: Limits::default().cpu.max(Duration::from_secs(e.timeout_seconds / 2)),
            ..Limits::default()
        },
        resume: resumed.is_some(),
        origin,
        verdict_cache: e
            .verdict_cache
            .then(|| expand_home(&settings.config.paths.cache).join("verdicts")),
        ..EvalRequest::new(tasks, resumed.unwrap_or_else(|| new_directory(runs, name)))
    })
}

/// `eval-mbpp-` and the time; with a number where there is one of this second.
fn new_directory(runs: &Path, name: &str) -> PathBuf {
    let name = eval::plain_name(name);
    let name = format!("eval-{name}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S"));
    let plain = runs.join(&name);
    let numbered = (2..1000).map(|number| runs.join(format!("{name}-{number}")));
    std::iter::once(plain.clone())
        .chain(numbered)
        .find(|dir| !dir.exists())
        .unwrap_or(plain)
}
