//! `wmtp cache`: what was downloaded and kept, and how it leaves.

use super::{Failure, ModelSource, Output, SettingsArgs, common::resolve};
use crate::{
    storage::{ByteSize, CacheEntry, Cleaned, Kind, Storage},
    text::mib,
};
use serde_json::json;
use std::fmt::Write;

/// `wmtp cache <list|fetch|clean>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the entries, most recently used first.
    List {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Download a model or data set in advance, for example for offline use.
    Fetch {
        #[command(flatten)]
        settings: SettingsArgs,
        /// hf://OWNER/NAME or s3://BUCKET/KEY.
        uri: String,
        /// The URI names a data set, not a model.
        #[arg(long)]
        data: bool,
    },
    /// Remove entries that no process uses.
    Clean {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Keep the most recently used entries up to this total size.
        #[arg(long, value_name = "SIZE", conflicts_with = "unfinished")]
        keep: Option<ByteSize>,
        /// Remove only interrupted downloads.
        #[arg(long)]
        unfinished: bool,
        /// Print what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Lists or cleans.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    match args.action {
        Action::List { settings } => {
            let config = settings.sources(None).load()?.config;
            let entries = Storage::new(&config.storage, &config.paths).cached()?;
            let most = config.storage.cache.max_size.map(|size| size.0);
            let document = json!({"entries": entries, "max_bytes": most});
            output.result(&document, &table(&entries))
        }
        Action::Fetch { settings, uri, data } => {
            let config = settings.sources(None).load()?.config;
            let kind = if data { Kind::Data } else { Kind::Model };
            let path = match resolve(&uri, kind, &config, output)? {
                ModelSource::Directory(path) => path,
                ModelSource::Builtin(_) => {
                    return Err(Failure::usage(format!("{uri} is built in: there is nothing to fetch")));
                }
            };
            let path = path.display().to_string();
            output.result(&json!({"uri": uri, "path": path}), &path)
        }
        Action::Clean {
            settings,
            keep,
            unfinished,
            dry_run,
        } => {
            let config = settings.sources(None).load()?.config;
            let keep = (!unfinished).then(|| keep.unwrap_or(ByteSize(0)));
            let cleaned = Storage::new(&config.storage, &config.paths).clean(keep, dry_run)?;
            output.result(&serde_json::to_value(cleaned)?, &report(&cleaned, dry_run))
        }
    }
}

fn table(entries: &[CacheEntry]) -> String {
    if entries.is_empty() {
        return "nothing is kept".into();
    }
    let mut text = String::new();
    for entry in entries {
        let used = i64::try_from(entry.used)
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%d %H:%M").to_string());
        let names = entry.uris.join(", ");
        let mark = if entry.in_use { "  in use" } else { "" };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{used}  {:>10.1} MiB  {:>4} files  {names}{mark}",
            mib(entry.bytes),
            entry.files
        );
    }
    text
}

fn report(cleaned: &Cleaned, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let used = match cleaned.in_use {
        0 => String::new(),
        n => format!(", {n} of them in use"),
    };
    format!(
        "{verb} {} entries and {} broken-off downloads, {:.1} MiB; {:.1} MiB stay{used}",
        cleaned.removed,
        cleaned.partial,
        mib(cleaned.freed_bytes),
        mib(cleaned.kept_bytes)
    )
}
