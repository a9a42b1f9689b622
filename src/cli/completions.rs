//! `wmtp completions`: a completion script for a shell.

use super::{Cli, Failure, Output};
use clap::CommandFactory;
use serde_json::json;

/// `wmtp completions SHELL`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell.
    shell: clap_complete::Shell,
}

/// Prints the script; with `--json` inside a document.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wmtp", &mut script);
    let script = String::from_utf8_lossy(&script);
    output.result(&json!({"shell": args.shell.to_string(), "script": script}), &script)
}
