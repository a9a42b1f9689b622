//! `wmtp inspect recipe`: the settings as they would be used, every default written out.

use super::{Failure, Output, SettingsArgs};
use crate::settings::Pipeline;
use serde_json::json;

/// `wmtp inspect <recipe>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The resolved recipe: reading it back with --recipe repeats it.
    Recipe(RecipeArgs),
}

#[derive(Debug, clap::Args)]
struct RecipeArgs {
    /// The built-in recipe to start from.
    pipeline: Option<Pipeline>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Prints the recipe as YAML, or recipe and config with `--json`.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let What::Recipe(args) = args.what;
    let settings = args.settings.sources(args.pipeline).load()?;
    output.result(
        &json!({"recipe": settings.recipe, "config": settings.config}),
        &settings.recipe.to_yaml(),
    )
}
