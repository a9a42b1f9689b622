//! The flags of `wmtp eval`, and the settings, estimate and sandbox that they ask for.

use super::source::{self, Answers};
use crate::{
    cli::{Failure, SettingsArgs, common::sandbox},
    eval::{
        self, Benchmark, EvalRequest, Profile,
        bench::{self, Spec},
        estimate::Estimate,
        sandbox::Sandbox,
    },
    paths::expand_home,
    run::file,
    settings::Settings,
};
use clap::{ArgMatches, Args as _, Command, FromArgMatches, Subcommand, error::ErrorKind};
use std::path::{Path, PathBuf};

/// `wmtp eval <mbpp|humaneval|contest|mbpp+|humaneval+|jsonl>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub(super) which: Which,
}

/// One of [`bench::ALL`], as a subcommand.
#[derive(Debug)]
pub(super) struct Which {
    pub benchmark: Spec,
    pub args: EvalArgs,
}

impl FromArgMatches for Which {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let chosen = matches.subcommand();
        let chosen = chosen.and_then(|(name, matches)| Some((Spec::named(name)?, matches)));
        let (benchmark, matches) = chosen.ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
        let args = EvalArgs::from_arg_matches(matches)?;
        Ok(Self { benchmark, args })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Which {
    fn augment_subcommands(command: Command) -> Command {
        bench::ALL.iter().fold(command, |command, spec| {
            command.subcommand(EvalArgs::augment_args(Command::new(spec.name)).about(spec.about))
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Spec::named(name).is_some()
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME; the newest run's best checkpoint if absent.
    #[arg(long, value_name = "URI")]
    pub model: Option<String>,
    /// Judge the completions in this file: JSONL with task_id and completion or solution.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub predictions: Option<PathBuf>,
    /// Named protocol, quick or paper; other flags override its settings.
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
    pub samples: Option<usize>,
    /// The k of pass@k, separated by commas (eval.k).
    #[arg(long, value_name = "1,10", value_delimiter = ',')]
    k: Option<Vec<usize>>,
    /// Sampling temperatures, separated by commas; 0 is greedy (eval.temperature).
    #[arg(long, value_name = "0.2,0.8", value_delimiter = ',', allow_negative_numbers = true)]
    temperature: Option<Vec<f64>>,
    /// Top-p (nucleus) sampling threshold (eval.top_p).
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Maximum new tokens per completion (eval.max_new_tokens).
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Prompts longer than the model takes: refuse the evaluation, or fail these problems (eval.too_long).
    #[arg(long, value_name = "refuse|fail")]
    too_long: Option<String>,
    /// How a problem becomes a prompt: few-shot, zero-shot or chat (eval.prompt).
    #[arg(long, value_name = "STYLE")]
    prompt: Option<String>,
    /// Wall-clock timeout per program, in seconds; for mbpp+ and humaneval+ the limit for all inputs of a set
    /// together, 60 by default (eval.timeout_seconds).
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Speculative decoding: heads 2..H draft tokens, head 1 verifies them. Completions stay the same, with fewer
    /// forward passes.
    #[arg(long)]
    pub speculative: bool,
    /// Contest and jsonl: run all tests, not only up to the first that fails (eval.all_tests).
    #[arg(long)]
    all_tests: bool,
    /// Judge every program, even if its verdict is cached (eval.verdict_cache).
    #[arg(long)]
    no_verdict_cache: bool,
    /// Run programs even if this host lacks a sandbox layer: they can then read, write and connect to
    /// whatever you can.
    #[arg(long)]
    unsafe_exec: bool,
    /// Seed of all random draws (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Resume an evaluation: its name, or `auto` for the newest unfinished one.
    #[arg(long, value_name = "auto|RUN")]
    resume: Option<String>,
    /// Print an estimate of the run's cost and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Throughput in tokens per second for the estimate, instead of a short measurement.
    #[arg(long, value_name = "TOKENS")]
    speed: Option<f64>,
    /// Also write the samples to this file.
    #[arg(long, value_name = "FILE")]
    pub save_samples: Option<PathBuf>,
    /// Where run directories are made (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
}

impl EvalArgs {
    /// The settings, and the run that is resumed: its own settings then, under those given now. What differs
    /// is refused later.
    pub fn resolve(&self, spec: &Spec) -> Result<(Settings, Option<PathBuf>), Failure> {
        let mut settings = self.load(&self.settings, spec)?;
        let runs = expand_home(&settings.config.paths.runs);
        let resumed = source::run_to_resume(self.resume.as_deref(), &runs, spec.name)?;
        if let Some(run) = &resumed {
            let own = self.settings.under(run.join(file::CONFIG), run.join(file::RECIPE));
            settings = self.load(&own, spec)?;
        }
        writable(self.save_samples.as_deref())?;
        Ok((settings, resumed))
    }

    /// What the run would cost, where that is asked for or much: with `--dry-run`, and the paper's protocol.
    pub fn estimate(
        &self,
        benchmark: &dyn Benchmark,
        request: &EvalRequest,
        answers: &mut Answers,
        settings: &Settings,
    ) -> Result<Option<Estimate>, Failure> {
        let wanted = self.dry_run || self.profile == Some(Profile::Paper);
        let Answers::Model(generator) = answers else {
            return Ok(None);
        };
        if !wanted || request.resume {
            return Ok(None);
        }
        Ok(Some(match self.speed {
            Some(speed) => eval::estimate::from_speed(request, speed),
            None => {
                let batch = settings.recipe.eval.batch;
                eval::estimate::from_probe(benchmark, request, generator.as_mut(), batch)?
            }
        }))
    }

    /// The sandbox, with every layer unless `--unsafe-exec` was given.
    pub fn sandbox(&self) -> Result<Sandbox, Failure> {
        sandbox(self.unsafe_exec)
    }

    /// Flags that make no sense here.
    pub fn check(&self, benchmark: &Spec) -> Result<(), Failure> {
        for (bad, rule) in [
            (
                self.all_tests && !benchmark.tests_apart,
                "--all-tests is for contest and jsonl: the other benchmarks have no tests that run apart",
            ),
            (
                self.speculative && self.predictions.is_some(),
                "--speculative sets how a model generates: with --predictions no model is loaded",
            ),
            (
                self.dry_run && self.predictions.is_some(),
                "--dry-run estimates the cost of sampling completions: with --predictions none are sampled",
            ),
            (
                self.speed.is_some_and(|speed| !(speed > 0.0 && speed.is_finite())),
                "--speed must be above 0",
            ),
            (
                self.profile.is_some() && self.predictions.is_some(),
                "--profile sets how completions are sampled: with --predictions none are sampled",
            ),
        ] {
            if bad {
                return Err(Failure::usage(rule));
            }
        }
        Ok(())
    }

    fn load(&self, under: &SettingsArgs, benchmark: &Spec) -> Result<Settings, Failure> {
        let mut profile = self
            .profile
            .map(|profile| benchmark.profile(profile))
            .unwrap_or_default();
        profile.extend(
            benchmark
                .timeout_seconds
                .map(|seconds| format!("eval.timeout_seconds={seconds}")),
        );
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
