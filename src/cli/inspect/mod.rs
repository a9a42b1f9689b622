//! `wmtp inspect`: the settings as they would be used, what training data shares with benchmarks, and
//! what a model's heads are worth on a text, and what a run's steps were trained on.

mod heads;
mod show;
mod steps;

use super::{Failure, Output, SettingsArgs, common::data_source};
use crate::{
    data::{DataConfig, Example, OverlapReport, PromptStyle, Tokenizer, decontaminate::Index, samples, text},
    eval::bench::{
        evaluation_names, evaluation_problems_of, is_evaluation_name,
        mbpp::{self, pairs},
    },
    pipeline,
    settings::{Pipeline, Settings},
};
use serde_json::json;
use std::{fmt::Write, path::PathBuf};

/// `wmtp inspect <recipe|data|heads|steps>`.
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
    /// The documents that a run's steps were trained on.
    Steps(steps::StepsArgs),
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
    /// Show this many training documents instead, with the tokens that are trained marked.
    #[arg(long, value_name = "N", conflicts_with_all = ["file", "against"])]
    show: Option<usize>,
    /// Write the documents that are shown as a page, too.
    #[arg(long, value_name = "FILE", requires = "show")]
    html: Option<PathBuf>,
    /// What is trained on: as `wmtp train --data` (data.source).
    #[arg(long, value_name = "URI")]
    data: Option<String>,
    /// The model whose tokenizer and chat template are used (model.base).
    #[arg(long, value_name = "URI")]
    model: Option<String>,
}

/// Inspects.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    match args.what {
        What::Recipe(args) => recipe(&args, output),
        What::Data(args) => data(&args, output),
        What::Heads(args) => heads::heads(args, output),
        What::Steps(args) => steps::steps(&args, output),
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
    let settings = args
        .settings
        .sources(None)
        .flag_text("--model", "model.base", args.model.as_deref())
        .flag_text("--data", "data.source", args.data.as_deref())
        .load()?;
    if let Some(number) = args.show {
        return show::show(&settings, number, args.html.as_deref(), output);
    }
    let names: Vec<&str> = match args.against.as_slice() {
        [] => evaluation_names(),
        named => named.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = names.iter().find(|name| !is_evaluation_name(name)) {
        return Err(Failure::usage(format!(
            "--against {unknown}: there is no such benchmark; there are {}, mbpp+=FILE and humaneval+=FILE",
            evaluation_names().join(", ")
        )));
    }
    let mut samples = Vec::new();
    for file in &args.file {
        samples.extend(samples::samples(file)?);
    }
    let mut texts = Vec::new();
    let what = match args.file.as_slice() {
        [] => {
            let data = &settings.recipe.data;
            samples = training_tasks(&settings, output)?;
            texts = text::load(&data.text)?;
            let (first, last) = data.train_tasks;
            let files = match texts.len() {
                0 => String::new(),
                n => format!(", and {n} file(s) of data.text"),
            };
            match pipeline::is_mbpp(data) {
                true => format!(
                    "tasks {first}-{last} of {} with their labelled solutions{files}",
                    data.source
                ),
                false => format!("{} samples of {}{files}", samples.len(), data.source),
            }
        }
        files => files
            .iter()
            .map(|f| f.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut reports = Vec::new();
    for name in names {
        let index = Index::of(&evaluation_problems_of(name)?);
        let mut report = index.compare(&samples, 1);
        report += index.compare_texts(&texts);
        reports.push((name, report));
    }
    let compared = samples.len() + texts.len();
    let copies: usize = reports.iter().map(|(_, report)| report.copies).sum();
    let by_name: serde_json::Map<String, serde_json::Value> = reports
        .iter()
        .map(|(name, report)| Ok(((*name).to_owned(), serde_json::to_value(report)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    output.result(
        &json!({"data": what, "samples": compared, "copies": copies, "benchmarks": by_name}),
        &for_people(&what, &reports),
    )?;
    if copies > 0 {
        return Err(Failure::Found(format!(
            "{copies} of {} comparisons found a copy of an evaluation problem: leave those samples out of training",
            compared * reports.len()
        )));
    }
    Ok(())
}

/// What the recipe trains on, without the tasks that it excludes: references and labelled solutions,
/// where there are some.
fn training_tasks(settings: &Settings, output: &Output) -> Result<Vec<Example>, Failure> {
    let config = &settings.recipe.data;
    if config.source == *DataConfig::NO_PROBLEMS {
        return Ok(Vec::new());
    }
    let found = DataConfig {
        source: config
            .source
            .try_map(|name| data_source(name, &settings.config, output))?,
        ..config.clone()
    };
    if !pipeline::is_mbpp(&found) {
        return Ok(pipeline::training_texts(&found)?);
    }
    let source = found.source.to_string();
    let problems = mbpp::load(&source)?;
    let wanted = |id: u32| {
        let (first, last) = config.train_tasks;
        (first..=last).contains(&id) && !config.exclude_tasks.contains(&id)
    };
    // Task and code are compared, not the prompt around them: any style and tokenizer will do.
    let tokenizer = Tokenizer::builtin_micro()?;
    let mut examples = mbpp::examples(&problems, wanted, PromptStyle::ZeroShot, &tokenizer)?;
    let solutions = pairs::load_labelled_if_present(&source)?;
    examples.extend(pairs::examples(
        &solutions,
        &problems,
        wanted,
        PromptStyle::ZeroShot,
        &tokenizer,
    )?);
    Ok(examples)
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
