//! `wmtp schema`: JSON Schema of a settings file, so that editors complete and check it.

use super::{Failure, Output};
use crate::{
    settings::{config_schema, for_editors, recipe_schema},
    sweep::sweep_schema,
};

/// `wmtp schema <config|recipe|sweep>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which file.
    file: File,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum File {
    /// Where and how it runs.
    Config,
    /// What is trained.
    Recipe,
    /// Which variants of a recipe are compared.
    Sweep,
}

/// Prints the schema, which is JSON with or without `--json`.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let schema = match args.file {
        File::Config => for_editors(config_schema(), "config"),
        File::Recipe => for_editors(recipe_schema(), "recipe"),
        File::Sweep => for_editors(sweep_schema(), "sweep"),
    };
    output.result(&schema, &format!("{schema:#}"))
}
