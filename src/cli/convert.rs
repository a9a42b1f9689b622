//! `wmtp convert`: a model directory from one layout into the other.

use super::{
    Failure, ModelSource, Output, SettingsArgs,
    common::{check_free, resolve_model},
};
use std::path::PathBuf;
use wmtp_model::Direction;

/// `wmtp convert SRC DST`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// A directory or hf://OWNER/NAME: Hugging Face's layout (config.json) becomes Meta's
    /// (params.json), and the reverse.
    #[arg(value_name = "SRC")]
    source: String,
    /// A directory that does not exist yet, or is empty.
    #[arg(value_name = "DST", value_parser = crate::cli::common::Utf8Path)]
    target: PathBuf,
}

/// Converts.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    check_free(&args.target)?;
    let source = match resolve_model(&args.source, &settings.config, output)?.source {
        ModelSource::Directory(dir) => dir,
        ModelSource::Builtin(name) => {
            return Err(Failure::usage(format!(
                "builtin:{name} has no directory to convert: give one"
            )));
        }
    };
    let done = wmtp_model::convert(&source, &args.target)?;
    let direction = match done.direction {
        Direction::MetaToHf => "meta-to-hf",
        Direction::HfToMeta => "hf-to-meta",
    };
    let json = serde_json::json!({
        "direction": direction,
        "target": args.target,
        "tensors": done.tensors,
        "bytes": done.bytes,
        "heads": done.n_heads,
        "tied": done.tied,
        "notes": done.notes,
    });
    let mut text = format!(
        "{direction}: {} tensors, {} bytes, {} prediction heads -> {}",
        done.tensors,
        done.bytes,
        done.n_heads,
        args.target.display()
    );
    for note in &done.notes {
        text += &format!("\nnote: {note}");
    }
    output.result(&json, &text)
}
