//! `wmtp export`: a checkpoint as a directory for other tools.

use super::{
    Failure, Output, SettingsArgs,
    base::find_dir,
    common::{check_free, model_dir, open_device, resolve_model},
};
use crate::pipeline::export_merged;
use serde_json::json;
use std::path::PathBuf;
use wmtp_model::{ExportOptions, Heads, SaveDtype};

/// `wmtp export SRC DST`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model or adapter directory, a run directory (its checkpoint `best`, else `last`), hf://OWNER/NAME or
    /// s3://BUCKET/KEY.
    #[arg(value_name = "SRC")]
    source: String,
    /// A directory that does not exist yet, or is empty.
    #[arg(value_name = "DST", value_parser = crate::cli::common::Utf8Path)]
    target: PathBuf,
    /// Add a LoRA adapter to its base model's weights and write the whole model. Without this, an adapter
    /// is written as an adapter.
    #[arg(long)]
    merge: bool,
    /// Prediction heads 2..H: keep them in a file that other tools do not read, or drop them.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "keep")]
    heads: HeadsFlag,
    /// Stored type of the weights; as stored in SRC if left out (of a merged adapter: as in its base).
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum HeadsFlag {
    Keep,
    Drop,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dtype {
    Bf16,
    F16,
    F32,
}

/// Exports.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    check_free(&args.target)?;
    let (_, device) = open_device(&settings)?;
    let source = resolve_model(&args.source, &settings.config, output)?;
    let (source, base) = if args.merge {
        let found = find_dir(&source, &settings.config, &device, output)?;
        (found.dir, found.base)
    } else {
        // The base of an adapter that stays one need not be there.
        (model_dir(&source, &settings.config, &device)?, None)
    };
    let options = ExportOptions {
        heads: match args.heads {
            HeadsFlag::Keep => Heads::Keep,
            HeadsFlag::Drop => Heads::Drop,
        },
        dtype: args.dtype.map(|dtype| match dtype {
            Dtype::Bf16 => SaveDtype::Bf16,
            Dtype::F16 => SaveDtype::F16,
            Dtype::F32 => SaveDtype::F32,
        }),
    };
    let done = match (args.merge, base) {
        (false, _) => wmtp_model::export(&source, &args.target, &options)?,
        (true, Some(base)) => export_merged(&source, &base, &args.target, &options, &device)?,
        (true, None) => {
            return Err(Failure::usage(format!(
                "`{}` is a whole model and has no adapter to merge: leave out --merge",
                source.display()
            )));
        }
    };
    let kind = if done.adapter { "adapter" } else { "model" };
    let json = json!({
        "source": source,
        "target": args.target,
        "kind": kind,
        "merged": args.merge,
        "tensors": done.tensors,
        "bytes": done.bytes,
        "heads": done.n_heads,
        "dtype": done.dtype.torch_name(),
        "notes": done.notes,
    });
    let mut text = format!(
        "{kind}: {} tensors, {} bytes, {}, prediction heads: {} -> {}",
        done.tensors,
        done.bytes,
        done.dtype.torch_name(),
        done.n_heads,
        args.target.display()
    );
    for note in &done.notes {
        text += &format!("\nnote: {note}");
    }
    output.result(&json, &text)
}
