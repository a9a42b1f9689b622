//! The command line: arguments to one call into the library, output for people or `--json`.
//!
//! Exit code 0 on success, 2 for bad usage or settings, 1 for any other failure. A failure is one
//! sentence on standard error, `error: ...`; with `--json` it is also the document on standard
//! output, `{"error": {"code": 2, "message": "..."}}`, so that a program that reads there always
//! finds exactly one document.
#![deny(clippy::print_stderr)]

/// A line on standard error. Where that is gone (a closed terminal, a full disk, a pipe that nobody reads any more),
/// the work goes on: `eprintln!` would end it by a panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// The same without a line end.
macro_rules! ask {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

mod bar;
mod base;
mod cache;
mod card;
mod chat;
mod common;
mod completions;
mod conversation;
mod convert;
mod dashboard;
mod doctor;
mod eval;
mod export;
mod failure;
mod generate;
mod help;
mod inspect;
mod label;
mod lines;
mod log;
mod man;
mod output;
#[cfg(feature = "mlflow")]
mod promote;
mod push;
mod report;
mod resume;
mod runs;
mod sample;
mod schema;
mod score;
mod sweep;
mod track;
mod train;
mod version;
mod writer;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use serde_json::json;
use std::{ffi::OsString, process::ExitCode};

pub use common::{Model, ModelSource, SettingsArgs};
pub use failure::Failure;
pub use lines::Lines;
pub use output::{Output, TransferBar};

/// Weighted multi-token prediction: fine-tune Llama-style code models with a weight for every token.
#[derive(Debug, Parser)]
#[command(
    name = "wmtp",
    version,
    long_version = version::LONG.as_str(),
    propagate_version = true,
    max_term_width = 100,
    after_help = help::TOP
)]
struct Cli {
    /// Print exactly one JSON document on standard output.
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// Log more to standard error (set a filter with WMTP_LOG, such as WMTP_LOG=wmtp=debug).
    #[arg(long, short, global = true, help_heading = "Output")]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune a model.
    #[command(after_help = help::TRAIN)]
    Train(train::Args),
    /// Train and evaluate many variants of a recipe, and compare them.
    #[command(after_help = help::SWEEP)]
    Sweep(sweep::Args),
    /// Evaluate a model on a benchmark.
    #[command(after_help = help::EVAL)]
    Eval(Box<eval::Args>),
    /// Continue a prompt, or answer a chat message.
    #[command(after_help = help::GENERATE)]
    Generate(generate::Args),
    /// Chat with a model.
    #[command(after_help = help::CHAT)]
    Chat(chat::Args),
    /// Draw completions for the prompts of a data file.
    #[command(after_help = help::SAMPLE)]
    Sample(sample::Args),
    /// Label the candidates of a data file by running its tests.
    #[command(after_help = help::LABEL)]
    Label(label::Args),
    /// Compute the cross-entropy of every head for every token of a text.
    #[command(after_help = help::SCORE)]
    Score(score::Args),
    /// Print the resolved settings, compare training data with benchmarks, or evaluate a model's heads.
    #[command(after_help = help::INSPECT)]
    Inspect(inspect::Args),
    /// Convert a model between layouts.
    #[command(after_help = help::CONVERT)]
    Convert(convert::Args),
    /// Export a checkpoint for other tools: merged, without extra heads, or in another dtype.
    #[command(after_help = help::EXPORT)]
    Export(export::Args),
    /// Write a report of a run, or a comparison of several runs, as HTML pages.
    #[command(after_help = help::REPORT)]
    Report(report::Args),
    /// Deliver a run to its trackers after it has ended.
    #[command(after_help = help::TRACK)]
    Track(track::Args),
    /// Register a run's model in the model registry, with its model card.
    #[command(after_help = help::PROMOTE)]
    #[cfg(feature = "mlflow")]
    Promote(promote::Args),
    /// Not in this program, which was built without MLflow.
    #[cfg(not(feature = "mlflow"))]
    #[command(hide = true)]
    Promote {
        /// Not read.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Push a run's model, with its model card, to a repository of the model hub.
    #[command(after_help = help::PUSH)]
    Push(push::Args),
    /// List, fetch or remove cached downloads.
    #[command(after_help = help::CACHE)]
    Cache(cache::Args),
    /// Check which devices, sandbox layers and directories work on this machine.
    #[command(after_help = help::DOCTOR)]
    Doctor(doctor::Args),
    /// Print the JSON Schema of a settings file, for editors.
    #[command(after_help = help::SCHEMA)]
    Schema(schema::Args),
    /// Print a completion script for a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions(completions::Args),
    /// Write the manual pages of all commands, for packages.
    #[command(hide = true, after_help = help::MAN)]
    Man(man::Args),
}

/// The command line as clap knows it, for the reference page.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: parses, runs, reports.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // A failure to parse has to honour it, too.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    crate::stop::follow_standard_input();
    let outcome = parse(args).and_then(|cli| {
        log::to_stderr(cli.verbose);
        wmtp_kernels::Isa::chosen().map_err(Failure::usage)?;
        run(cli.command, &Output::new(cli.json))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure, &Output::new(json));
            ExitCode::from(failure.code())
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Cli, Failure> {
    let matches = Cli::command().try_get_matches_from(args).map_err(|e| usage(&e))?;
    Cli::from_arg_matches(&matches).map_err(|e| usage(&e))
}

/// clap's paragraph as one sentence; help and version are printed and end quietly.
fn usage(error: &clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match Output::default().raw(&error.render().to_string()) {
                Ok(()) => Failure::Quiet,
                Err(failure) => failure,
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return Failure::usage("no command was given: add --help to see which there are");
        }
        _ => {}
    }
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or(&text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    // The tip to quote an unknown flag as a value helps nobody here.
    let text = text.split("\n\n  tip: to pass").next().unwrap_or(text);
    Failure::usage(text.trim_start_matches("error:").replace("\n\n  tip: ", "; "))
}

fn run(command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Train(args) => train::run(args, output),
        Command::Sweep(args) => sweep::run(args, output),
        Command::Eval(args) => eval::run(*args, output),
        Command::Generate(args) => generate::run(args, output),
        Command::Chat(args) => chat::run(args, output),
        Command::Sample(args) => sample::run(args, output),
        Command::Label(args) => label::run(args, output),
        Command::Score(args) => score::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Convert(args) => convert::run(args, output),
        Command::Export(args) => export::run(args, output),
        Command::Report(args) => report::run(args, output),
        Command::Track(args) => track::run(args, output),
        #[cfg(feature = "mlflow")]
        Command::Promote(args) => promote::run(args, output),
        #[cfg(not(feature = "mlflow"))]
        Command::Promote { .. } => Err(Failure::usage(
            "the registry is an MLflow server's, and this program was built without MLflow: build it with the feature `mlflow`",
        )),
        Command::Push(args) => push::run(args, output),
        Command::Cache(args) => cache::run(args, output),
        Command::Doctor(args) => doctor::run(args, output),
        Command::Schema(args) => schema::run(args, output),
        Command::Completions(args) => completions::run(args, output),
        Command::Man(args) => man::run(args, output),
    }
}

fn tell(failure: &Failure, output: &Output) {
    if *failure == Failure::Quiet {
        return;
    }
    say!("error: {}", failure.message());
    let printed = matches!(failure, Failure::Found(_));
    if output.is_json() && !printed {
        let document = json!({"error": {"code": failure.code(), "message": failure.message()}});
        // Where standard output is closed, the sentence above has said it.
        let _ = output.result(&document, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
