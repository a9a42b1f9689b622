//! `wmtp inspect`: the settings as they would be used, what training data shares with benchmarks, and
//! what a model's heads are worth on a text.

mod heads;

use super::{Failure, Output, SettingsArgs, common::data_source};
use crate::{
    data::{
        Example, OverlapReport, PromptStyle, Tokenizer,
        decontaminate::compare,
        evaluation::{self, BENCHMARKS},
        mbpp,
    },
    settings::{Pipeline, Settings},
};
use serde_json::json;
use std::{fmt::Write, path::PathBuf};

/// `wmtp inspect <recipe|data|heads>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The resolved recipe: reading it back with --recipe repeats it.
    Recipe(RecipeArgs),
    /// Training data compared with benchmarks: exit code 1 if a sample is a copy of a problem.
    Data(DataArgs),
    /// Cross-entropy, accuracy and calibration of every head on a held-out text.
    Heads(heads::HeadsArgs),
}

#[derive(Debug, clap::Args)]
struct RecipeArgs {
    /// The built-in recipe to start from.
    pipeline: Option<Pipeline>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, clap::Args)]
struct DataArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Training data to compare instead of the recipe's training tasks: JSONL, a JSON array, or a
    /// program; may be given several times.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Benchmarks, separated by commas: mbpp, sanitized, humaneval, contest (all four if left out),
    /// mbpp+=FILE, humaneval+=FILE.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    against: Vec<String>,
}

/// Inspects.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    match args.what {
        What::Recipe(args) => recipe(&args, output),
        What::Data(args) => data(&args, output),
        What::Heads(args) => heads::heads(args, output),
    }
}

/// Prints the recipe as YAML, or recipe and config with `--json`.
fn recipe(args: &RecipeArgs, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(args.pipeline).load()?;
    output.result(
        &json!({"recipe": settings.recipe, "config": settings.config}),
        &settings.recipe.to_yaml(),
    )
}

fn data(args: &DataArgs, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let names: Vec<&str> = match args.against.as_slice() {
        [] => BENCHMARKS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = names.iter().find(|name| !evaluation::is_benchmark(name)) {
        return Err(Failure::usage(format!(
            "--against {unknown}: there is no such benchmark; there are {}, mbpp+=FILE and humaneval+=FILE",
            BENCHMARKS.join(", ")
        )));
    }
    let mut samples = Vec::new();
    for file in &args.file {
        samples.extend(evaluation::samples(file)?);
    }
    let what = match args.file.as_slice() {
        [] => {
            samples = training_tasks(&settings, output)?;
            let (first, last) = settings.recipe.data.train_tasks;
            format!("tasks {first}-{last} of {}", settings.recipe.data.source)
        }
        files => files
            .iter()
            .map(|f| f.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut reports = Vec::new();
    for name in names {
        reports.push((name, compare(&samples, &evaluation::problems(name)?)));
    }
    let copies: usize = reports.iter().map(|(_, report)| report.copies).sum();
    let by_name: serde_json::Map<String, serde_json::Value> = reports
        .iter()
        .map(|(name, report)| Ok(((*name).to_owned(), serde_json::to_value(report)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    output.result(
        &json!({"data": what, "samples": samples.len(), "copies": copies, "benchmarks": by_name}),
        &for_people(&what, &reports),
    )?;
    if copies > 0 {
        return Err(Failure::Found(format!(
            "{copies} of {} comparisons found a copy of an evaluation problem: leave those samples out of training",
            samples.len() * reports.len()
        )));
    }
    Ok(())
}

/// What the recipe trains on, without the tasks that it excludes.
fn training_tasks(settings: &Settings, output: &Output) -> Result<Vec<Example>, Failure> {
    let config = &settings.recipe.data;
    let source = data_source(&config.source, &settings.config, output)?;
    let problems = mbpp::load(&source)?;
    let wanted = |id: u32| {
        let (first, last) = config.train_tasks;
        (first..=last).contains(&id) && !config.exclude_tasks.contains(&id)
    };
    // Task and code are compared, not the prompt around them: any style and tokenizer will do.
    let tokenizer = Tokenizer::builtin_micro()?;
    Ok(mbpp::examples(&problems, wanted, PromptStyle::ZeroShot, &tokenizer)?)
}

fn for_people(what: &str, reports: &[(&str, OverlapReport)]) -> String {
    let mut text = format!("{what} against\n");
    for (name, report) in reports {
        let _ = write!(
            text,
            "{name:10} {} samples: {} copies, {} share an idiom",
            report.checked, report.copies, report.partial
        );
        if let Some((sample, problem, share)) = &report.largest {
            let _ = write!(text, " (at most {:.0}%: {sample} and {problem})", share * 100.0);
        }
        text.push('\n');
        for overlap in &report.found {
            let _ = writeln!(text, "  {}: {}", overlap.sample, overlap.reason());
        }
    }
    text.trim_end().to_owned()
}
